"""Networks with zeros in their weights: a convolution, depthwise, pointwise, fully connected."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Padding, Quantization, Tensor

Codes = npt.NDArray[np.int8]
SAME = Padding(1, 1, 1, 1)
SHAPES = {"conv": (16, 3, 3, 8), "depthwise": (1, 3, 3, 16), "point": (32, 1, 1, 16)}


def with_zeros(codes: Codes, share: float, random: np.random.Generator) -> Codes:
    """The codes with that share of them, drawn, set to zero."""
    return np.where(random.random(codes.shape) < share, 0, codes).astype(np.int8)


def two_of_four(codes: Codes, random: np.random.Generator) -> Codes:
    """Two of every four codes along the last axis set to zero, where that has whole fours."""
    if codes.shape[-1] % 4:
        return codes
    kept = random.random(codes.shape).reshape(-1, 4).argsort(axis=1) < 2
    return np.where(kept.reshape(codes.shape), codes, 0).astype(np.int8)


def network(
    seed: int,
    *,
    zeros: float | str = 0.7,
    bits: int = 8,
    activations: DType = DType.INT8,
    size: int = 6,
    outputs: int = 12,
) -> Graph:
    """[1, size, size, 8] to [1, outputs]; weights of 8, 4 or 2 bits.

    Args:
        zeros: share of zero weights, or "2:4".
    """
    random = np.random.default_rng(seed)
    made = _Network(random, zeros, bits, activations)
    made.activation("x", (1, size, size, 8))
    conv = ir.Conv2D("conv", ("x", "conv w", "conv b"), ("conv y",), padding=SAME)
    made.add(conv, SHAPES["conv"], (1, size, size, 16))
    names = ("conv y", "depthwise w", "depthwise b")
    depthwise = ir.DepthwiseConv2D("depthwise", names, ("depthwise y",), padding=SAME)
    made.add(depthwise, SHAPES["depthwise"], (1, size, size, 16))
    point = ir.Conv2D("point", ("depthwise y", "point w", "point b"), ("point y",))
    made.add(point, SHAPES["point"], (1, size, size, 32))
    depth = size * size * 32
    made.activation("flat", (1, depth))
    made.ops.append(ir.Reshape("flatten", ("point y",), ("flat",), (1, depth)))
    last = ir.FullyConnected("last", ("flat", "last w", "last b"), ("last y",))
    made.add(last, (outputs, depth), (1, outputs))
    return Graph("sparse", made.tensors, tuple(made.ops), ("x",), ("last y",))


class _Network:
    """A graph that grows by one operator with weights at a time."""

    def __init__(
        self, random: np.random.Generator, zeros: float | str, bits: int, activations: DType
    ) -> None:
        self.random, self.zeros, self.bits, self.dtype = random, zeros, bits, activations
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[ir.Op] = []

    def activation(self, name: str, shape: tuple[int, ...]) -> None:
        zero = 3 if self.dtype is DType.INT8 else 0
        self.tensors[name] = Tensor(name, shape, self.dtype, Quantization.per_tensor(0.05, zero))
        if name == "flat":  # a reshape keeps its input's scale
            self.tensors[name] = Tensor(name, shape, self.dtype, self.tensors["point y"].q)

    def add(self, op: ir.Op, shape: tuple[int, ...], result: tuple[int, ...]) -> None:
        """The operator, with weights of `shape` and its output of shape `result`."""
        axis = 3 if isinstance(op, ir.DepthwiseConv2D) else 0
        channels, depth = shape[axis], int(np.prod(shape)) // shape[axis]
        codes = self._codes(shape)
        spread = float(np.sqrt((codes.astype(np.float64) ** 2).mean() + 1)) * 70 * depth**0.5
        real = 40 / spread * self.random.uniform(0.5, 1.5, channels)
        wide = self.dtype is DType.INT16
        bias = self.random.integers(-int(spread), int(spread) + 1, channels)
        scales = Quantization.per_channel(real, axis)
        self.tensors[op.inputs[1]] = Tensor(
            op.inputs[1], shape, DType(f"int{self.bits}"), scales, codes
        )
        self.tensors[op.inputs[2]] = Tensor(
            op.inputs[2],
            (channels,),
            DType.INT64 if wide else DType.INT32,
            Quantization.per_channel(real * 0.05, 0),
            bias.astype(np.int64 if wide else np.int32),
        )
        self.activation(op.output, result)
        self.ops.append(op)

    def _codes(self, shape: tuple[int, ...]) -> Codes:
        most = (1 << (self.bits - 1)) - 1
        drawn = self.random.integers(1, most + 1, shape)
        drawn *= self.random.choice([-1, 1], shape)
        if self.zeros == "2:4":
            return two_of_four(drawn.astype(np.int8), self.random)
        assert isinstance(self.zeros, float)
        return with_zeros(drawn.astype(np.int8), self.zeros, self.random)
