"""Operators that move codes and compute nothing."""

from __future__ import annotations

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, DType
from edgesmith.targets.graph.reference.kernel import Call, kernel


def _integer(call: Call) -> None:
    types = {tensor.dtype for tensor in (*call.tensors, call.output) if tensor is not None}
    if len(types) > 1 or DType.FLOAT32 in types:
        raise call.refuse(
            f"activations are {', '.join(sorted(types))}",
            "use one integer type for all tensors of the operator",
        )


def _same_quantization(call: Call) -> None:
    _integer(call)
    wanted = call.output.quantization
    for tensor in call.tensors:
        if tensor is None or (tensor.quantization is None and wanted is None):
            continue
        if tensor.quantization is None or not tensor.quantization.same_as(wanted):
            raise call.refuse(
                f"input {tensor.name!r} and output {call.output.name!r} differ in scale or "
                "zero point",
                "legalize the graph, which requantizes the operand first",
            )


@kernel(ir.Reshape)
def reshape(op: ir.Reshape, call: Call) -> Array:
    """The same codes in another shape."""
    _same_quantization(call)
    x = call.value(0)
    return x.reshape(len(x), *call.output.shape)


@kernel(ir.Transpose)
def transpose(op: ir.Transpose, call: Call) -> Array:
    """Axes in the order of `permutation`; the sample axis stays first."""
    _same_quantization(call)
    return np.transpose(call.value(0), (0, *(axis + 1 for axis in op.permutation)))


@kernel(ir.Concat)
def concat(op: ir.Concat, call: Call) -> Array:
    """Operands one after the other along `axis`."""
    _same_quantization(call)
    axis = op.axis % len(call.output.shape) + 1
    parts = [call.value(position) for position in range(len(call.tensors))]
    samples = max(len(part) for part in parts)
    spread = [np.broadcast_to(part, (samples, *part.shape[1:])) for part in parts]
    return np.concatenate(spread, axis=axis)


@kernel(ir.Pad)
def pad(op: ir.Pad, call: Call) -> Array:
    """Constant padding with `value`, or with the zero point."""
    _same_quantization(call)
    value = call.scalar(call.output)[1] if op.value is None else op.value
    around = [(0, 0), *zip(op.before, op.after, strict=True)]
    return np.pad(call.value(0), around, constant_values=value)


@kernel(ir.StridedSlice)
def strided_slice(op: ir.StridedSlice, call: Call) -> Array:
    """begin:end:stride on every axis."""
    _same_quantization(call)
    ranges = zip(op.begin, op.end, op.stride, strict=True)
    kept = tuple(slice(begin, end, stride) for begin, end, stride in ranges)
    x = call.value(0)
    return x[(slice(None), *kept)].reshape(len(x), *call.output.shape)
