"""`c-host`: the generated C with this machine's compiler, sanitizers on: the everyday check.

Portable kernels, the address and undefined-behaviour sanitizers, every warning an error. What
passes here computes the same integers on any core; speed and memory are not measured.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.pipeline.tools import Tool
from edgesmith.pipeline.values import BuildPlan, BuildProducts, Command
from edgesmith.targets.c.exchange import (
    INPUTS,
    OUTPUTS,
    TRACE,
    input_bytes,
    outputs_in,
    read,
    trace_in,
)
from edgesmith.targets.c.target import FIRMWARE, CTarget
from edgesmith.targets.c.text import with_prefix

if TYPE_CHECKING:
    from edgesmith.targets.base import Codes
    from edgesmith.targets.c.compiler import Compiled
    from edgesmith.targets.graph.ir import Graph

_COMPILER = "gcc"
# No debugging information: it names the build folder. Sanitizers say file and line without it.
_FLAGS = (
    "-std=c11",
    "-O1",
    "-g0",
    "-fno-omit-frame-pointer",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pedantic",
    "-fno-pie",  # addresses are final: pointers in constants can be compared
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)
_PROGRAM = f"{FIRMWARE}/model"
_TRACED = f"{FIRMWARE}/model-traced"
_TIMEOUT_S = 600.0


class CHost(CTarget):
    """The generated C on this machine."""

    name: ClassVar[str] = "c-host"
    title: ClassVar[str] = "C11 on this machine"
    summary: ClassVar[str] = "Generated C11, compiled here with sanitizers: exact, not measured"

    size_name: ClassVar[str] = "deployed constants"

    def deployed_bytes(self, products: BuildProducts) -> int:
        """Of the constant arrays: the program around them, full of checks, is deployed nowhere."""
        return self.compiled(products).constant_bytes

    def tools(self) -> Sequence[Tool]:
        return (Tool(_COMPILER, "apt-get install -y gcc libc6-dev"),)

    def firmware(self, compiled: Compiled) -> BuildPlan:
        prefix = self.options.prefix
        main = files("edgesmith.targets.c").joinpath("host", "main.c").read_text()
        path = f"{FIRMWARE}/main.c"
        sources = (path, *sorted(name for name in compiled.library.files if name.endswith(".c")))
        wiring = (path, f"{prefix}.c")
        commands = [_compile(source) for source in sources]
        commands += [_compile(source, "traced_", f"-D{prefix.upper()}_TRACE") for source in wiring]
        commands.append(_link([_object(source) for source in sources], _PROGRAM))
        traced = [_object(each, "traced_" if each in wiring else "") for each in sources]
        commands.append(_link(traced, _TRACED))
        return BuildPlan({path: with_prefix(main, prefix).encode()}, tuple(commands), _PROGRAM)

    def images(self, products: BuildProducts) -> Sequence[Path]:
        return [Path(products.folder) / name for name in (_PROGRAM, _TRACED)]

    def run(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        compiled = self.compiled(products)
        graph = self.shipped(products)
        program = Path(products.folder) / (_TRACED if trace else _PROGRAM)
        with tempfile.TemporaryDirectory(prefix="edgesmith-c-host-") as name:
            folder = Path(name)
            (folder / INPUTS).write_bytes(input_bytes(graph, inputs))
            _execute(program, folder)
            found = outputs_in(graph, read(folder / OUTPUTS), len(inputs[0]))
            if not trace:
                return found
            return {
                **dict(zip(graph.inputs, inputs, strict=True)),
                **_traced(compiled, graph, read(folder / TRACE), len(inputs[0])),
                **found,
            }


def _object(source: str, variant: str = "") -> str:
    return f"{FIRMWARE}/{variant}{Path(source).stem}.o"


def _compile(source: str, variant: str = "", *flags: str) -> Command:
    output = _object(source, variant)
    return Command((_COMPILER, *_FLAGS, *flags, "-I.", "-c", source, "-o", output))


def _link(objects: Sequence[str], program: str) -> Command:
    return Command((_COMPILER, *_FLAGS, "-no-pie", *objects, "-o", program))


def _traced(compiled: Compiled, graph: Graph, data: bytes, samples: int) -> dict[str, Codes]:
    names = compiled.library.traced
    shown = {index: graph[name] for index, name in enumerate(names) if name in graph.tensors}
    return trace_in(shown, names, data, samples)


def _execute(program: Path, folder: Path) -> None:
    # A copy: where artifacts are kept, files may be neither writable nor executable.
    copy = folder / program.name
    shutil.copyfile(program, copy)
    copy.chmod(0o700)
    try:
        done = subprocess.run(
            [str(copy)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolFailedError(
            f"{program} did not finish within {_TIMEOUT_S:.0f} s", fix="give fewer samples"
        ) from error
    if done.returncode:
        handle, log = tempfile.mkstemp(prefix="edgesmith-c-host-", suffix=".log")
        with open(handle, "wb") as stream:
            stream.write(done.stderr)
        raise ToolFailedError(
            f"the generated C in {program} ended with status {done.returncode}",
            fix=f"read {log}; this is a defect: report it with the model",
        )
