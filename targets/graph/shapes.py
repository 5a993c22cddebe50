"""Shape inference: the output shapes of one operator, from its operands.

One small function per operator, dispatched on its type. A shape that does not
fit raises `ModelFileError` naming the operator, so readers, rewrites and the
verifier all report the same fault in the same words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import NoReturn

import numpy as np

from edgesmith.pipeline.errors import ModelFileError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Op, Padding, Pair, Tensor
from edgesmith.targets.graph.padding import output_size

Shape = tuple[int, ...]
Operands = Sequence[Tensor | None]


def infer(op: Op, operands: Operands) -> tuple[Shape, ...]:
    """Shapes of the operator's outputs.

    Args:
        op: the operator.
        operands: its input tensors in order; absent optional ones are None.

    Raises:
        ModelFileError: operands or attributes do not fit each other.
    """
    shapes = _infer(op, operands)
    if len(shapes) != len(op.outputs):
        _misfit(op, f"has {len(op.outputs)} outputs, expected {len(shapes)}")
    if any(min(shape, default=1) < 1 for shape in shapes):
        _misfit(op, f"would produce the shape {list(shapes[0])}")
    return shapes


def _misfit(op: Op, reason: str) -> NoReturn:
    raise ModelFileError(
        f"{op.kind} {op.name!r} {reason}", fix="check the model; export it again with fixed shapes"
    )


def _operand(op: Op, operands: Operands, position: int) -> Tensor:
    if position >= len(operands) or operands[position] is None:
        _misfit(op, f"lacks its input {position}")
    tensor = operands[position]
    assert tensor is not None
    return tensor


def _ranked(op: Op, operands: Operands, position: int, rank: int) -> Shape:
    shape = _operand(op, operands, position).shape
    if len(shape) != rank:
        _misfit(op, f"needs rank {rank} on input {position}, got shape {list(shape)}")
    return shape


def _bias(op: Op, operands: Operands, channels: int) -> None:
    bias = operands[2] if len(operands) > 2 else None
    if bias is not None and bias.shape != (channels,):
        _misfit(op, f"has a bias of shape {list(bias.shape)} for {channels} output channels")


def _window(
    op: Op, size: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair = (1, 1)
) -> Pair:
    if min(*kernel, *stride, *dilation) < 1:
        _misfit(op, f"has kernel {kernel}, stride {stride}, dilation {dilation}; all must be >= 1")
    if min(padding.top, padding.bottom, padding.left, padding.right) < 0:
        _misfit(op, f"has negative padding {padding}")
    out = output_size(size, kernel, stride, padding, dilation)
    if min(out) < 1:
        _misfit(op, f"has a window {kernel} that does not fit the padded input {size}")
    return out


@singledispatch
def _infer(op: Op, operands: Operands) -> tuple[Shape, ...]:
    raise ModelFileError(
        f"operator {op.name!r} has the unknown kind {op.kind}",
        fix="register its shape inference in edgesmith.targets.graph.shapes",
    )


@_infer.register
def _conv(op: ir.Conv2D, operands: Operands) -> tuple[Shape, ...]:
    batch, height, width, channels = _ranked(op, operands, 0, 4)
    out_channels, kernel_h, kernel_w, per_group = _ranked(op, operands, 1, 4)
    if op.groups < 1 or per_group * op.groups != channels or out_channels % op.groups:
        _misfit(
            op,
            f"has {channels} input and {out_channels} output channels, {op.groups} groups "
            f"and {per_group} channels per filter",
        )
    _bias(op, operands, out_channels)
    size = _window(op, (height, width), (kernel_h, kernel_w), op.stride, op.padding, op.dilation)
    return ((batch, *size, out_channels),)


@_infer.register
def _depthwise(op: ir.DepthwiseConv2D, operands: Operands) -> tuple[Shape, ...]:
    batch, height, width, channels = _ranked(op, operands, 0, 4)
    one, kernel_h, kernel_w, out_channels = _ranked(op, operands, 1, 4)
    if one != 1 or channels * op.multiplier != out_channels:
        _misfit(
            op,
            f"has {channels} input channels, multiplier {op.multiplier} and a weight of shape "
            f"{[one, kernel_h, kernel_w, out_channels]}",
        )
    _bias(op, operands, out_channels)
    size = _window(op, (height, width), (kernel_h, kernel_w), op.stride, op.padding, op.dilation)
    return ((batch, *size, out_channels),)


@_infer.register
def _fully_connected(op: ir.FullyConnected, operands: Operands) -> tuple[Shape, ...]:
    source = _operand(op, operands, 0).shape
    out_features, in_features = _ranked(op, operands, 1, 2)
    elements = math.prod(source)
    _bias(op, operands, out_features)
    if op.keep_dims:
        if not source or source[-1] != in_features:
            _misfit(op, f"has input {list(source)} for {in_features} input features")
        return ((*source[:-1], out_features),)
    if elements % in_features:
        _misfit(op, f"has input {list(source)} for {in_features} input features")
    return ((elements // in_features, out_features),)


@_infer.register
def _batch_matmul(op: ir.BatchMatMul, operands: Operands) -> tuple[Shape, ...]:
    left, right = (_operand(op, operands, position).shape for position in (0, 1))
    if len(left) < 2 or len(right) < 2:
        _misfit(op, f"needs matrices, got {list(left)} and {list(right)}")
    rows, inner = reversed(left[-2:]) if op.adjoint_x else left[-2:]
    inner_right, columns = reversed(right[-2:]) if op.adjoint_y else right[-2:]
    if inner != inner_right:
        _misfit(op, f"cannot multiply {list(left)} by {list(right)}")
    return ((*_broadcast(op, left[:-2], right[:-2]), rows, columns),)


def _broadcast(op: Op, *shapes: Shape) -> Shape:
    try:
        return tuple(int(size) for size in np.broadcast_shapes(*shapes))
    except ValueError:
        _misfit(op, f"cannot broadcast {' with '.join(str(list(shape)) for shape in shapes)}")


@_infer.register(ir.Add)
@_infer.register(ir.Sub)
@_infer.register(ir.Mul)
def _binary(op: Op, operands: Operands) -> tuple[Shape, ...]:
    left, right = (_operand(op, operands, position).shape for position in (0, 1))
    return (_broadcast(op, left, right),)


@_infer.register(ir.AveragePool2D)
@_infer.register(ir.MaxPool2D)
def _pool(op: ir.AveragePool2D | ir.MaxPool2D, operands: Operands) -> tuple[Shape, ...]:
    batch, height, width, channels = _ranked(op, operands, 0, 4)
    padding = op.padding
    size = _window(op, (height, width), op.kernel, op.stride, padding)
    if max(padding.top, padding.bottom) >= op.kernel[0] or (
        max(padding.left, padding.right) >= op.kernel[1]
    ):
        _misfit(op, f"pads {padding}, as much as its kernel {op.kernel}: windows may be empty")
    return ((batch, *size, channels),)


@_infer.register
def _mean(op: ir.Mean, operands: Operands) -> tuple[Shape, ...]:
    shape = _operand(op, operands, 0).shape
    axes = set(op.axes)
    if tuple(sorted(axes)) != op.axes or not axes <= set(range(len(shape))):
        _misfit(op, f"has axes {list(op.axes)} for rank {len(shape)}")
    if op.keep_dims:
        return (tuple(1 if axis in axes else size for axis, size in enumerate(shape)),)
    return (tuple(size for axis, size in enumerate(shape) if axis not in axes),)


def _same(op: Op, operands: Operands) -> tuple[Shape, ...]:
    return (_operand(op, operands, 0).shape,)


def preserves_shape(*kinds: type[Op]) -> None:
    """Register operators whose output has the shape of their first input."""
    for kind in kinds:
        _infer.register(kind, _same)


preserves_shape(
    ir.Relu,
    ir.Clip,
    ir.HardSwish,
    ir.Logistic,
    ir.Tanh,
    ir.Gelu,
    ir.Quantize,
    ir.Dequantize,
)


@_infer.register
def _softmax(op: ir.Softmax, operands: Operands) -> tuple[Shape, ...]:
    if not _operand(op, operands, 0).shape:
        _misfit(op, "needs an axis, got a scalar")
    return _same(op, operands)


@_infer.register
def _layer_norm(op: ir.LayerNorm, operands: Operands) -> tuple[Shape, ...]:
    shape = _operand(op, operands, 0).shape
    parameters = [_operand(op, operands, 1)] + [tensor for tensor in operands[2:] if tensor]
    for tensor in parameters:
        if tensor.shape != shape[-1:] or not shape:
            _misfit(op, f"has a parameter of shape {list(tensor.shape)} for {list(shape)}")
    return (shape,)


@_infer.register
def _concat(op: ir.Concat, operands: Operands) -> tuple[Shape, ...]:
    shapes = [_operand(op, operands, position).shape for position in range(len(op.inputs))]
    if not shapes or not -len(shapes[0]) <= op.axis < len(shapes[0]):
        _misfit(op, f"has axis {op.axis} for {len(shapes)} inputs")
    axis = op.axis % len(shapes[0])
    rest = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(rest) != 1 or len({len(shape) for shape in shapes}) != 1:
        _misfit(op, f"cannot join {[list(shape) for shape in shapes]} on axis {axis}")
    total = sum(shape[axis] for shape in shapes)
    return ((*shapes[0][:axis], total, *shapes[0][axis + 1 :]),)


@_infer.register
def _reshape(op: ir.Reshape, operands: Operands) -> tuple[Shape, ...]:
    shape = _operand(op, operands, 0).shape
    if min(op.shape, default=1) < 1 or math.prod(op.shape) != math.prod(shape):
        _misfit(op, f"cannot turn {list(shape)} into {list(op.shape)}")
    return (op.shape,)


@_infer.register
def _transpose(op: ir.Transpose, operands: Operands) -> tuple[Shape, ...]:
    shape = _operand(op, operands, 0).shape
    if sorted(op.permutation) != list(range(len(shape))):
        _misfit(op, f"has permutation {list(op.permutation)} for rank {len(shape)}")
    return (tuple(shape[axis] for axis in op.permutation),)


@_infer.register
def _pad(op: ir.Pad, operands: Operands) -> tuple[Shape, ...]:
    shape = _operand(op, operands, 0).shape
    if not len(op.before) == len(op.after) == len(shape) or min(*op.before, *op.after, 0) < 0:
        _misfit(op, f"pads {list(op.before)} and {list(op.after)} on shape {list(shape)}")
    pads = zip(op.before, shape, op.after, strict=True)
    return (tuple(before + size + after for before, size, after in pads),)


@_infer.register
def _slice(op: ir.StridedSlice, operands: Operands) -> tuple[Shape, ...]:
    shape = _operand(op, operands, 0).shape
    if not len(op.begin) == len(op.end) == len(op.stride) == len(shape):
        _misfit(op, f"does not name every axis of shape {list(shape)}")
    sizes = []
    for begin, end, stride, size in zip(op.begin, op.end, op.stride, shape, strict=True):
        if not (0 <= begin <= end <= size and stride >= 1):
            _misfit(op, f"takes {begin}:{end}:{stride} of an axis of {size}")
        sizes.append(-(-(end - begin) // stride))
    return (tuple(sizes),)


@_infer.register(ir.ResizeNearest)
@_infer.register(ir.ResizeBilinear)
def _resize(op: ir.ResizeNearest | ir.ResizeBilinear, operands: Operands) -> tuple[Shape, ...]:
    batch, _, _, channels = _ranked(op, operands, 0, 4)
    return ((batch, *op.size, channels),)
