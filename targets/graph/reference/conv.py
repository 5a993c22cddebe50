"""Convolutions: im2col and an exact matrix product; depthwise by shifted multiply-add."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, Padding, Pair
from edgesmith.targets.graph.padding import output_size
from edgesmith.targets.graph.reference.kernel import Call, kernel, sample_blocks
from edgesmith.targets.graph.reference.linear import (
    Tail,
    largest_offset_code,
    make_tail,
    product_type,
    require_symmetric,
    weight_scales,
)

Values = npt.NDArray[np.generic]


def pad_spatial(x: Values, padding: Padding) -> Values:
    """Zeros around the two axes before the last."""
    rows, columns = (padding.top, padding.bottom), (padding.left, padding.right)
    if not any((*rows, *columns)):
        return x
    return np.pad(x, [(0, 0)] * (x.ndim - 3) + [rows, columns, (0, 0)])


def tap(x: Values, position: Pair, size: Pair, stride: Pair, dilation: Pair) -> Values:
    """The input elements that one kernel position meets, [..., *size, C], as a view."""
    top, left = position[0] * dilation[0], position[1] * dilation[1]
    rows = slice(top, top + (size[0] - 1) * stride[0] + 1, stride[0])
    columns = slice(left, left + (size[1] - 1) * stride[1] + 1, stride[1])
    return x[..., rows, columns, :]


def _im2col(x: Values, kernel_size: Pair, size: Pair, stride: Pair, dilation: Pair) -> Values:
    """[..., H, W, C] -> [..., *size, kh * kw * C]."""
    if kernel_size == (1, 1):
        return np.ascontiguousarray(tap(x, (0, 0), size, stride, dilation))
    height, width = kernel_size
    columns = np.empty((*x.shape[:-3], *size, height, width, x.shape[-1]), x.dtype)
    for i, j in product(range(height), range(width)):
        columns[..., i, j, :] = tap(x, (i, j), size, stride, dilation)
    return columns.reshape(*x.shape[:-3], *size, -1)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What both kinds of convolution need before they touch a sample.

    `bound` is the largest magnitude that a sum of products can have.
    """

    tail: Tail
    zero: int
    size: Pair
    bound: int


def _prepare(op: ir.Conv2D | ir.DepthwiseConv2D, call: Call, channel_axis: int) -> _Prepared:
    call.integer_activations(0)
    x, weight = call.tensor(0), call.tensor(1)
    if len(x.shape) != 4 or len(weight.shape) != 4:
        raise call.refuse(f"shapes are {x.shape} and {weight.shape}", "use NHWC tensors")
    outputs, kernel_size = weight.shape[channel_axis], (weight.shape[1], weight.shape[2])
    scales = weight_scales(call, weight, outputs)
    require_symmetric(call, weight)
    size = output_size((x.shape[1], x.shape[2]), kernel_size, op.stride, op.padding, op.dilation)
    if min(size) < 1:
        raise call.refuse(f"a {kernel_size} window does not fit the input", "shrink the kernel")
    _, zero = call.scalar(x)
    others = tuple(axis for axis in range(4) if axis != channel_axis)
    reach = int(np.abs(call.constant(1).astype(np.int64)).sum(axis=others).max())
    tail = make_tail(call, op.activation, scales, outputs)
    return _Prepared(tail, zero, size, reach * largest_offset_code(x.dtype, zero))


@kernel(ir.Conv2D)
def conv2d(op: ir.Conv2D, call: Call) -> Array:
    """Convolution; weight [O, kh, kw, C / groups], group g makes output channels g*O/G onwards."""
    prepared = _prepare(op, call, channel_axis=0)
    weight, size = call.constant(1), prepared.size
    outputs, rows, columns, depth = weight.shape
    kind = product_type(prepared.bound)
    matrices = weight.astype(kind).reshape(op.groups, outputs // op.groups, -1)
    x = call.value(0)
    result = np.empty((len(x), *call.output.shape), call.output.dtype.numpy)
    volume = size[0] * size[1] * max(outputs, matrices.shape[2] * op.groups) * x.shape[1]
    for block in sample_blocks(len(x), volume):
        shifted = pad_spatial(x[block].astype(kind) - kind.type(prepared.zero), op.padding)
        sums = np.empty((*shifted.shape[:2], *size, outputs), kind)
        for group, matrix in enumerate(matrices):
            read = slice(group * depth, (group + 1) * depth)
            made = slice(group * len(matrix), (group + 1) * len(matrix))
            met = _im2col(shifted[..., read], (rows, columns), size, op.stride, op.dilation)
            sums[..., made] = met @ matrix.T
        result[block] = prepared.tail.apply(sums)
    return result


@kernel(ir.DepthwiseConv2D)
def depthwise_conv2d(op: ir.DepthwiseConv2D, call: Call) -> Array:
    """Depthwise convolution; input channel c makes output channels c*m to c*m + m - 1."""
    prepared = _prepare(op, call, channel_axis=3)
    kind = np.dtype(np.int32 if prepared.bound < 1 << 31 else np.int64)
    taps = call.constant(1)[0].astype(kind)
    x = call.value(0)
    result = np.empty((len(x), *call.output.shape), call.output.dtype.numpy)
    for block in sample_blocks(len(x), call.output.elements):
        shifted = x[block].astype(kind) - kind.type(prepared.zero)
        if op.multiplier > 1:
            shifted = np.repeat(shifted, op.multiplier, axis=-1)
        shifted = pad_spatial(shifted, op.padding)
        sums = np.zeros((*shifted.shape[:2], *prepared.size, taps.shape[-1]), kind)
        for position in product(range(taps.shape[0]), range(taps.shape[1])):
            met = tap(shifted, position, prepared.size, op.stride, op.dilation)
            sums += met * taps[position]
        result[block] = prepared.tail.apply(sums)
    return result
