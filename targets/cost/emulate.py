"""Measuring a batch of layers in the emulator: instructions, cycles, flash."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.values import BuildPlan, Command, Kind
from edgesmith.targets.c.exchange import TensorType
from edgesmith.targets.cost.base import Figure
from edgesmith.targets.cost.batch import Together, together
from edgesmith.targets.cost.layers import Layer
from edgesmith.targets.cost.table import LayerRecord
from edgesmith.targets.mcu.counting import InstructionCount, Profile
from edgesmith.targets.mcu.cycles import TIMINGS, CycleEstimate, Cycles, estimate
from edgesmith.targets.mcu.elf import FlashMap, Purpose, flash_map
from edgesmith.targets.mcu.emulator import Firmware, run
from edgesmith.targets.mcu.facts import Core
from edgesmith.targets.mcu.histogram import disassemble
from edgesmith.targets.mcu.toolchain import (
    BARE_ELF,
    FIRMWARE,
    GCC,
    HARNESS_ELF,
    FirmwareOptions,
    firmware_plan,
)

SAMPLES = 4
OPTIONS = FirmwareOptions(trace=False)
OVERHEAD = "overhead"
"""The key of the record of what an image and an inference cost beside their layers."""

_LAYER_SYMBOL = re.compile(r"model_(?:layer|arguments|expansion)_(\d+)")
_INCLUDE = re.compile(rb'^#include "([^"]+)"', re.MULTILINE)
_OWN_HEADERS = {f"{OPTIONS.prefix}.h", f"{OPTIONS.prefix}_data.h"}
_CALL_BYTES = 4  # of the branch to a layer in model_invoke
_TIMEOUT_S = 600.0


@dataclass(frozen=True, eq=False)
class Bench:
    """Where batches are measured.

    Args:
        objects: a folder for compiled kernels; None compiles them every time.
    """

    core: Core
    objects: Path | None = None

    def measure(
        self, layers: Sequence[Layer], known: Mapping[str, dict[str, int]]
    ) -> tuple[LayerRecord, ...]:
        """Build and run layers as one program; a record each.

        Args:
            known: kernel -> its code, of kernels that need not be linked again.

        Raises:
            ToolMissingError, ToolFailedError: as building and running raise them.
        """
        ran = self._run(layers, known)
        return tuple(ran.record(number) for number in range(len(layers)))

    def overhead(self, layer: Layer) -> LayerRecord:
        """What a program costs beside its one layer: instructions of the wiring, flash."""
        return self._run((layer,), {}).overhead()

    def _run(self, layers: Sequence[Layer], known: Mapping[str, dict[str, int]]) -> _Ran:
        folder = Path(tempfile.mkdtemp(prefix="edgesmith-cost-"))
        keep = False
        try:
            return self._run_in(folder, together(layers, self.core.kernels), known)
        except ToolFailedError:
            keep = len(layers) == 1  # the message names its logs; a batch is tried in halves
            raise
        finally:
            if not keep:
                shutil.rmtree(folder)

    def _run_in(self, folder: Path, batch: Together, known: Mapping[str, dict[str, int]]) -> _Ran:
        self._build(batch, folder)
        emulation = run(
            Firmware.in_folder(folder, self.core, OPTIONS.prefix),
            [random_bytes(batch.input_bytes)],
            [TensorType("uint8", (batch.output_bytes,))],
            count=True,
            timeout_s=_TIMEOUT_S,
            folder=folder / "run",
        )
        assert emulation.profile is not None
        code = disassemble(folder / HARNESS_ELF, self.core)
        kernels = dict(known)
        for layer in batch.layers:
            if layer.kernel not in kernels:
                kernels[layer.kernel] = self._code(layer, folder)
        return _Ran(
            batch,
            emulation.profile,
            estimate(emulation.profile, code, TIMINGS[self.core.timing]),
            flash_map(folder / BARE_ELF, OPTIONS.prefix),
            kernels,
        )

    def _build(self, batch: Together, folder: Path) -> None:
        plan = firmware_plan(batch.library.files, self.core, OPTIONS)
        if self.objects is None:
            execute_plan(plan, folder)
            return
        kept = {command: self._kept(command, plan) for command in plan.commands}
        missing = []
        for command, path in kept.items():
            if path is not None and path.is_file():
                place = folder / command.arguments[-1]
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(path.read_bytes())
            else:
                missing.append(command)
        execute_plan(replace(plan, commands=tuple(missing)), folder)
        with cache_errors(self.objects):
            for command in missing:
                path = kept[command]
                if path is not None:
                    write_atomically(path, (folder / command.arguments[-1]).read_bytes())

    def _kept(self, command: Command, plan: BuildPlan) -> Path | None:
        """Where the object of a compiler call is kept: of all but the batch's own files."""
        assert self.objects is not None
        if "-c" not in command.arguments:
            return None
        used = _included(command.arguments[command.arguments.index("-c") + 1], plan.files)
        if used & _OWN_HEADERS:
            return None
        digest = hashlib.sha256(repr(command.arguments).encode())
        for name in sorted(used):
            digest.update(name.encode() + b"\0" + hashlib.sha256(plan.files[name]).digest())
        return self.objects / f"{digest.hexdigest()}.o"

    def _code(self, layer: Layer, folder: Path) -> dict[str, int]:
        """The flash of a kernel alone: what linking it, and nothing else, keeps."""
        objects = [f"{FIRMWARE}/{Path(source).stem}.o" for source in layer.call.sources]
        function = f"{OPTIONS.prefix}_{layer.call.function}"
        entry = ["-nostartfiles", "-Wl,--gc-sections", f"-Wl,-e,{function}"]
        if layer.call.expanded is not None:
            entry.append(f"-Wl,-u,{OPTIONS.prefix}_{layer.call.expanded.function}")
        script = ("-T", f"{FIRMWARE}/link.ld")
        elf = f"{FIRMWARE}/kernel.elf"
        flags = self.core.compile_flags()
        command = Command((GCC.name, *flags, *entry, *script, *objects, "-o", elf), _TIMEOUT_S)
        execute_plan(BuildPlan({}, (command,)), folder)
        return _code_in(flash_map(folder / elf, OPTIONS.prefix))


def _included(source: str, files: Mapping[str, bytes]) -> set[str]:
    """A source file and all of the files that it includes, directly or not."""
    found: set[str] = set()
    waiting = [source]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            named = {match.decode() for match in _INCLUDE.findall(files[name])}
            waiting += [path for path in files if path.rpartition("/")[2] in named]
    return found


@dataclass(frozen=True, eq=False)
class _Ran:
    """What one batch gave."""

    batch: Together
    profile: Profile
    cycles: CycleEstimate
    image: FlashMap
    kernels: Mapping[str, dict[str, int]]

    def record(self, number: int) -> LayerRecord:
        """Of one layer."""
        layer, counted = self.batch.layers[number], self.profile.layers[number]
        return LayerRecord(
            key=layer.key,
            description=layer.description,
            instructions=_counted(counted.instructions),
            cycles=_estimated(self.cycles.layers[counted.name], self.profile.samples),
            wiring_bytes=self._wiring_bytes(number),
            kernel=layer.kernel,
            code=self.kernels[layer.kernel],
        )

    def overhead(self) -> LayerRecord:
        """Of the program around its only layer; what kernels may also use is in `code`."""
        shared = (Purpose.STARTUP, Purpose.RUNTIME, Purpose.WIRING)
        found = _code_in(self.image, shared)
        code = {name: size for name, size in found.items() if not _LAYER_SYMBOL.match(name)}
        return LayerRecord(
            key=OVERHEAD,
            description={},
            instructions=_counted(self.profile.wiring.instructions),
            cycles=_estimated(self.cycles.wiring, self.profile.samples),
            wiring_bytes=-_CALL_BYTES,  # of the one layer that is there
            kernel="",
            code=code,
        )

    def _wiring_bytes(self, number: int) -> int:
        found = _CALL_BYTES
        for symbol in self.image.symbols:
            match = _LAYER_SYMBOL.match(symbol.name)
            if match and int(match[1]) == number and symbol.section in self.image.flash:
                found += symbol.bytes
        return found


def _code_in(image: FlashMap, purposes: Container[Purpose] = frozenset(Purpose)) -> dict[str, int]:
    """Symbol and size -> bytes in flash, for files may have functions of one name."""
    found: dict[int, tuple[str, int]] = {}  # aliases count once
    for symbol in image.symbols:
        if symbol.section in image.flash and symbol.bytes and symbol.purpose in purposes:
            found[symbol.address] = (f"{symbol.name} {symbol.bytes}", symbol.bytes)
    return dict(found.values())


def random_bytes(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """[SAMPLES, count]; more bytes begin with the same ones."""
    rows = [np.random.default_rng([sample, 0xC057]).bytes(count) for sample in range(SAMPLES)]
    return np.stack([np.frombuffer(row, np.uint8) for row in rows])


def _counted(count: InstructionCount) -> Figure:
    return Figure(count.mean, "instructions", Kind.SIMULATED, count.samples, count.low, count.high)


def _estimated(cycles: Cycles, samples: int) -> Figure:
    return Figure(cycles.nominal, "cycles", Kind.ESTIMATED, samples, cycles.low, cycles.high)
