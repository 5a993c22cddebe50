"""`cortex-m55`: generated C for Arm Cortex-M55, run and counted in QEMU.

Armv8.1-M with Helium: vector kernels.
"""

from __future__ import annotations

from typing import ClassVar

from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.mcu.facts import AN547, Core
from edgesmith.targets.mcu.target import MicrocontrollerTarget


class CortexM55(MicrocontrollerTarget):
    """Facts only; what is done with them is shared."""

    name: ClassVar[str] = "cortex-m55"
    board: ClassVar[str] = "corstone-300-an547"
    core: ClassVar[Core] = Core(
        name="cortex-m55",
        title="Arm Cortex-M55",
        cpu="cortex-m55",
        machine=AN547,
        kernels=KernelSet.MVE,
        float_abi="hard",
        timing="cortex-m55",
        disassembly=("-m", "armv8.1-m.main"),  # else MVE shows as coprocessor instructions
    )
