"""What measured layers depend on beside themselves: the core, the source that counts, the tools."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

from edgesmith.pipeline.own_source import source_digest
from edgesmith.targets.cost.emulate import OPTIONS, SAMPLES
from edgesmith.targets.mcu.facts import Core
from edgesmith.targets.mcu.toolchain import GCC, OBJDUMP, QEMU

_COUNTING_TOOLS = (GCC, OBJDUMP, QEMU)
_COUNTING_SOURCES = (
    ("edgesmith.targets.c", ("generator.py", "text.py", "templates/model.c.j2")),
    ("edgesmith.targets.cost", ("batch.py", "emulate.py", "layers.py")),
)


def facts_of(core: Core) -> dict[str, str]:
    """What measured layers of a core depend on, tools and kernels left out."""
    digest = hashlib.sha256()
    for package, names in _COUNTING_SOURCES:
        for name in names:
            digest.update(name.encode() + b"\0" + files(package).joinpath(name).read_bytes())
    digest.update(source_digest(Path(str(files("edgesmith.targets.mcu")))).encode())
    return {
        "core": core.name,
        "machine": core.machine.name,
        "kernels": core.kernels.value,
        "flags": " ".join((*core.compile_flags(), *OPTIONS.optimization)),
        "timing": core.timing,
        "samples": str(SAMPLES),
        "source": digest.hexdigest(),
    }


def tool_versions() -> dict[str, str]:
    """What each tool says of itself; "missing" without it."""
    return {f"tool {tool.name}": tool.version() for tool in _COUNTING_TOOLS}


@cache
def generator_digest() -> str:
    """What a stated error depends on: all of the generator, not only what decides keys."""
    rooms = (files(f"edgesmith.targets.{name}") for name in ("c", "mcu", "cost"))
    digests = (source_digest(Path(str(room))) for room in rooms)
    return hashlib.sha256("".join(digests).encode()).hexdigest()
