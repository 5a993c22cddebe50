"""Random convolutions and fully connected layers in every format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Padding, Quantization, Tensor
from edgesmith.targets.graph.padding import output_size, same_padding
from tests.targets.graph.reference.draw import ACTIVATIONS, Draw, Shape, graph_of


def weight(draw: Draw, shape: Shape, channel_axis: int, dtype: DType, per_channel: bool) -> Tensor:
    count = shape[channel_axis] if per_channel else 1
    scales = [draw.scale(1e-3, 0.1) for _ in range(count)]
    quantization = (
        Quantization.per_channel(scales, channel_axis)
        if per_channel
        else Quantization.per_tensor(scales[0])
    )
    codes = draw.codes(shape, dtype)
    narrow = np.maximum(codes, dtype.qmin + 1).astype(dtype.numpy)
    return Tensor("weight", shape, dtype, quantization, narrow)


def bias(draw: Draw, x: Tensor, weights: Tensor, channels: int, dtype: DType) -> Tensor:
    scales = x.q.scale * weights.q.scale
    axis = 0 if scales.size > 1 else None
    quantization = Quantization(scales, np.zeros(scales.shape, np.int64), axis)
    codes = draw.rng.integers(-20000, 20000, channels).astype(dtype.numpy)
    return Tensor("bias", (channels,), dtype, quantization, codes)


def linear_output(draw: Draw, shape: Shape, x: Tensor, weights: Tensor, depth: int) -> Tensor:
    """An output whose scale uses much of the code range, or now and then a multiplier above 1."""
    spread = float(x.q.scale[0] * weights.q.scale.max()) * np.sqrt(depth)
    spread *= (1 << (x.dtype.bits - 1)) * (1 << (weights.dtype.bits - 1)) / 3
    largest = float(1 << (x.dtype.bits - 1))
    factor = draw.pick([0.7, 1.0, 1.5, 2.5])
    scale = spread / largest * factor
    if draw.integer(0, 5) == 0:
        scale = float(x.q.scale[0] * weights.q.scale.max()) / draw.pick([1.3, 3.7])
    return draw.activation("y", shape, x.dtype, scale=scale)


@dataclass(frozen=True)
class Linear:
    """Formats of a convolution or fully connected case."""

    activation: DType = DType.INT8
    weight: DType = DType.INT8
    bias: DType | None = DType.INT32
    per_channel: bool = True


def operands(
    draw: Draw, formats: Linear, x: Tensor, weights: Tensor, y: Tensor
) -> tuple[list[Tensor], tuple[str, ...]]:
    """All tensors and the operator's inputs, with a bias if the formats have one."""
    if formats.bias is None:
        return [x, weights, y], ("x", "weight")
    added = bias(draw, x, weights, y.shape[-1], formats.bias)
    return [x, weights, y, added], ("x", "weight", "bias")


def conv_case(draw: Draw, formats: Linear, *, groups: bool = False) -> Graph:
    count = draw.integer(2, 3) if groups else 1
    depth, outputs = draw.integer(1, 5), draw.integer(1, 4) * count
    kernel = draw.pair(1, 3)
    stride, dilation = draw.pair(1, 2), draw.pair(1, 2)
    size = draw.integer(5, 9), draw.integer(5, 9)
    padding = draw.pick([Padding(), same_padding(size, kernel, stride, dilation)])
    x = draw.activation("x", (draw.integer(1, 2), *size, depth * count), formats.activation)
    shape = (outputs, *kernel, depth)
    w = weight(draw, shape, 0, formats.weight, formats.per_channel)
    out = output_size(size, kernel, stride, padding, dilation)
    y = linear_output(draw, (x.shape[0], *out, outputs), x, w, depth * kernel[0] * kernel[1])
    tensors, inputs = operands(draw, formats, x, w, y)
    op = ir.Conv2D(
        "conv",
        inputs,
        ("y",),
        stride,
        dilation,
        padding,
        count,
        draw.pick(ACTIVATIONS),
    )
    return graph_of(op, *tensors)


def depthwise_case(draw: Draw, formats: Linear) -> Graph:
    multiplier, depth = draw.pick([1, 1, 2, 3]), draw.integer(1, 5)
    kernel = draw.pair(1, 3)
    stride, dilation = (draw.integer(1, 2),) * 2, draw.pair(1, 2)
    size = draw.integer(5, 9), draw.integer(5, 9)
    padding = draw.pick([Padding(), same_padding(size, kernel, stride, dilation)])
    x = draw.activation("x", (draw.integer(1, 2), *size, depth), formats.activation)
    outputs = depth * multiplier
    w = weight(draw, (1, *kernel, outputs), 3, formats.weight, formats.per_channel)
    out = output_size(size, kernel, stride, padding, dilation)
    y = linear_output(draw, (x.shape[0], *out, outputs), x, w, kernel[0] * kernel[1])
    tensors, inputs = operands(draw, formats, x, w, y)
    op = ir.DepthwiseConv2D(
        "dw",
        inputs,
        ("y",),
        stride,
        dilation,
        padding,
        multiplier,
        draw.pick(ACTIVATIONS),
    )
    return graph_of(op, *tensors)


def fully_connected_case(draw: Draw, formats: Linear) -> Graph:
    depth, outputs = draw.integer(1, 40), draw.integer(2, 12)
    keep = draw.pick([False, True])
    lead = (draw.integer(1, 2), draw.integer(1, 3)) if keep else (draw.integer(1, 3),)
    x = draw.activation("x", (*lead, depth), formats.activation)
    w = weight(draw, (outputs, depth), 0, formats.weight, formats.per_channel)
    y = linear_output(draw, (*lead, outputs), x, w, depth)
    tensors, inputs = operands(draw, formats, x, w, y)
    op = ir.FullyConnected("fc", inputs, ("y",), draw.pick(ACTIVATIONS), keep)
    return graph_of(op, *tensors)
