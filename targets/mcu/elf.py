"""What a linked image holds: symbols, and flash and RAM by section and by purpose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, SymbolTableSection

from edgesmith.pipeline.errors import ToolFailedError

_ALLOCATED = 0x2  # SHF_ALLOC
_STACK = ".stack"
_OWN_FILES = ("startup.c", "semihosting.c", "harness.c", "bare.c")
_OWN_PREFIXES = ("firmware_", "harness_", "semihosting_", "stack_")
_OWN_NAMES = ("vectors", "main", "reset_handler", "fault_handler")


class Purpose(StrEnum):
    """What flash or RAM is spent on."""

    WEIGHTS = "weights"
    BIAS = "bias"
    REQUANTIZATION = "requantization"
    TABLE = "table"
    ARGUMENTS = "arguments"  # the constant structs that kernels read
    KERNELS = "kernels"
    WIRING = "wiring"  # layer functions and model_invoke
    ARENA = "arena"
    STARTUP = "startup"  # vector table, reset handler, main
    RUNTIME = "runtime"  # of the C library and of the compiler
    UNNAMED = "unnamed"  # padding, and constants without a symbol


@dataclass(frozen=True)
class Symbol:
    """A function or object of an image; the address of a function without its Thumb bit."""

    name: str
    section: str
    address: int
    bytes: int
    function: bool
    purpose: Purpose


@dataclass(frozen=True)
class FlashMap:
    """Bytes of an image.

    Args:
        flash: section -> bytes in flash, initial values of `.data` included.
        ram: section -> static bytes in RAM; the stack is not among them.
        flash_by_purpose, ram_by_purpose: the same bytes by what they are for.
        symbols: every named range, by address.
    """

    flash: Mapping[str, int]
    ram: Mapping[str, int]
    flash_by_purpose: Mapping[Purpose, int]
    ram_by_purpose: Mapping[Purpose, int]
    symbols: tuple[Symbol, ...]

    @property
    def flash_bytes(self) -> int:
        """All of it."""
        return sum(self.flash.values())

    @property
    def ram_bytes(self) -> int:
        """All static RAM: arena, variables; no stack."""
        return sum(self.ram.values())


@dataclass(frozen=True)
class _Placed:
    name: str
    address: int
    bytes: int
    writable: bool
    stored: bool  # has contents in the file


def read_symbols(elf: Path, prefix: str = "model") -> tuple[Symbol, ...]:
    """Functions and objects of an image, by address.

    Raises:
        ToolFailedError: the file is no ELF image.
    """
    # Images lie one folder below their library.
    sources = frozenset(path.name for path in elf.absolute().parent.parent.glob("*.c"))
    with elf.open("rb") as stream:
        try:
            image = ELFFile(stream)
            return tuple(_symbols(image, _Namer(prefix, sources)))
        except ELFError as error:
            raise ToolFailedError(
                f"{elf} is no ELF image: {error}", fix="build it again"
            ) from error


def flash_map(elf: Path, prefix: str = "model") -> FlashMap:
    """Flash and static RAM of an image; `bare.elf` has the model's own.

    Raises:
        ToolFailedError: the file is no ELF image.
    """
    symbols = read_symbols(elf, prefix)
    with elf.open("rb") as stream:
        sections = list(_sections(ELFFile(stream)))
    in_flash = [each for each in sections if each.stored]
    in_ram = [each for each in sections if each.writable and each.name != _STACK]
    return FlashMap(
        {each.name: each.bytes for each in in_flash},
        {each.name: each.bytes for each in in_ram},
        _by_purpose(in_flash, symbols),
        _by_purpose(in_ram, symbols),
        symbols,
    )


def _sections(image: ELFFile) -> Iterator[_Placed]:
    for section in image.iter_sections():
        header = section.header
        if header["sh_flags"] & _ALLOCATED and header["sh_size"]:
            yield _Placed(
                section.name,
                header["sh_addr"],
                header["sh_size"],
                bool(header["sh_flags"] & 1),
                header["sh_type"] != "SHT_NOBITS",
            )


def _symbols(image: ELFFile, purpose_of: _Namer) -> Iterator[Symbol]:
    table = image.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return
    sections: list[Section] = list(image.iter_sections())
    found: dict[tuple[int, str], Symbol] = {}
    file = ""  # local symbols stand behind the name of their source file
    for entry in table.iter_symbols():
        kind, index = entry["st_info"]["type"], entry["st_shndx"]
        if kind == "STT_FILE":
            file = entry.name
        if entry["st_info"]["bind"] != "STB_LOCAL":
            file = ""
        if kind not in {"STT_FUNC", "STT_OBJECT"} or not isinstance(index, int):
            continue
        function = kind == "STT_FUNC"
        address = entry["st_value"] & ~1 if function else entry["st_value"]
        section = sections[index].name
        purpose = purpose_of(entry.name, section, file, function=function)
        symbol = Symbol(entry.name, section, address, entry["st_size"], function, purpose)
        found[address, entry.name] = symbol
    yield from (found[key] for key in sorted(found))


class _Namer:
    """The purpose of a symbol, from how the generator names things."""

    def __init__(self, prefix: str, sources: frozenset[str]) -> None:
        roles = "|".join(("weights", "bias", "requantization", "table"))
        self._role = re.compile(rf"{re.escape(prefix)}_({roles})(_|\d|$)")
        self._prefix = f"{prefix}_"
        self._kernel_names = ("es_", f"{prefix}_es_")
        self._kernel_files = sources - {f"{prefix}.c", f"{prefix}_data.c"}

    def __call__(self, name: str, section: str, file: str, *, function: bool) -> Purpose:
        if match := self._role.match(name):
            return Purpose(match[1])
        if name.startswith(self._kernel_names) or file in self._kernel_files:
            return Purpose.KERNELS
        if name.startswith(self._prefix):
            if function:
                return Purpose.WIRING
            return Purpose.ARENA if section in {".bss", ".data"} else Purpose.ARGUMENTS
        if name.startswith(_OWN_PREFIXES) or name in _OWN_NAMES or file in _OWN_FILES:
            return Purpose.STARTUP
        return Purpose.RUNTIME


def _by_purpose(sections: list[_Placed], symbols: tuple[Symbol, ...]) -> dict[Purpose, int]:
    """Bytes of sections by purpose; what no symbol covers is `UNNAMED`, aliases count once."""
    totals = dict.fromkeys(Purpose, 0)
    for section in sections:
        at = section.address
        end = section.address + section.bytes
        for symbol in symbols:
            if symbol.section != section.name:
                continue
            first, last = max(symbol.address, at), min(symbol.address + symbol.bytes, end)
            if last > first:
                totals[symbol.purpose] += last - first
                totals[Purpose.UNNAMED] += first - at
                at = last
        totals[Purpose.UNNAMED] += end - at
    return {purpose: count for purpose, count in totals.items() if count}
