"""Reading linked images: the constants that they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgesmith.pipeline.errors import ModelFileError

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile


def constant_symbols(path: Path) -> dict[str, bytes]:
    """Name -> bytes of every data symbol in a section that is not written, of an ELF file.

    Raises:
        ModelFileError: the file is no ELF image or is damaged.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as stream:
            return dict(_symbols(ELFFile(stream)))
    except (OSError, ELFError, ValueError) as error:
        raise ModelFileError(
            f"{path} cannot be read as an ELF image: {error}", fix="build the artifact again"
        ) from error


def _symbols(image: ELFFile) -> Iterator[tuple[str, bytes]]:
    from elftools.elf.sections import SymbolTableSection

    table = image.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return
    contents: dict[int, tuple[int, bytes]] = {}
    for symbol in table.iter_symbols():
        index, size = symbol["st_shndx"], symbol["st_size"]
        if symbol["st_info"]["type"] != "STT_OBJECT" or not size or not isinstance(index, int):
            continue
        if index not in contents:
            section = image.get_section(index)
            writable = section["sh_flags"] & 1 or section["sh_type"] == "SHT_NOBITS"
            contents[index] = (section["sh_addr"], b"" if writable else section.data())
        start, data = contents[index]
        offset = symbol["st_value"] - start
        if offset >= 0 and offset + size <= len(data):
            yield symbol.name, data[offset : offset + size]
