"""`cortex-m0plus`: generated C for Arm Cortex-M0+, run and counted in QEMU.

Armv6-M has no DSP instructions: the portable kernels run. Its code is emulated on a Cortex-M3,
as `mcu.facts` explains.
"""

from __future__ import annotations

from typing import ClassVar

from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.mcu.facts import AN385, Core
from edgesmith.targets.mcu.target import MicrocontrollerTarget


class CortexM0Plus(MicrocontrollerTarget):
    """Facts only; what is done with them is shared."""

    name: ClassVar[str] = "cortex-m0plus"
    board: ClassVar[str] = "rp2040-pico"
    core: ClassVar[Core] = Core(
        name="cortex-m0plus",
        title="Arm Cortex-M0+",
        cpu="cortex-m0plus",
        machine=AN385,
        kernels=KernelSet.PORTABLE,
        float_abi="soft",
        timing="cortex-m0plus",
    )
