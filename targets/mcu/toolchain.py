"""Firmware images around a generated library, as a build plan: pure data, no tool needed.

Three images are linked from the same objects: `harness.elf` runs samples from a file in
the emulator, `trace.elf` does so and writes every tensor, `bare.elf` only calls the model
and so has the flash and RAM that the model costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Template

from edgesmith.pipeline.tools import Tool
from edgesmith.pipeline.values import BuildPlan, Command
from edgesmith.targets.c.text import with_prefix
from edgesmith.targets.mcu.facts import Core

GCC = Tool("arm-none-eabi-gcc", "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi")
OBJDUMP = Tool("arm-none-eabi-objdump", "apt install binutils-arm-none-eabi")
QEMU = Tool("qemu-system-arm", "apt install qemu-system-arm")
HOST_GCC = Tool("gcc", "apt install gcc")

FIRMWARE = "firmware"
HARNESS_ELF = f"{FIRMWARE}/harness.elf"
TRACE_ELF = f"{FIRMWARE}/trace.elf"
BARE_ELF = f"{FIRMWARE}/bare.elf"

_SOURCES = Path(__file__).with_name("firmware")
_COMMON = ("startup.c",)
_RUNNING = ("startup.c", "semihosting.c", "harness.c")
_TIMEOUT_S = 300.0
_WARNINGS = ("-Wall", "-Wextra")
# Objects by function and by constant, so that the linker can leave out what nothing uses.
_SECTIONS = ("-ffunction-sections", "-fdata-sections", "-fno-common")
# Equal layers stay functions of their own, so that each can be counted.
_APART = ("-fno-ipa-icf",)
# The loops that fill memory at startup must not become calls of memcpy, which a program of
# its own may not have.
_OWN = ("-fno-tree-loop-distribute-patterns",)


@dataclass(frozen=True)
class FirmwareOptions:
    """How images are built.

    Args:
        prefix: of the library's functions, file and (in capitals) macros.
        optimization: flags of the compiler for the library and the firmware.
        stack_bytes: stack of the emulated program, a multiple of 8.
        trace: also build the image that writes every tensor.
    """

    prefix: str = "model"
    optimization: tuple[str, ...] = ("-O2",)
    stack_bytes: int = 32 * 1024
    trace: bool = True


DEFAULT_OPTIONS = FirmwareOptions()


def firmware_files(core: Core, options: FirmwareOptions) -> dict[str, bytes]:
    """Startup code, harness and linker script, by path below the library's folder."""
    machine = core.machine
    files = {path.name: path.read_text() for path in sorted(_SOURCES.glob("*.[ch]"))}
    files["link.ld"] = Template((_SOURCES / "link.ld").read_text()).substitute(
        vectors_origin=f"{machine.vectors.origin:#010x}",
        vectors_bytes=f"{machine.vectors.bytes:#x}",
        flash_origin=f"{machine.flash.origin:#010x}",
        flash_bytes=f"{machine.flash.bytes:#x}",
        ram_origin=f"{machine.ram.origin:#010x}",
        ram_bytes=f"{machine.ram.bytes:#x}",
        stack_bytes=f"{options.stack_bytes:#x}",
    )
    for name in ("harness.c", "bare.c"):
        files[name] = with_prefix(files[name], options.prefix)
    return {f"{FIRMWARE}/{name}": text.encode() for name, text in files.items()}


def firmware_commands(
    sources: Sequence[str], core: Core, options: FirmwareOptions
) -> tuple[Command, ...]:
    """Compile the library's `sources` and the firmware, and link the images.

    Commands run in the library's folder, where `firmware_files` has been written.
    """
    flags = (*core.compile_flags(), "-std=c11", *options.optimization, *_SECTIONS, *_WARNINGS)
    flags = (*flags, *_APART, "-I.", f"-I{FIRMWARE}")
    own = [f"{FIRMWARE}/{name}" for name in (*_RUNNING, "bare.c")]
    commands = [_compile(flags, source) for source in sources]
    commands += [_compile((*flags, *_OWN), source) for source in own]
    library = [_object(source) for source in sources]
    running = [_object(f"{FIRMWARE}/{name}") for name in _RUNNING]
    alone = [_object(f"{FIRMWARE}/{name}") for name in (*_COMMON, "bare.c")]
    commands.append(_link(core, [*running, *library], HARNESS_ELF))
    commands.append(_link(core, [*alone, *library], BARE_ELF))
    if options.trace:
        traced = {f"{options.prefix}.c", f"{FIRMWARE}/harness.c"}
        define = f"-D{options.prefix.upper()}_TRACE"
        commands += [_compile((*flags, define), each, "trace_") for each in sorted(traced)]
        objects = [
            _object(each, "trace_" if each in traced else "")
            for each in (*(f"{FIRMWARE}/{name}" for name in _RUNNING), *sources)
        ]
        commands.append(_link(core, objects, TRACE_ELF))
    return tuple(commands)


def firmware_plan(
    library: Mapping[str, bytes], core: Core, options: FirmwareOptions = DEFAULT_OPTIONS
) -> BuildPlan:
    """A library and the images around it.

    Args:
        library: the files of a generated library, by name; all its `.c` files are compiled.
    """
    sources = sorted(name for name in library if PurePosixPath(name).suffix == ".c")
    files = {**library, **firmware_files(core, options)}
    return BuildPlan(files, firmware_commands(sources, core, options), HARNESS_ELF)


def _object(source: str, variant: str = "") -> str:
    return f"{FIRMWARE}/{variant}{source.replace('/', '_').removesuffix('.c')}.o"


def _compile(flags: Sequence[str], source: str, variant: str = "") -> Command:
    return Command((GCC.name, *flags, "-c", source, "-o", _object(source, variant)), _TIMEOUT_S)


def _link(core: Core, objects: Sequence[str], elf: str) -> Command:
    script = f"{FIRMWARE}/link.ld"
    # The whole C library, not its "nano" variant, whose memcpy moves single bytes.
    link = ("-nostartfiles", "-Wl,--gc-sections", "-T", script, *objects, "-o", elf)
    return Command((GCC.name, *core.compile_flags(), *link), _TIMEOUT_S)
