"""`cortex-m4`: generated C for Arm Cortex-M4, run and counted in QEMU.

Armv7E-M: kernels with dual 16-bit multiply-accumulates.
"""

from __future__ import annotations

from typing import ClassVar

from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.mcu.facts import AN386, Core
from edgesmith.targets.mcu.target import MicrocontrollerTarget


class CortexM4(MicrocontrollerTarget):
    """Facts only; what is done with them is shared."""

    name: ClassVar[str] = "cortex-m4"
    board: ClassVar[str] = "nucleo-l4r5zi"
    core: ClassVar[Core] = Core(
        name="cortex-m4",
        title="Arm Cortex-M4",
        cpu="cortex-m4",
        machine=AN386,
        kernels=KernelSet.DSP,
        float_abi="hard",
        timing="cortex-m4",
        fpu="fpv4-sp-d16",
    )
