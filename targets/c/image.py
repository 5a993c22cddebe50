"""Linked images against what they were generated from: every constant, byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesmith.pipeline.errors import ModelFileError
from edgesmith.targets.c.expansion import restored
from edgesmith.targets.c.layout import Layout
from edgesmith.targets.c.memory.lifetimes import expanded_name
from edgesmith.targets.c.program import Expanded

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

    from edgesmith.targets.c.compiler import Compiled
    from edgesmith.targets.c.program import Call, Struct


@dataclass(frozen=True)
class Image:
    """The constants of an ELF image.

    Args:
        symbols: name -> address and bytes of every data symbol that is never written.
        variables: name -> address of every one that is.
        pointer_bytes: of an address in it.
    """

    symbols: dict[str, tuple[int, bytes]]
    variables: dict[str, int]
    pointer_bytes: int

    def starting_at(self, address: int) -> list[bytes]:
        """The contents of the symbols at an address."""
        return [data for start, data in self.symbols.values() if start == address]


def read_image(path: Path) -> Image:
    """The constants of an ELF file.

    Raises:
        ModelFileError: the file is no ELF image or is damaged.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as stream:
            image = ELFFile(stream)
            found = list(_symbols(image))
            return Image(
                {name: (start, data) for name, start, data in found if data is not None},
                {name: start for name, start, data in found if data is None},
                image.elfclass // 8,
            )
    except (OSError, ELFError, ValueError) as error:
        raise ModelFileError(
            f"{path} cannot be read as an ELF image: {error}", fix="build the artifact again"
        ) from error


def _symbols(image: ELFFile) -> Iterator[tuple[str, int, bytes | None]]:
    """Name, address and contents of data; None where they change."""
    from elftools.elf.sections import SymbolTableSection

    table = image.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return
    contents: dict[int, tuple[int, bytes | None]] = {}
    for symbol in table.iter_symbols():
        index, size = symbol["st_shndx"], symbol["st_size"]
        if symbol["st_info"]["type"] != "STT_OBJECT" or not size or not isinstance(index, int):
            continue
        if index not in contents:
            section = image.get_section(index)
            writable = section["sh_flags"] & 1 or section["sh_type"] == "SHT_NOBITS"
            contents[index] = (section["sh_addr"], None if writable else section.data())
        start, data = contents[index]
        offset = symbol["st_value"] - start
        if data is None:
            yield symbol.name, symbol["st_value"], None
        elif offset >= 0 and offset + size <= len(data):
            yield symbol.name, symbol["st_value"], data[offset : offset + size]


def differences(image: Image, compiled: Compiled, prefix: str) -> Iterator[str]:
    """The constants of an image that are not what was generated, a phrase each.

    Compared are all arrays (weights, biases, multipliers, shifts, tables) and the argument
    structs of all calls: integers by value, pointers by what they point to. Weights without
    their zeros are expanded from the image's own bytes.
    """
    for symbol, array in compiled.library.arrays.items():
        expected = array.data.tobytes()
        if symbol not in image.symbols:
            yield f"lacks the constant {symbol!r}"
        elif image.symbols[symbol][1][: len(expected)] != expected:  # sanitizers add a red zone
            yield f"has other bytes in the constant {symbol!r}"
    for number, call in enumerate(compiled.program.calls):
        where = _expanded_address(image, compiled, call, prefix)
        yield from _in_struct(image, f"{prefix}_arguments_{number:03d}", call.arguments, where)
        if call.expanded is None:
            continue
        symbol = f"{prefix}_expansion_{number:03d}"
        yield from _in_struct(image, symbol, call.expanded.arguments, None)
        if symbol in image.symbols and not _expands(image, symbol, call.expanded):
            yield f"has weights of call {call.name!r} that expand to other codes"


def _expanded_address(image: Image, compiled: Compiled, call: Call, prefix: str) -> int | None:
    """Where a call finds its expanded weights; None without any, or without an arena."""
    arena = image.variables.get(f"{prefix}_arena")
    if call.expanded is None or arena is None:
        return None
    return arena + compiled.memory.offsets[expanded_name(call)]


def _in_struct(image: Image, symbol: str, value: Struct, where: int | None) -> Iterator[str]:
    layout = Layout(image.pointer_bytes)
    layout.write(value)
    if symbol not in image.symbols:
        yield f"lacks the arguments {symbol!r}"
    elif not _same_arguments(image, image.symbols[symbol][1], layout, where):
        yield f"has other bytes in the arguments {symbol!r}"


def _same_arguments(image: Image, held: bytes, layout: Layout, where: int | None) -> bool:
    found = bytearray(held[: len(layout.blob)])
    for offset, target in layout.pointers:
        end = offset + layout.pointer_bytes
        address = int.from_bytes(found[offset:end], "little")
        if isinstance(target, Expanded):
            if address != where:
                return False
        else:
            expected = target.data.tobytes()
            if not any(data.startswith(expected) for data in image.starting_at(address)):
                return False
        found[offset:end] = bytes(layout.pointer_bytes)
    return found == layout.blob


def _expands(image: Image, symbol: str, expanded: Expanded) -> bool:
    """Whether the bytes that an image's arguments point to are the kernel's weights."""
    held = image.symbols[symbol][1]
    layout = Layout(image.pointer_bytes)
    layout.write(expanded.arguments)
    ((offset, _),) = layout.pointers
    address = int.from_bytes(held[offset : offset + layout.pointer_bytes], "little")
    expected = expanded.array.data.tobytes()
    return any(restored(expanded, data) == expected for data in image.starting_at(address))
