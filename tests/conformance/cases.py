"""Graphs of one operator each, over formats and attributes: what every target goes through.

A case needs no target to be added to it: a new target inherits all of them, and a
new operator adds its cases here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import (
    Activation,
    DType,
    Graph,
    Op,
    Padding,
    Quantization,
    Tensor,
)
from edgesmith.targets.graph.shapes import infer

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """A graph with a name for test reports."""

    name: str
    graph: Graph

    def inputs(self, samples: int = 3) -> list[np.ndarray]:
        """Random codes [samples, *shape] per graph input, the same every time."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        found = []
        for name in self.graph.inputs:
            tensor = self.graph[name]
            shape = (samples, *tensor.shape)
            codes = rng.integers(tensor.dtype.qmin, tensor.dtype.qmax, shape, endpoint=True)
            found.append(codes.astype(tensor.dtype.numpy))
        return found


class _Maker:
    """Tensors of one case, their numbers drawn from the case's name."""

    def __init__(self, name: str, dtype: DType = DType.INT8) -> None:
        self.name = name
        self.dtype = dtype
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.tensors: dict[str, Tensor] = {}

    def activation(self, name: str, shape: Shape, scale: float | None = None) -> str:
        wide = self.dtype is DType.INT16
        step = scale or float(self.rng.uniform(0.02, 0.05)) / (256 if wide else 1)
        zero = 0 if wide else int(self.rng.integers(-20, 20))
        self.tensors[name] = Tensor(name, shape, self.dtype, Quantization.per_tensor(step, zero))
        return name

    def alike(self, name: str, other: str, shape: Shape) -> str:
        """An activation with the scale and zero point of another."""
        self.tensors[name] = replace(self.tensors[other], name=name, shape=shape)
        return name

    def fixed(self, name: str, shape: Shape, scale: float, zero: int) -> str:
        quantization = Quantization.per_tensor(scale, zero)
        self.tensors[name] = Tensor(name, shape, self.dtype, quantization)
        return name

    def weights(
        self,
        source: str,
        shape: Shape,
        axis: int | None,
        dtype: DType = DType.INT8,
        bias_axis: int = 0,
    ) -> tuple[str, str]:
        """Weight and bias of `shape`, per channel along `axis`."""
        limit = dtype.qmax
        codes = self.rng.integers(-limit, limit, shape, endpoint=True).astype(np.int8)
        channels = shape[axis if axis is not None else bias_axis]
        count = channels if axis is not None else 1
        scales = self.rng.uniform(0.2, 1.0, count).astype(np.float32) / np.float32(limit)
        quantization = Quantization(scales, np.zeros(count, np.int64), axis)
        self.tensors["weight"] = Tensor("weight", shape, dtype, quantization, codes)
        bias_scale = scales * self.tensors[source].q.scale
        wide = DType.INT64 if self.dtype is DType.INT16 else DType.INT32
        bias = self.rng.integers(-500, 500, channels).astype(wide.numpy)
        bias_q = Quantization(
            bias_scale, np.zeros(count, np.int64), 0 if axis is not None else None
        )
        self.tensors["bias"] = Tensor("bias", (channels,), wide, bias_q, bias)
        return "weight", "bias"

    def gains(self, shape: Shape, dtype: DType) -> tuple[str, str]:
        """Gamma between 1/2 and 3/2, and beta between -1 and 1, of a normalization."""
        codes = self.rng.uniform(0.5, 1.5, shape) * (dtype.qmax / 1.5)
        for name, kind, scale, values in (
            ("gamma", dtype, 1.5 / dtype.qmax, np.rint(codes)),
            ("beta", DType.INT32, 2.0**-23, self.rng.integers(-(1 << 23), 1 << 23, shape)),
        ):
            quantization = Quantization.per_tensor(scale)
            self.tensors[name] = Tensor(name, shape, kind, quantization, values.astype(kind.numpy))
        return "gamma", "beta"

    def finish(self, op: Op, output_like: str | None = None, scale: float | None = None) -> Case:
        """The case; the output's shape is inferred."""
        shape = infer(op, tuple(self.tensors[name] if name else None for name in op.inputs))[0]
        if op.output in self.tensors:
            pass
        elif output_like is not None:
            self.alike(op.output, output_like, shape)
        else:
            self.activation(op.output, shape, scale)
        inputs = tuple(
            name for name in dict.fromkeys(op.inputs) if name and not self.tensors[name].is_constant
        )
        return Case(self.name, Graph(self.name, self.tensors, (op,), inputs, op.outputs))


_Y = ("y",)


def _convolutions() -> Iterator[Case]:
    variants: dict[str, dict[str, Any]] = {
        "valid": {},
        "same-stride-2": {"stride": (2, 2), "padding": Padding(0, 1, 0, 1)},
        "symmetric-stride-2": {"stride": (2, 2), "padding": Padding(1, 1, 1, 1)},
        "dilated": {"dilation": (2, 2)},
        "relu": {"activation": Activation.RELU},
        "relu6": {"activation": Activation.RELU6, "padding": Padding(1, 1, 1, 1)},
        "grouped": {"groups": 2},
    }
    for name, fields in variants.items():
        make = _Maker(f"conv-{name}")
        x = make.activation("x", (1, 8, 8, 4))
        weight, bias = make.weights(x, (6, 3, 3, 4 // int(fields.get("groups", 1))), 0)
        op = replace(ir.Conv2D("op", (x, weight, bias), _Y), **fields)
        yield make.finish(op, scale=0.1)
    make = _Maker("conv-without-bias")
    x = make.activation("x", (1, 6, 6, 4))
    weight, _ = make.weights(x, (6, 3, 3, 4), 0)
    make.tensors.pop("bias")
    yield make.finish(ir.Conv2D("op", (x, weight, ""), _Y), scale=0.1)
    for suffix, dtype, weights in (
        ("int4", DType.INT8, DType.INT4),
        ("int2", DType.INT8, DType.INT2),
        ("int16", DType.INT16, DType.INT8),
        ("int16-int4", DType.INT16, DType.INT4),
        ("int16-int2", DType.INT16, DType.INT2),
    ):
        make = _Maker(f"conv-{suffix}", dtype)
        x = make.activation("x", (1, 6, 6, 4))
        names = make.weights(x, (6, 3, 3, 4), 0, weights)
        yield make.finish(ir.Conv2D("op", (x, *names), _Y), scale=None)
        make = _Maker(f"depthwise-{suffix}", dtype)
        x = make.activation("x", (1, 6, 6, 4))
        names = make.weights(x, (1, 3, 3, 4), 3, weights)
        yield make.finish(ir.DepthwiseConv2D("op", (x, *names), _Y), scale=None)
    depthwise: tuple[tuple[str, int, dict[str, Any]], ...] = (
        ("plain", 1, {}),
        ("multiplier-2", 2, {}),
        ("stride-2", 1, {"stride": (2, 2), "padding": Padding(0, 1, 0, 1)}),
        ("relu6", 1, {"activation": Activation.RELU6, "padding": Padding(1, 1, 1, 1)}),
    )
    for name, multiplier, fields in depthwise:
        make = _Maker(f"depthwise-{name}")
        x = make.activation("x", (1, 8, 8, 4))
        names = make.weights(x, (1, 3, 3, 4 * multiplier), 3)
        made = ir.DepthwiseConv2D("op", (x, *names), _Y, multiplier=multiplier)
        yield make.finish(replace(made, **fields), scale=0.1)


def _matrices() -> Iterator[Case]:
    formats = (
        ("per-tensor", DType.INT8, DType.INT8, None),
        ("per-channel", DType.INT8, DType.INT8, 0),
        ("int4", DType.INT8, DType.INT4, None),
        ("int4-per-channel", DType.INT8, DType.INT4, 0),
        ("int2", DType.INT8, DType.INT2, None),
        ("int2-per-channel", DType.INT8, DType.INT2, 0),
        ("int16", DType.INT16, DType.INT8, None),
        ("int16-int4", DType.INT16, DType.INT4, None),
        ("int16-int2", DType.INT16, DType.INT2, 0),
    )
    for name, dtype, weights, axis in formats:
        make = _Maker(f"fully-connected-{name}", dtype)
        x = make.activation("x", (1, 16))
        names = make.weights(x, (5, 16), axis, weights)
        yield make.finish(ir.FullyConnected("op", (x, *names), _Y), scale=None)
    make = _Maker("fully-connected-keep-dims")
    x = make.activation("x", (1, 3, 16))
    names = make.weights(x, (5, 16), None)
    op = ir.FullyConnected("op", (x, *names), _Y, Activation.RELU, keep_dims=True)
    yield make.finish(op)
    for suffix, dtype in (("", DType.INT8), ("-int16", DType.INT16)):
        make = _Maker(f"batch-matmul{suffix}", dtype)
        x, y = make.activation("x", (1, 2, 4, 6)), make.activation("z", (1, 2, 6, 5))
        yield make.finish(ir.BatchMatMul("op", (x, y), _Y), scale=None)
    make = _Maker("batch-matmul-adjoint")
    x, y = make.activation("x", (1, 2, 4, 6)), make.activation("z", (1, 2, 5, 6))
    yield make.finish(ir.BatchMatMul("op", (x, y), _Y, adjoint_y=True))
    make = _Maker("batch-matmul-adjoint-x")
    x, y = make.activation("x", (1, 2, 6, 4)), make.activation("z", (1, 2, 6, 5))
    yield make.finish(ir.BatchMatMul("op", (x, y), _Y, adjoint_x=True))
    make = _Maker("batch-matmul-adjoint-both-int16", DType.INT16)
    x, y = make.activation("x", (1, 2, 6, 4)), make.activation("z", (1, 2, 5, 6))
    yield make.finish(ir.BatchMatMul("op", (x, y), _Y, adjoint_x=True, adjoint_y=True))


def _elementwise() -> Iterator[Case]:
    for kind in (ir.Add, ir.Sub, ir.Mul):
        for suffix, dtype, other, activation in (
            ("", DType.INT8, (1, 4, 4, 3), Activation.NONE),
            ("-relu", DType.INT8, (1, 4, 4, 3), Activation.RELU),
            ("-broadcast", DType.INT8, (1, 1, 1, 3), Activation.NONE),
            ("-int16", DType.INT16, (1, 4, 4, 3), Activation.NONE),
        ):
            make = _Maker(f"{kind.__name__.lower()}{suffix}", dtype)
            x, y = make.activation("x", (1, 4, 4, 3)), make.activation("z", other)
            yield make.finish(kind("op", (x, y), _Y, activation))
    for activation in (Activation.RELU, Activation.RELU6, Activation.RELU_N1_TO_1):
        make = _Maker(f"{activation.value}-alone")
        x = make.activation("x", (1, 4, 4, 3))
        yield make.finish(ir.Relu("op", (x,), _Y, activation), output_like=x)
    make = _Maker("clip")
    x = make.activation("x", (1, 4, 4, 3))
    yield make.finish(ir.Clip("op", (x,), _Y, -0.5, 0.75), output_like=x)
    make = _Maker("hard-swish")
    x = make.activation("x", (1, 4, 4, 3))
    yield make.finish(ir.HardSwish("op", (x,), _Y))
    make = _Maker("requantize")
    x = make.activation("x", (1, 4, 4, 3))
    yield make.finish(ir.Quantize("op", (x,), _Y))
    for source, result in ((DType.INT8, DType.INT16), (DType.INT16, DType.INT8)):
        make = _Maker(f"requantize-{source}-to-{result}", source)
        x = make.activation("x", (1, 4, 4, 3))
        make.dtype = result
        yield make.finish(ir.Quantize("op", (x,), _Y))


def _curves() -> Iterator[Case]:
    fixed = {
        "Logistic": {DType.INT8: (1 / 256, -128), DType.INT16: (1 / 32768, 0)},
        "Softmax": {DType.INT8: (1 / 256, -128), DType.INT16: (1 / 32768, 0)},
        "Tanh": {DType.INT8: (1 / 128, 0), DType.INT16: (1 / 32768, 0)},
    }
    for kind in (ir.Logistic, ir.Tanh, ir.Softmax):
        for dtype in (DType.INT8, DType.INT16):
            make = _Maker(f"{kind.__name__.lower()}-{dtype}", dtype)
            x = make.activation("x", (1, 12), scale=0.05 if dtype is DType.INT8 else 8 / 32768)
            scale, zero = fixed[kind.__name__][dtype]
            make.fixed("y", (1, 12), scale, zero)
            yield make.finish(kind("op", (x,), _Y))
    for dtype in (DType.INT8, DType.INT16):
        # Scores of two heads over five tokens, as attention has them.
        make = _Maker(f"softmax-heads-{dtype}", dtype)
        x = make.activation("x", (1, 2, 5, 5), scale=0.05 if dtype is DType.INT8 else 8 / 32768)
        make.fixed("y", (1, 2, 5, 5), *fixed["Softmax"][dtype])
        yield make.finish(ir.Softmax("op", (x,), _Y))
        for approximate in (False, True):
            make = _Maker(f"gelu-{'tanh-' if approximate else ''}{dtype}", dtype)
            x = make.activation("x", (1, 4, 12))
            yield make.finish(ir.Gelu("op", (x,), _Y, approximate))


def _normalizations() -> Iterator[Case]:
    variants = (
        ("", DType.INT8, DType.INT16, (1, 5, 24), True),
        ("-int8-gamma", DType.INT8, DType.INT8, (1, 3, 24), True),
        ("-without-beta", DType.INT8, DType.INT16, (1, 24), False),
        ("-image", DType.INT8, DType.INT16, (1, 3, 2, 7), True),
        ("-int16", DType.INT16, DType.INT16, (1, 5, 24), True),
    )
    for suffix, dtype, gamma_type, shape, has_beta in variants:
        make = _Maker(f"layer-norm{suffix}", dtype)
        x = make.activation("x", shape)
        names = make.gains(shape[-1:], gamma_type)
        op = ir.LayerNorm("op", (x, *names) if has_beta else (x, names[0]), _Y)
        if not has_beta:
            make.tensors.pop("beta")
        yield make.finish(op, scale=4 / dtype.qmax)


def _windows_and_shapes() -> Iterator[Case]:
    for suffix, dtype in (("", DType.INT8), ("-int16", DType.INT16)):
        for kind in (ir.AveragePool2D, ir.MaxPool2D):
            make = _Maker(f"{kind.__name__.lower()}{suffix}", dtype)
            x = make.activation("x", (1, 6, 6, 3))
            yield make.finish(kind("op", (x,), _Y, (2, 2), (2, 2)), output_like=x)
        make = _Maker(f"mean{suffix}", dtype)
        x = make.activation("x", (1, 5, 5, 3))
        yield make.finish(ir.Mean("op", (x,), _Y, (1, 2)))
        make = _Maker(f"concat{suffix}", dtype)
        x = make.activation("x", (1, 4, 4, 3))
        z = make.alike("z", x, (1, 4, 4, 2))
        yield make.finish(ir.Concat("op", (x, z), _Y, 3), output_like=x)
        for op in _shape_ops():
            make = _Maker(f"{op.name}{suffix}", dtype)
            x = make.activation("x", (1, 4, 4, 3))
            yield make.finish(op, output_like=x)
    make = _Maker("averagepool2d-same")
    x = make.activation("x", (1, 5, 5, 3))
    op = ir.AveragePool2D("op", (x,), _Y, (3, 3), (2, 2), Padding(1, 1, 1, 1))
    yield make.finish(op, output_like=x)
    make = _Maker("mean-keep-dims")
    x = make.activation("x", (1, 5, 5, 3))
    yield make.finish(ir.Mean("op", (x,), _Y, (1, 2), keep_dims=True))


def _shape_ops() -> Iterator[Op]:
    x = ("x",)
    yield ir.Reshape("reshape", x, _Y, (1, 2, 8, 3))
    yield ir.Reshape("flatten", x, _Y, (1, 48))
    yield ir.Transpose("transpose", x, _Y, (0, 2, 1, 3))
    yield ir.Pad("pad", x, _Y, (0, 1, 0, 0), (0, 1, 2, 0))
    yield ir.StridedSlice("slice", x, _Y, (0, 1, 0, 0), (1, 4, 4, 2), (1, 1, 2, 1))
    for kind, name in ((ir.ResizeNearest, "nearest"), (ir.ResizeBilinear, "bilinear")):
        yield kind(f"resize-{name}", x, _Y, (8, 8))
        yield kind(f"resize-{name}-half-pixel", x, _Y, (8, 8), half_pixel_centers=True)
        yield kind(f"resize-{name}-corners", x, _Y, (7, 7), align_corners=True)


def all_cases() -> list[Case]:
    """Every case, in a fixed order."""
    groups = (
        _convolutions,
        _matrices,
        _elementwise,
        _curves,
        _normalizations,
        _windows_and_shapes,
    )
    return [case for group in groups for case in group()]
