"""What a Cortex-M core is, the QEMU machines that run its code, and boards, as data.

The cores themselves are facts of their targets, one file each. Cortex-M0+ has no large
machine in QEMU (the micro:bit model has 16 KB of RAM). Its code runs on `mps2-an385`, a
Cortex-M3: every ARMv6-M instruction is an ARMv7-M one with the same encoding and the
same result (ARMv7-M Architecture Reference Manual, appendix D3), and the startup code
makes that core refuse unaligned accesses as ARMv6-M does. Counts of executed
instructions are the same; nothing else about that core is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgesmith.targets.c.program import KernelSet

FloatAbi = Literal["soft", "hard"]
KB = 1024
MB = 1024 * 1024


@dataclass(frozen=True)
class Region:
    """A range of the emulated machine's memory, bytes."""

    origin: int
    bytes: int


@dataclass(frozen=True)
class Machine:
    """A QEMU machine and where its memory lies.

    `vectors` is where the core fetches its vector table at reset; code and constants go
    into `flash`, which is RAM there as in most FPGA images.
    """

    name: str
    vectors: Region
    flash: Region
    ram: Region


@dataclass(frozen=True)
class Core:
    """A processor core, how to compile for it and where its code can run.

    Args:
        cpu: what gcc's `-mcpu` calls it.
        fpu: gcc's `-mfpu`; empty where `cpu` implies it or there is none.
        flags: further flags of the compiler.
        timing: whose instruction timings estimate its cycles (`cycles.TIMINGS`).
        disassembly: flags of objdump.
    """

    name: str
    title: str
    cpu: str
    machine: Machine
    kernels: KernelSet
    float_abi: FloatAbi
    timing: str
    fpu: str = ""
    flags: tuple[str, ...] = ()
    disassembly: tuple[str, ...] = ()

    def compile_flags(self) -> tuple[str, ...]:
        """What gcc needs to know about the core, for compiling and linking alike."""
        fpu = (f"-mfpu={self.fpu}",) if self.fpu else ()
        return (f"-mcpu={self.cpu}", "-mthumb", f"-mfloat-abi={self.float_abi}", *fpu, *self.flags)


@dataclass(frozen=True)
class Board:
    """A product that the core is sold in: what a deployment has to fit.

    `ram_bytes` is all RAM that the core can use for data; `source` is the document.
    """

    name: str
    title: str
    core: str
    flash_bytes: int
    ram_bytes: int
    clock_hz: int
    source: str


_VECTOR_BYTES = 0x400


def _machine(name: str, vectors: int, flash: Region, ram: Region) -> Machine:
    if flash.origin == vectors:  # the table is the beginning of the same memory
        flash = Region(flash.origin + _VECTOR_BYTES, flash.bytes - _VECTOR_BYTES)
    return Machine(name, Region(vectors, _VECTOR_BYTES), flash, ram)


# Memory maps: Arm application notes DAI0385, DAI0386, DAI0500, DAI0505 and DAI0547, checked with
# `info mtree` of QEMU 7.2. The Armv8-M machines start in Secure state, hence Secure addresses.
_SSRAM = (Region(0x0000_0000, 4 * MB), Region(0x2000_0000, 4 * MB))
AN385 = _machine("mps2-an385", 0, *_SSRAM)
AN386 = _machine("mps2-an386", 0, *_SSRAM)
AN500 = _machine("mps2-an500", 0, *_SSRAM)
AN505 = _machine(
    "mps2-an505", 0x1000_0000, Region(0x1000_0000, 4 * MB), Region(0x3800_0000, 4 * MB)
)
# ITCM holds the vectors; code goes to DDR, of which the machine has 2 GB, data to the SRAM.
AN547 = _machine(
    "mps3-an547", 0x1000_0000, Region(0x7000_0000, 16 * MB), Region(0x3100_0000, 2 * MB)
)

BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        Board(
            name="stm32f746g-disco",
            title="STM32F746G Discovery",
            core="cortex-m7",
            flash_bytes=1 * MB,
            ram_bytes=320 * KB,  # 240 + 16 KB SRAM and 64 KB DTCM, contiguous
            clock_hz=216_000_000,
            source="STMicroelectronics DS10916",
        ),
        Board(
            name="nucleo-h743zi",
            title="NUCLEO-H743ZI2 (STM32H743ZI)",
            core="cortex-m7",
            flash_bytes=2 * MB,
            ram_bytes=512 * KB,  # the largest contiguous bank (AXI SRAM) of about 1 MB
            clock_hz=480_000_000,
            source="STMicroelectronics DS12110",
        ),
        Board(
            name="nucleo-l4r5zi",
            title="NUCLEO-L4R5ZI (STM32L4R5ZI)",
            core="cortex-m4",
            flash_bytes=2 * MB,
            ram_bytes=640 * KB,
            clock_hz=120_000_000,
            source="STMicroelectronics DS12023",
        ),
        Board(
            name="nrf52840-dk",
            title="Nordic nRF52840 DK",
            core="cortex-m4",
            flash_bytes=1 * MB,
            ram_bytes=256 * KB,
            clock_hz=64_000_000,
            source="Nordic Semiconductor nRF52840 Product Specification",
        ),
        Board(
            name="nrf5340-dk",
            title="Nordic nRF5340 DK, application core",
            core="cortex-m33",
            flash_bytes=1 * MB,
            ram_bytes=512 * KB,
            clock_hz=128_000_000,
            source="Nordic Semiconductor nRF5340 Product Specification",
        ),
        Board(
            name="nucleo-u575zi",
            title="NUCLEO-U575ZI-Q (STM32U575ZI)",
            core="cortex-m33",
            flash_bytes=2 * MB,
            ram_bytes=768 * KB,  # SRAM1 to SRAM3, contiguous
            clock_hz=160_000_000,
            source="STMicroelectronics DS13737",
        ),
        Board(
            name="rp2040-pico",
            title="Raspberry Pi Pico (RP2040)",
            core="cortex-m0plus",
            flash_bytes=2 * MB,  # external, through the XIP cache
            ram_bytes=264 * KB,
            clock_hz=133_000_000,
            source="Raspberry Pi RP2040 Datasheet; Pico Datasheet",
        ),
        Board(
            name="corstone-300-an547",
            title="Arm Corstone-300 on MPS3 (AN547)",
            core="cortex-m55",
            flash_bytes=2 * MB,  # the code SRAM
            ram_bytes=2 * MB,  # internal SRAM
            clock_hz=32_000_000,
            source="Arm DAI0547",
        ),
    )
}
