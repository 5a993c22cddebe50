"""Argument structs as the bytes that a C compiler lays out, from the kernels' own headers.

Fields are integers of fixed width, pointers, arrays of them and structs of these, each aligned
to its size: how every ABI that edgesmith compiles for does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from edgesmith.targets.c.program import Array, Expanded, Struct, Value

_STRUCT = re.compile(r"typedef struct \{(.*?)\} (\w+);", re.DOTALL)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"#define (\w+) (\d+)$", re.MULTILINE)
_DECLARATION = re.compile(r"(?:const )?(\w+) (.+)", re.DOTALL)
_NAME = re.compile(r"(\*?)(?:const )?(\w+)(?:\[([\w +]+)\])?")
_INTEGER = re.compile(r"(u?)int(8|16|32|64)_t")


class LayoutError(ValueError):
    """A struct's value does not have the fields that its header declares."""


@dataclass(frozen=True)
class Field:
    """A declared field; `count` is an array's, None for a single value."""

    name: str
    type_name: str
    pointer: bool
    count: int | None


@cache
def _headers() -> str:
    folder = files("edgesmith.targets.c").joinpath("kernels", "include")
    texts = sorted((path.name, path.read_text()) for path in folder.iterdir())
    return _COMMENT.sub("", "\n".join(text for _, text in texts))


@cache
def fields_of(type_name: str) -> tuple[Field, ...]:
    """The fields of a struct of the kernels' headers, in order.

    Raises:
        LayoutError: no header declares it, or it has a field of another kind.
    """
    bodies = {name: body for body, name in _STRUCT.findall(_headers())}
    sizes = {name: int(value) for name, value in _DEFINE.findall(_headers())}
    if type_name not in bodies:
        raise LayoutError(f"no header declares the struct {type_name!r}")
    return tuple(_fields(bodies[type_name], sizes))


def _fields(body: str, sizes: Mapping[str, int]) -> Iterator[Field]:
    for declaration in filter(None, (part.strip() for part in body.split(";"))):
        matched = _DECLARATION.fullmatch(declaration)
        if matched is None:
            raise LayoutError(f"cannot read the declaration {declaration!r}")
        for item in matched[2].split(","):
            name = _NAME.fullmatch(item.strip())
            if name is None:
                raise LayoutError(f"cannot read the declaration {declaration!r}")
            terms = (part.strip() for part in (name[3] or "").split("+"))
            count = sum(int(sizes.get(term, term)) for term in terms if term)
            yield Field(name[2], matched[1], bool(name[1]), count or None)


@dataclass
class Layout:
    """Structs as bytes, for pointers of `pointer_bytes`.

    `pointers` has the offset of each address in `blob`, which is zero there, and what it is of.
    """

    pointer_bytes: int
    blob: bytearray = field(default_factory=bytearray)
    pointers: list[tuple[int, Array | Expanded]] = field(default_factory=list)

    def write(self, value: Struct) -> None:
        """Append a struct.

        Raises:
            LayoutError: a field is missing, renamed, moved or of another type.
        """
        expected = fields_of(value.type_name)
        given = [name for name, _ in value.fields]
        if [entry.name for entry in expected] != given:
            raise LayoutError(f"{value.type_name} has other fields than {given}")
        start = len(self.blob)
        for entry, (_, content) in zip(expected, value.fields, strict=True):
            self.blob += bytes(-(len(self.blob) - start) % self._alignment(entry))
            self._write_field(entry, content)
        self.blob += bytes(start + self.struct_size(value.type_name) - len(self.blob))

    def struct_size(self, type_name: str) -> int:
        """Bytes of a struct, with what fills it up to its alignment."""
        end = 0
        for entry in fields_of(type_name):
            end += -end % self._alignment(entry) + self._size(entry)
        return end + -end % max(self._alignment(entry) for entry in fields_of(type_name))

    def _alignment(self, entry: Field) -> int:
        integer = _INTEGER.fullmatch(entry.type_name)
        if entry.pointer:
            return self.pointer_bytes
        if integer:
            return int(integer[2]) // 8
        return max(self._alignment(inner) for inner in fields_of(entry.type_name))

    def _size(self, entry: Field) -> int:
        single = entry.pointer or _INTEGER.fullmatch(entry.type_name)
        one = self._alignment(entry) if single else self.struct_size(entry.type_name)
        return one * (entry.count or 1)

    def _write_field(self, entry: Field, content: Value) -> None:
        integer = _INTEGER.fullmatch(entry.type_name)
        if isinstance(content, Array | Expanded):
            read = content.array if isinstance(content, Expanded) else content
            if not entry.pointer or entry.type_name not in (f"{read.data.dtype.name}_t", "void"):
                raise LayoutError(f"field {entry.name!r} points to {entry.type_name}")
            self.pointers.append((len(self.blob), content))
            self.blob += bytes(self.pointer_bytes)
        elif isinstance(content, Struct):
            if content.type_name != entry.type_name:
                raise LayoutError(f"field {entry.name!r} is a {entry.type_name}")
            self.write(content)
        elif isinstance(content, Sequence):
            if entry.count != len(content):
                raise LayoutError(f"field {entry.name!r} has {entry.count} elements")
            for each in content:
                self._write_field(Field(entry.name, entry.type_name, False, None), each)
        elif integer is None or entry.pointer:
            raise LayoutError(f"field {entry.name!r} is no integer")
        else:
            width = int(integer[2]) // 8
            self.blob += int(content).to_bytes(width, "little", signed=not integer[1])
