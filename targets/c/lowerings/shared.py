"""What lowerings of several families share: C types, multipliers, tables, merged axes.

Tables come from the reference executor itself: it is asked for the output of every code,
so that a kernel cannot compute anything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.lowerings.matrix import reference_call
from edgesmith.targets.c.program import Array, Call, Role, Struct, Value
from edgesmith.targets.graph.ir import DType, Graph, Op
from edgesmith.targets.graph.reference import kernel, run_op
from edgesmith.targets.graph.requantize import Multiplier, quantize_multiplier

Codes = npt.NDArray[np.integer]

LARGEST_SUM = (1 << 31) - 1


def suffix(dtype: DType) -> str:
    """How kernels name a type of activations: s8, s16."""
    return f"s{dtype.bits}"


def item_bytes(dtype: DType) -> int:
    return dtype.numpy.itemsize


def make_call(
    op: Op,
    function: str,
    arguments: Struct,
    *,
    reads: Sequence[str] | None = None,
    more_sources: Sequence[str] = (),
    **fields: Any,
) -> Call:
    """A call of the portable kernel `es_...`, whose file has its name without the prefix."""
    own = f"portable/{function.removeprefix('es_')}.c"
    return Call(
        name=op.name,
        kind=op.kind,
        function=function,
        sources=(own, *more_sources),
        arguments=arguments,
        reads=tuple(op.inputs if reads is None else reads),
        writes=op.outputs,
        **fields,
    )


def struct(type_name: str, **fields: Value) -> Struct:
    return Struct(type_name, tuple(fields.items()))


def integer_call(op: Op, site: Site, *positions: int) -> kernel.Call:
    """The operator for the reference, refused where activations mix types or int16 has offsets."""
    call = reference_call(op, site)
    call.integer_activations(*positions)
    for tensor in (*(call.tensor(position) for position in positions), call.output):
        if tensor.dtype is DType.INT16 and call.scalar(tensor)[1]:
            raise site.unsupported(op, f"has int16 tensor {tensor.name!r} with a zero point")
    return call


def scaling(by: Multiplier) -> dict[str, Value]:
    """The fields `multiplier` and `shift` of one multiplier."""
    return {"multiplier": int(by.multiplier[0]), "shift": int(by.shift[0])}


def scaling_of(real: npt.ArrayLike) -> dict[str, Value]:
    return scaling(quantize_multiplier(real))


def output_limits(zero: int, limits: tuple[int, int]) -> dict[str, Value]:
    """Zero point and limits; these are less the zero point, so that adding it last is safe."""
    return {"zero": zero, "low": limits[0] - zero, "high": limits[1] - zero}


def result_of(op: Op, site: Site, inputs: Sequence[Codes], shape: tuple[int, ...]) -> Codes:
    """What the reference executor computes for an element-wise operator on other inputs.

    Args:
        inputs: codes per operand.
        shape: of the output.
    """
    tensors = {}
    names = tuple(f"operand {position}" for position in range(len(inputs)))
    for name, own, codes in zip(names, op.inputs, inputs, strict=True):
        tensors[name] = replace(site.tensor(own), name=name, shape=codes.shape, data=None)
    tensors[op.output] = replace(site.tensor(op.output), shape=shape)
    asked = replace(op, inputs=names)
    graph = Graph("table", tensors, (asked,), names, op.outputs)
    values = {name: codes[None] for name, codes in zip(names, inputs, strict=True)}
    found: Codes = run_op(graph, asked, values, site.profile)[0]
    return found


def all_codes(dtype: DType) -> Codes:
    """Every code of an 8-bit type, by its byte's unsigned value."""
    return np.arange(256, dtype=np.uint8).view(dtype.numpy)


def code_table(op: Op, site: Site) -> Array:
    """Output codes of a unary operator with 8-bit input, by the byte's unsigned value."""
    codes = all_codes(site.tensor(op.inputs[0]).dtype)
    table = result_of(op, site, (codes,), codes.shape)
    signed = table.view(np.int8) if table.itemsize == 1 else table
    return Array(signed, Role.TABLE)


@dataclass(frozen=True)
class Axes:
    """Axes of a dense traversal: sizes, and the steps of every operand along them."""

    sizes: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]  # operand -> step per axis

    def merged(self) -> Axes:
        """Neighbouring axes that all operands walk as one become one; size 1 disappears."""
        sizes: list[int] = []
        columns: list[tuple[int, ...]] = []
        for size, column in zip(self.sizes, zip(*self.steps, strict=True), strict=True):
            if size == 1:
                continue
            if sizes and all(
                outer == inner * size for outer, inner in zip(columns[-1], column, strict=True)
            ):
                sizes[-1] *= size
                columns[-1] = column
            else:
                sizes.append(size)
                columns.append(column)
        steps = tuple(zip(*columns, strict=True)) if columns else ((),) * len(self.steps)
        return Axes(tuple(sizes), steps)

    def padded(self, count: int) -> Axes | None:
        """Exactly `count` axes, new outer ones of size 1; None where there are more."""
        missing = count - len(self.sizes)
        if missing < 0:
            return None
        steps = tuple((0,) * missing + row for row in self.steps)
        return Axes((1,) * missing + self.sizes, steps)


def dense_steps(shape: Sequence[int]) -> tuple[int, ...]:
    """Elements between neighbours along every axis of a dense tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def broadcast_steps(shape: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """Steps of an operand along the axes of the shape that it is broadcast to."""
    steps = tuple(
        0 if size == 1 else step for size, step in zip(shape, dense_steps(shape), strict=True)
    )
    return (0,) * (len(wanted) - len(shape)) + steps
