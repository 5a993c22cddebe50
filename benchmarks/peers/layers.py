"""Single layers with INT8 and INT4 weights: the same shapes, so that only the format differs."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgesmith.targets.graph.ir import (
    Conv2D,
    DepthwiseConv2D,
    DType,
    FullyConnected,
    Graph,
    Op,
    Padding,
    Quantization,
    Tensor,
)
from edgesmith.targets.graph.shapes import infer

_OPERANDS = ("x", "weight", "bias")
_SAME = Padding(1, 1, 1, 1)


@dataclass(frozen=True)
class Layer:
    """A weighted operator over `source` codes with `weights` of these shapes.

    Args:
        axis: of the output channels in `weights`.
        per_channel: whether each of them has a scale of its own.
    """

    title: str
    source: tuple[int, ...]
    weights: tuple[int, ...]
    axis: int
    op: Callable[[], Op]
    per_channel: bool = True

    @property
    def packed_share(self) -> float:
        """Bytes of INT4 weights over those of INT8 ones: half, each filter in whole bytes."""
        taps = math.prod(self.weights) // self.weights[self.axis]
        return -(-taps // 2) / taps

    def graph(self, dtype: DType) -> Graph:
        """The layer with random weights of a type, INT32 bias and int8 activations."""
        rng = np.random.default_rng(zlib.crc32(self.title.encode()))
        channels = self.weights[self.axis]
        count = channels if self.per_channel else 1
        codes = rng.integers(-dtype.qmax, dtype.qmax, self.weights, endpoint=True)
        scales = (rng.uniform(0.5, 1.0, count) / dtype.qmax).astype(np.float32)
        bias = rng.integers(-500, 500, channels).astype(np.int32)
        zeros, step = np.zeros(count, np.int64), 0.02
        x = Tensor("x", self.source, DType.INT8, Quantization.per_tensor(step, 3))
        axis = self.axis if self.per_channel else None
        weight_q = Quantization(scales, zeros, axis)
        weight = Tensor("weight", self.weights, dtype, weight_q, codes.astype(np.int8))
        bias_q = Quantization(np.float32(step) * scales, zeros, 0 if self.per_channel else None)
        op = self.op()
        (shape,) = infer(op, (x, weight, Tensor("bias", (channels,), DType.INT32, bias_q, bias)))
        fan_in = codes.size / channels
        y = Tensor("y", shape, DType.INT8, Quantization.per_tensor(step * fan_in**0.5, -5))
        tensors = (x, weight, Tensor("bias", (channels,), DType.INT32, bias_q, bias), y)
        return Graph(self.title, {each.name: each for each in tensors}, (op,), ("x",), ("y",))


LAYERS = (
    Layer(
        "1x1 convolution, 64 to 64 channels on 25x5",
        (1, 25, 5, 64),
        (64, 1, 1, 64),
        0,
        lambda: Conv2D("op", _OPERANDS, ("y",)),
    ),
    Layer(
        "3x3 convolution, 16 to 16 channels on 32x32",
        (1, 32, 32, 16),
        (16, 3, 3, 16),
        0,
        lambda: Conv2D("op", _OPERANDS, ("y",), padding=_SAME),
    ),
    Layer(
        "3x3 depthwise convolution, 64 channels on 25x5",
        (1, 25, 5, 64),
        (1, 3, 3, 64),
        3,
        lambda: DepthwiseConv2D("op", _OPERANDS, ("y",), padding=_SAME),
    ),
    Layer(
        "fully connected, 640 to 128",
        (1, 640),
        (128, 640),
        0,
        lambda: FullyConnected("op", _OPERANDS, ("y",)),
        per_channel=False,
    ),
)
