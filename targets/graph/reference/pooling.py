"""Average and max pooling over windows that end at the input's border."""

from __future__ import annotations

from itertools import product

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, Padding
from edgesmith.targets.graph.padding import output_size
from edgesmith.targets.graph.reference.conv import pad_spatial, tap
from edgesmith.targets.graph.reference.kernel import (
    Call,
    activation_range,
    clamp,
    kernel,
    sample_blocks,
)
from edgesmith.targets.graph.requantize import Int64Array


def _check(op: ir.AveragePool2D | ir.MaxPool2D, call: Call) -> tuple[int, int]:
    """Refuse what the operator does not define; return the output size."""
    call.integer_activations(0)
    if call.scalar(call.tensor(0)) != call.scalar(call.output):
        raise call.refuse("input and output differ in scale or zero point", "legalize the graph")
    _, height, width, _ = call.tensor(0).shape
    size = output_size((height, width), op.kernel, op.stride, op.padding)
    if min(size) < 1:
        raise call.refuse(f"a {op.kernel} window does not fit the input", "shrink the kernel")
    return size


def divide_half_away(total: Int64Array, count: Int64Array) -> Int64Array:
    """total / count to the nearest integer as C computes it: ties away from zero."""
    magnitude = (np.abs(total) + count // 2) // count
    return np.where(total > 0, magnitude, -magnitude)


@kernel(ir.AveragePool2D)
def average_pool(op: ir.AveragePool2D, call: Call) -> Array:
    """Mean of the codes inside the input, rounded half away from zero."""
    size = _check(op, call)
    limits = activation_range(call, op.activation)
    x = call.value(0)
    inside = pad_spatial(np.ones((1, *x.shape[2:4], 1), np.int64), op.padding)
    taps = list(product(range(op.kernel[0]), range(op.kernel[1])))
    count = sum(tap(inside, at, size, op.stride, (1, 1)) for at in taps)
    result = np.empty((len(x), *call.output.shape), call.output.dtype.numpy)
    for block in sample_blocks(len(x), call.tensor(0).elements):
        padded = pad_spatial(x[block].astype(np.int32), op.padding)
        total = np.zeros((*padded.shape[:2], *size, padded.shape[-1]), np.int32)
        for at in taps:
            total += tap(padded, at, size, op.stride, (1, 1))
        mean = divide_half_away(total.astype(np.int64), np.asarray(count))
        result[block] = clamp(mean, limits, call.output.dtype)
    return result


@kernel(ir.MaxPool2D)
def max_pool(op: ir.MaxPool2D, call: Call) -> Array:
    """Largest code inside the input; the padding never wins."""
    size = _check(op, call)
    low, high = activation_range(call, op.activation)
    x = call.value(0)
    if op.padding != Padding():
        around = [(0, 0), (0, 0), (op.padding.top, op.padding.bottom)]
        around += [(op.padding.left, op.padding.right), (0, 0)]
        x = np.pad(x, around, constant_values=call.output.dtype.qmin)
    result = tap(x, (0, 0), size, op.stride, (1, 1)).copy()
    for at in product(range(op.kernel[0]), range(op.kernel[1])):
        np.maximum(result, tap(x, at, size, op.stride, (1, 1)), out=result)
    return np.clip(result, low, high)
