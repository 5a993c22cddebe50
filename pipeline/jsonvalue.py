"""JSON for the values that flow: frozen dataclasses out to text and back, validated.

Validation, unions, tuples and enums are pydantic's; a value is a plain frozen
dataclass and needs no base class.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """The validator and serializer of a value type, built once."""
    key: Any = kind  # mypy holds that a type[T] is not hashable
    built: TypeAdapter[T] = _adapter(key)
    return built


def to_json(value: object) -> str:
    """Indented JSON text, ending in a newline; the same value gives the same bytes."""
    return adapter(type(value)).dump_json(value, indent=2).decode() + "\n"


def to_data(value: object) -> Any:
    """JSON-ready Python data (dicts, lists, strings, numbers)."""
    return adapter(type(value)).dump_python(value, mode="json")


def from_json(kind: type[T], text: str | bytes) -> T:
    """The value that `to_json` wrote.

    Raises:
        pydantic.ValidationError: the text is not JSON of that type.
    """
    return adapter(kind).validate_json(text)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
