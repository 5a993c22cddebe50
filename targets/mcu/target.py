"""What the Cortex-M targets share: the tool chain, the emulator, what is counted there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgesmith.pipeline.errors import DoesNotFitError, SpecError
from edgesmith.pipeline.problems import did_you_mean, listed
from edgesmith.targets.base import TargetDescription
from edgesmith.targets.c.exchange import as_stored, as_tensor, output_types
from edgesmith.targets.c.target import CTarget, CTargetOptions
from edgesmith.targets.mcu.facts import BOARDS, KB, Board, Core
from edgesmith.targets.mcu.toolchain import BARE_ELF, GCC, HARNESS_ELF, TRACE_ELF, FirmwareOptions

if TYPE_CHECKING:
    from edgesmith.pipeline.results import Device
    from edgesmith.pipeline.tools import Tool
    from edgesmith.pipeline.values import BuildPlan, BuildProducts
    from edgesmith.targets.base import Codes
    from edgesmith.targets.c.compiler import Compiled

STACK_BYTES = 4096
"""RAM that is kept for the stack and variables of a firmware beside the arena."""
EMULATED_BYTES = FirmwareOptions().stack_bytes + 1024
"""RAM of the emulated machine that its stack and the harness's variables take."""


class MicrocontrollerTarget(CTarget):
    """A Cortex-M core: the generated C, compiled for it and run in an emulator."""

    core: ClassVar[Core]
    board: ClassVar[str]  # the preset where none is named
    size_name: ClassVar[str] = "deployed image"

    def __init_subclass__(cls) -> None:
        cls.kernels = cls.core.kernels
        cls.compiler = " ".join((GCC.name, *cls.core.compile_flags()))
        cls.title = cls.core.title
        cls.summary = f"C11 for {cls.core.title}, run and counted in QEMU; ms and cycles estimated"

    @classmethod
    def check_options(cls, options: CTargetOptions) -> None:
        board = _board(cls.core, options.board or cls.board)
        for name, given, there in (
            ("ram", options.ram, board.ram_bytes),
            ("flash", options.flash, board.flash_bytes),
        ):
            if given is not None and given > there:
                raise SpecError(
                    f"{name}={given} is more than board {board.name!r} has, {there:,} bytes",
                    fix=f"give at most {name}={there}, or choose another board of {cls.core.title}",
                )

    def preset(self) -> Board:
        """The board whose memory and clock count."""
        return _board(self.core, self.options.board or self.board)

    def describe(self) -> TargetDescription:
        from dataclasses import replace

        board = self.preset()
        return replace(
            super().describe(),
            flash_bytes=self.options.flash or board.flash_bytes,
            ram_bytes=board.ram_bytes,
            clock_hz=board.clock_hz,
            cost_metrics=("instructions", "cycles", "time", "flash", "arena"),
        )

    def details(self) -> Mapping[str, str]:
        found = {}
        for board in BOARDS.values():
            if board.core == self.core.name:
                default = ", taken where none is named" if board.name == self.board else ""
                found[f"@{board.name}"] = (
                    f"{board.title}: {board.flash_bytes // KB:,} KB of flash, "
                    f"{board.ram_bytes // KB:,} KB of RAM, {board.clock_hz / 1e6:g} MHz{default}"
                )
        return {**found, **super().details()}

    def arena_limit(self) -> int | None:
        if self.options.ram is not None:
            return self.options.ram
        return min(self.preset().ram_bytes - STACK_BYTES, self._emulated_arena())

    def _emulated_arena(self) -> int:
        return self.core.machine.ram.bytes - EMULATED_BYTES

    def check_compiled(self, compiled: Compiled) -> None:
        from edgesmith.targets.c.fit import flash_shortfall

        super().check_compiled(compiled)
        machine, used = self.core.machine, compiled.constant_bytes
        if used > machine.flash.bytes:
            what = f"on the emulated machine {machine.name!r} the constants alone need"
            raise flash_shortfall(compiled, used, machine.flash.bytes, what)
        arena, most = compiled.memory.arena_bytes, self._emulated_arena()
        if arena > most:
            raise DoesNotFitError(
                f"the arena of {arena:,} bytes and {EMULATED_BYTES:,} for the stack exceed the "
                f"{machine.ram.bytes:,} bytes of RAM of the emulated machine {machine.name!r}",
                fix=f"give ram={most} or less, so that a smaller plan is taken",
            )

    def tools(self) -> Sequence[Tool]:
        from edgesmith.targets.mcu.toolchain import HOST_GCC, OBJDUMP, QEMU

        return (GCC, OBJDUMP, QEMU, HOST_GCC)

    def firmware(self, compiled: Compiled) -> BuildPlan:
        from dataclasses import replace

        from edgesmith.targets.mcu.toolchain import firmware_plan

        library = compiled.library.files
        plan = firmware_plan(library, self.core, self._firmware_options())
        own = {path: data for path, data in plan.files.items() if path not in library}
        return replace(plan, files=own, main=BARE_ELF)

    def images(self, products: BuildProducts) -> Sequence[Path]:
        folder = Path(products.folder)
        return [folder / name for name in (BARE_ELF, HARNESS_ELF, TRACE_ELF)]

    def deployed_bytes(self, products: BuildProducts) -> int:
        from edgesmith.targets.mcu.elf import flash_map

        return flash_map(Path(products.folder) / BARE_ELF, self.options.prefix).flash_bytes

    def check_fit(self, products: BuildProducts) -> None:
        from edgesmith.targets.c.fit import flash_shortfall

        limit = self.describe().flash_bytes
        used = self.deployed_bytes(products)
        if limit is not None and used > limit:
            raise flash_shortfall(self.compiled(products), used, limit)

    def run(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        from edgesmith.targets.mcu.emulator import Firmware, run

        graph = self.shipped(products)
        firmware = Firmware.in_folder(Path(products.folder), self.core, self.options.prefix)
        found = run(firmware, as_stored(graph, inputs), output_types(graph), trace=trace)
        shown: dict[str, Codes] = {}
        if trace:
            shown = dict(zip(graph.inputs, inputs, strict=True))
            names = self.compiled(products).library.traced
            for index, rows in found.traced.items():
                if names[index] in graph.tensors:
                    shown[names[index]] = as_tensor(graph[names[index]], rows)
        return shown | {
            name: np.asarray(codes)
            for name, codes in zip(graph.outputs, found.outputs, strict=True)
        }

    def device(self, products: BuildProducts, inputs: Sequence[Codes]) -> Device | None:
        from edgesmith.targets.mcu.device import examine

        return examine(self, products, inputs)

    def _firmware_options(self) -> FirmwareOptions:
        return FirmwareOptions(prefix=self.options.prefix)


def _board(core: Core, name: str) -> Board:
    board = BOARDS.get(name)
    fitting = [each.name for each in BOARDS.values() if each.core == core.name]
    if board is None:
        guess = did_you_mean(name, BOARDS)
        raise SpecError(
            f"there is no board {name!r}",
            fix=f"did you mean {guess!r}?" if guess else f"choose of {listed(fitting)}",
        )
    if board.core != core.name:
        raise SpecError(
            f"board {name!r} has the core {board.core!r}, not {core.name!r}",
            fix=f"write {board.core}@{name}, or choose of {listed(fitting)}",
        )
    return board
