"""C text for values: identifiers, array elements, struct initializers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgesmith.pipeline.errors import SpecError
from edgesmith.targets.c.program import Array, Data, Expanded, Struct, Value

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,40}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:/\[\]-]")
_KEYWORDS = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if
    inline int long main register restrict return short signed sizeof static struct switch
    typedef union unsigned void volatile while
    """.split()  # noqa: SIM905 - a table reads better than a list of strings
)
# Headers of the C library, and files of the firmware that tries a library.
_HEADERS = frozenset(
    """
    assert ctype errno float inttypes limits math setjmp signal stdalign stdarg stdbool stddef
    stdint stdio stdlib string time firmware harness semihosting startup bare main
    """.split()  # noqa: SIM905
)
_PER_LINE = 96


def checked_prefix(prefix: str) -> str:
    """A prefix that every public name can start with.

    Raises:
        SpecError: it is no C identifier, or one that C or the kernels use.
    """
    reserved = _KEYWORDS | _HEADERS
    taken = prefix.lower() in reserved or prefix.startswith("es_") or prefix == "es"
    if taken or not _PREFIX.fullmatch(prefix) or prefix.endswith("_"):
        raise SpecError(
            f"{prefix!r} cannot be the prefix of C names",
            fix="give letters, digits and underscores, starting with a letter, such as 'model'",
        )
    return prefix


def with_prefix(source: str, prefix: str) -> str:
    """The text of a program that uses a library `model`, for one of another prefix."""
    return (
        source.replace("model_", f"{prefix}_")
        .replace("MODEL_", f"{prefix.upper()}_")
        .replace('"model.h"', f'"{prefix}.h"')
    )


def comment(name: str) -> str:
    """A name from a model, made safe inside a C comment."""
    shown = _UNSAFE.sub("?", name).replace("*/", "?").replace("/*", "?").replace("//", "/")
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def shown(name: str, most: int = 56) -> str:
    """A tensor's or operator's name for a message: its end, which tells most, where it is long.

    TFLite joins the names of everything fused into an operator with semicolons.
    """
    readable = name.replace("\x1f", " ")  # between a call's name and "scratch"
    last = readable.rpartition(";")[2] or readable
    return last if len(last) <= most else f"...{last[3 - most :]}"


def c_type(data: Data) -> str:
    """The element type of an array."""
    return f"{data.dtype.name}_t"


def elements(data: Data) -> Iterator[str]:
    """Lines of initializer elements, without indentation."""
    flat = data.reshape(-1)
    texts = [literal(value) for value in flat.tolist()] if _has_limits(flat) else flat.tolist()
    for start in range(0, len(texts), _PER_LINE):
        yield ",".join(map(str, texts[start : start + _PER_LINE])) + ","


def _has_limits(flat: Data) -> bool:
    """Whether an element's plain decimal is not a constant of its own type in C."""
    if flat.dtype.itemsize < 4 or not flat.size:
        return False
    return flat.dtype.itemsize == 8 or flat.dtype.kind == "u" or int(flat.min()) == -(1 << 31)


def literal(value: int) -> str:
    """An integer constant expression of that value, valid on cores with 32-bit int."""
    if value == -(1 << 63):
        return "(-9223372036854775807LL - 1)"
    if value == -(1 << 31):
        return "(-2147483647 - 1)"
    if -(1 << 31) < value < 1 << 31:
        return str(value)
    return f"{value}U" if 0 < value < 1 << 32 else f"{value}LL"


def initializer(value: Value, names: Mapping[int, str], indent: str = "    ") -> str:
    """The C initializer of a value; `names` maps id(array) to its symbol or address."""
    if isinstance(value, Array | Expanded):
        return names[id(value)]
    if isinstance(value, Struct):
        inner = f"{indent}    "
        fields = "".join(
            f"{inner}.{name} = {initializer(field, names, inner)},\n"
            for name, field in value.fields
        )
        return f"{{\n{fields}{indent}}}"
    if isinstance(value, Sequence):
        return "{" + ", ".join(initializer(each, names, indent) for each in value) + "}"
    return literal(int(value))


def arrays_in(value: Value) -> Iterator[Array]:
    """Every array in flash that a value refers to, in the order of fields."""
    if isinstance(value, Array):
        yield value
    elif isinstance(value, Expanded):
        yield from arrays_in(value.arguments)
    elif isinstance(value, Struct):
        for _, field in value.fields:
            yield from arrays_in(field)
    elif isinstance(value, Sequence):
        for each in value:
            yield from arrays_in(each)


def real(value: np.float32) -> str:
    """A float constant that reads back as the same float32."""
    text = np.format_float_scientific(value, unique=True, trim="0")
    return f"{text}f"
