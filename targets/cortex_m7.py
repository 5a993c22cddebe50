"""`cortex-m7`: generated C for Arm Cortex-M7, run and counted in QEMU.

Armv7E-M, dual issue: the kernels of Cortex-M4. Arm publishes no instruction timings.
"""

from __future__ import annotations

from typing import ClassVar

from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.mcu.facts import AN500, Core
from edgesmith.targets.mcu.target import MicrocontrollerTarget


class CortexM7(MicrocontrollerTarget):
    """Facts only; what is done with them is shared."""

    name: ClassVar[str] = "cortex-m7"
    board: ClassVar[str] = "stm32f746g-disco"
    core: ClassVar[Core] = Core(
        name="cortex-m7",
        title="Arm Cortex-M7",
        cpu="cortex-m7",
        machine=AN500,
        kernels=KernelSet.DSP,
        float_abi="hard",
        timing="cortex-m7",
        fpu="fpv5-sp-d16",
    )
