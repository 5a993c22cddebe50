"""What the Cortex-M targets share: the tool chain, the emulator, what is counted there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgesmith.pipeline.errors import SpecError
from edgesmith.pipeline.problems import did_you_mean, listed
from edgesmith.targets.base import TargetDescription
from edgesmith.targets.c.exchange import as_tensor
from edgesmith.targets.c.target import CTarget
from edgesmith.targets.mcu.facts import BOARDS, Board, Core
from edgesmith.targets.mcu.toolchain import BARE_ELF, FirmwareOptions

if TYPE_CHECKING:
    from edgesmith.pipeline.results import Device
    from edgesmith.pipeline.tools import Tool
    from edgesmith.pipeline.values import BuildPlan, BuildProducts
    from edgesmith.targets.base import Codes
    from edgesmith.targets.c.compiler import Compiled

STACK_BYTES = 4096
"""RAM that is kept for the stack and variables of a firmware beside the arena."""


class MicrocontrollerTarget(CTarget):
    """A Cortex-M core: the generated C, compiled for it and run in an emulator."""

    core: ClassVar[Core]
    board: ClassVar[str]  # the preset where none is named

    def __init_subclass__(cls) -> None:
        cls.kernels = cls.core.kernels
        cls.title = cls.core.title
        cls.summary = f"C11 for {cls.core.title}, run and counted in QEMU; ms and cycles estimated"

    @classmethod
    def check_board(cls, name: str | None) -> None:
        if name is not None:
            _board(cls.core, name)

    def preset(self) -> Board:
        """The board whose memory and clock count."""
        return _board(self.core, self.options.board or self.board)

    def describe(self) -> TargetDescription:
        from dataclasses import replace

        board = self.preset()
        return replace(
            super().describe(),
            flash_bytes=self.options.flash or board.flash_bytes,
            ram_bytes=self.options.ram or board.ram_bytes,
            clock_hz=board.clock_hz,
        )

    def arena_limit(self) -> int | None:
        return self.options.ram or self.preset().ram_bytes - STACK_BYTES

    def tools(self) -> Sequence[Tool]:
        from edgesmith.targets.mcu.toolchain import GCC, HOST_GCC, OBJDUMP, QEMU

        return (GCC, OBJDUMP, QEMU, HOST_GCC)

    def firmware(self, compiled: Compiled) -> BuildPlan:
        from dataclasses import replace

        from edgesmith.targets.mcu.toolchain import firmware_plan

        library = compiled.library.files
        plan = firmware_plan(library, self.core, self._firmware_options())
        own = {path: data for path, data in plan.files.items() if path not in library}
        return replace(plan, files=own, main=BARE_ELF)

    def constants_in(self, products: BuildProducts) -> Mapping[str, bytes]:
        from edgesmith.targets.c.image import constant_symbols

        return constant_symbols(Path(products.folder) / BARE_ELF)

    def deployed_bytes(self, products: BuildProducts) -> int:
        from edgesmith.targets.mcu.elf import flash_map

        return flash_map(Path(products.folder) / BARE_ELF, self.options.prefix).flash_bytes

    def check_fit(self, products: BuildProducts) -> None:
        from edgesmith.targets.mcu.fit import flash_shortfall

        limit = self.describe().flash_bytes
        used = self.deployed_bytes(products)
        if limit is not None and used > limit:
            raise flash_shortfall(self.compiled(products), used, limit)

    def run(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        from edgesmith.targets.mcu.emulator import Firmware, TensorType, run

        graph = self.shipped(products)
        firmware = Firmware.in_folder(Path(products.folder), self.core, self.options.prefix)
        outputs = [graph[name] for name in graph.outputs]
        types = [TensorType(tensor.dtype.numpy, tensor.shape) for tensor in outputs]
        found = run(firmware, inputs, types, trace=trace)
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
