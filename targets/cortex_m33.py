"""`cortex-m33`: generated C for Arm Cortex-M33, run and counted in QEMU.

Armv8-M mainline with the DSP extension: the kernels of Cortex-M4.
"""

from __future__ import annotations

from typing import ClassVar

from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.mcu.facts import AN505, Core
from edgesmith.targets.mcu.target import MicrocontrollerTarget


class CortexM33(MicrocontrollerTarget):
    """Facts only; what is done with them is shared."""

    name: ClassVar[str] = "cortex-m33"
    board: ClassVar[str] = "nucleo-u575zi"
    core: ClassVar[Core] = Core(
        name="cortex-m33",
        title="Arm Cortex-M33",
        cpu="cortex-m33",
        machine=AN505,
        kernels=KernelSet.DSP,
        float_abi="hard",
        timing="cortex-m33",
        fpu="fpv5-sp-d16",
    )
