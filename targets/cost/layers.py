"""Generated calls as cost entries: what decides how long a kernel runs, as a key.

The key is made from the lowered call, so it distinguishes exactly the variants that lowerings
choose. Integers that only enter arithmetic (multipliers, zero points, clamps) are reduced to
what a kernel may branch on: recalibrated layers share an entry. A field that no rule names is
in the key as it stands, which costs entries but never gives a wrong one. So are weights that
are kept without their zeros: how long they take depends on where those are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from edgesmith.pipeline.spec import canonical_json
from edgesmith.targets.c.memory.lifetimes import span
from edgesmith.targets.c.program import Array, Call, Expanded, Program, Role, Struct, Value
from edgesmith.targets.c.text import arrays_in

_INCLUDE = re.compile(r'^#include "(es_\w+\.h)"', re.MULTILINE)
_LIMITS = {-128, 127, -32768, 32767}
_KEPT_BITS = 3


def _nothing(value: int) -> Any:
    del value


def _sign(value: int) -> Any:
    return (value > 0) - (value < 0)


def _coarse(value: int) -> Any:
    """The leading bits: values within an eighth of each other share a key."""
    dropped = max(value.bit_length() - _KEPT_BITS, 0)
    return value >> dropped << dropped


def _factor(value: int) -> Any:
    """A fixed-point multiplier is normalized, so large; a small one multiplies channels."""
    return value if value < 1 << 16 else None


def _magnitude(value: int) -> Any:
    return value.bit_length()


# What kernels call these, everywhere.
_BY_NAME: Mapping[str, str] = {
    **dict.fromkeys(("zero", "in_zero", "x_zero", "y_zero", "zero_a", "zero_b"), "nothing"),
    **dict.fromkeys(("slope_a", "slope_b", "output_offset"), "nothing"),
    **dict.fromkeys(("low", "high"), "limit"),
    **dict.fromkeys(("shift", "right", "raise"), "sign"),
    "multiplier": "factor",
}
# What means something else in other structs, or steers a loop more coarsely than by its value.
_BY_STRUCT: Mapping[str, Mapping[str, str]] = {
    "es_affine_args": {"offset": "nothing"},
    "es_mean_args": {"offset": "nothing"},
    "es_pad_args": {"value": "nothing"},
    "es_layer_norm_args": {"epsilon": "magnitude"},
    "es_sparse_s8_args": {"stored": "content"},
    "es_softmax_s8_args": {"entries": "coarse", "table": "coarse"},
    "es_softmax_s16_args": {"exp": "nothing", "reciprocal": "nothing"},
    "es_lookup_s8_args": {"table": "nothing"},
    "es_lookup_s8_s16_args": {"table": "nothing"},
    "es_interpolate_s16_args": {"table": "nothing"},
    "es_curve_s16_args": {
        "table": "nothing",
        "factor": "magnitude",
        "half": "nothing",
        "half_negative": "nothing",
        "ceiling": "nothing",
        "up": "nothing",
        "mirror": "nothing",
        "shift": "exact",
    },
}
_REDUCTIONS: Mapping[str, Callable[[int], Any]] = {
    "nothing": _nothing,
    "sign": _sign,
    "coarse": _coarse,
    "factor": _factor,
    "magnitude": _magnitude,
}


def particular_fields() -> Iterator[tuple[str, str]]:
    """Structs and fields that have rules of their own."""
    for type_name, rules in _BY_STRUCT.items():
        for name in rules:
            yield type_name, name


def _rule(struct: Struct, name: str) -> str:
    """How a key holds a field."""
    return _BY_STRUCT.get(struct.type_name, {}).get(name) or _BY_NAME.get(name, "exact")


def _described(value: Value) -> Any:
    if isinstance(value, Array):
        # Tables of positions steer loops; weights and what requantizes do not.
        return _array(value, "exact" if value.role is Role.TABLE else "nothing")
    if isinstance(value, Struct):
        return _struct(value)
    if isinstance(value, Expanded):
        return _expanded(value)
    if isinstance(value, Sequence):
        return [_described(each) for each in value]
    return int(value)


def _expanded(expanded: Expanded) -> dict[str, Any]:
    stored = [
        _array(value, "content") if isinstance(value, Array) else value
        for _, value in expanded.arguments.fields
    ]
    array = _array(expanded.array, "nothing")
    return {"expanded": array, "function": expanded.function, "stored": stored}


def _array(array: Array, rule: str) -> Any:
    size = _coarse(array.data.size) if rule == "coarse" else array.data.size
    found: dict[str, Any] = {"type": array.data.dtype.name, "size": size}
    if rule == "sign":  # a kernel may branch on the direction of every channel's shift
        found["signs"] = sorted({int(each >= 0) for each in np.unique(array.data)})
    if rule in ("exact", "content"):
        found["content"] = hashlib.sha256(array.data.tobytes()).hexdigest()
    return found


def _struct(struct: Struct) -> dict[str, Any]:
    zero = dict(struct.fields).get("zero", 0)
    assert isinstance(zero, int)
    found: dict[str, Any] = {"struct": struct.type_name}
    for name, value in struct.fields:
        rule = _rule(struct, name)
        if rule == "exact" or isinstance(value, Expanded | Struct | Sequence):
            found[name] = _described(value)
        elif isinstance(value, Array):
            found[name] = _array(value, rule)
        elif rule == "limit":  # limits of requantized codes are stored less the zero point
            found[name] = value in _LIMITS or value + zero in _LIMITS
        else:
            found[name] = _REDUCTIONS[rule](value)
    return found


@cache
def kernel_digest(sources: tuple[str, ...]) -> str:
    """SHA-256 over kernel files and all headers that they include."""
    folder = files("edgesmith.targets.c").joinpath("kernels")
    texts = {path: folder.joinpath(path).read_bytes() for path in sources}
    waiting = list(texts.values())
    while waiting:
        for name in _INCLUDE.findall(waiting.pop().decode()):
            if name not in texts:
                texts[name] = folder.joinpath("include", name).read_bytes()
                waiting.append(texts[name])
    digest = hashlib.sha256()
    for name in sorted(texts):
        digest.update(name.encode() + b"\0" + hashlib.sha256(texts[name]).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Operand:
    """An activation of a call: its bytes, and its address modulo 4."""

    bytes: int
    misalignment: int


@dataclass(frozen=True, eq=False)
class Layer:
    """One call, with what it needs to run alone.

    Args:
        reads: per tensor that it reads, an operand in the arena or a constant in flash.
        description: what the key is made of, JSON-ready.
    """

    call: Call
    reads: tuple[Operand | Array, ...]
    writes: tuple[Operand, ...]
    description: dict[str, Any]
    key: str

    @property
    def kernel(self) -> str:
        """Names the code that runs: the function and the text of its files."""
        return f"{self.call.function} {self.description['kernels']}"

    def arrays(self) -> Iterator[Array]:
        """Every constant of the layer."""
        yield from arrays_in(self.call.arguments)
        yield from (each for each in self.reads if isinstance(each, Array))

    @property
    def constant_bytes(self) -> int:
        """Weights, biases, requantization parameters and tables, in flash; equal ones once."""
        unique = {(a.data.dtype.name, a.data.tobytes()): a.data.nbytes for a in self.arrays()}
        return sum(unique.values())


def layers_of(program: Program) -> tuple[Layer, ...]:
    """The calls of a program, in order."""
    return tuple(_layer(program, call) for call in program.calls)


def _layer(program: Program, call: Call) -> Layer:
    def operand(name: str) -> Operand:
        place = span(program, name)
        return Operand(place.end - place.start, place.start % 4)

    reads = tuple(
        program.constants[name] if name in program.constants else operand(name)
        for name in call.reads
    )
    writes = tuple(operand(name) for name in call.writes)
    description = {
        "function": call.function,
        "kernels": kernel_digest(call.sources),
        "arguments": _struct(call.arguments),
        "reads": [
            _array(each, "nothing") if isinstance(each, Array) else [each.bytes, each.misalignment]
            for each in reads
        ],
        "writes": [[each.bytes, each.misalignment] for each in writes],
        "scratch": call.scratch_bytes,
    }
    key = hashlib.sha256(canonical_json(description).encode()).hexdigest()
    return Layer(call, reads, writes, description, key)
