"""Graphs of one convolution, depthwise convolution or fully connected operator, for DSP tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Padding, Pair
from edgesmith.targets.graph.padding import output_size

Codes = npt.NDArray[np.int8]
Random = np.random.Generator

NO_PADDING = Padding()


@dataclass(frozen=True)
class Spec:
    """One operator: `kind` is "conv", "depthwise" or "fc", where H * W are the rows.

    `fill` says how weights are drawn: "random", "highest", "lowest" or "extremes". The
    output's scale fits the sums' spread, or each real multiplier is about `multiplier`.
    """

    kind: str
    source: tuple[int, int, int, int]
    outputs: int = 0
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding = NO_PADDING
    factor: int = 1
    activation: Activation = Activation.RELU
    bits: int = 8
    zeros: Pair = (-128, -128)
    fill: str = "random"
    multiplier: float | None = None
    per_channel: bool = True

    @property
    def weight_shape(self) -> tuple[int, ...]:
        channels = self.source[3]
        if self.kind == "fc":
            return (self.outputs, channels)
        if self.kind == "depthwise":
            return (1, *self.kernel, channels * self.factor)
        return (self.outputs, *self.kernel, channels)

    @property
    def result(self) -> tuple[int, ...]:
        count, height, width, channels = self.source
        if self.kind == "fc":
            return (count * height * width, self.outputs)
        size = output_size((height, width), self.kernel, self.stride, self.padding, self.dilation)
        made = channels * self.factor if self.kind == "depthwise" else self.outputs
        return (count, *size, made)


def _weights(spec: Spec, random: Random) -> Codes:
    most = (1 << (spec.bits - 1)) - 1
    shape = spec.weight_shape
    if spec.fill == "random":
        return random.integers(-most, most + 1, shape).astype(np.int8)
    if spec.fill == "extremes":
        return np.where(random.random(shape) < 0.5, most, -most).astype(np.int8)
    return np.full(shape, most if spec.fill == "highest" else -most, np.int8)


def _op(spec: Spec) -> ir.Op:
    operands = ("op", ("x", "w", "b"), ("y",))
    if spec.kind == "fc":
        return ir.FullyConnected(*operands, activation=spec.activation)
    window = (spec.stride, spec.dilation, spec.padding)
    if spec.kind == "conv":
        return ir.Conv2D(*operands, *window, activation=spec.activation)
    return ir.DepthwiseConv2D(*operands, *window, spec.factor, activation=spec.activation)


def graph_of(spec: Spec, random: Random) -> ir.Graph:
    """The graph, with weights, biases and scales drawn."""
    codes = _weights(spec, random)
    axis = 3 if spec.kind == "depthwise" else 0
    channels = codes.shape[axis]
    spread = np.sqrt(codes.size / channels) * 42 / (1 << (8 - spec.bits)) * 128
    base = 40 / spread if spec.multiplier is None else spec.multiplier
    real = base * random.uniform(0.4, 1.6, channels if spec.per_channel else 1)
    quantization = (
        ir.Quantization.per_channel(real, axis)
        if spec.per_channel
        else ir.Quantization.per_tensor(float(real[0]))
    )
    bias = np.asarray(random.integers(-int(spread), int(spread) + 1, (channels,)), np.int32)
    source = spec.source if spec.kind != "fc" else (*spec.result[:1], spec.source[3])
    tensors = (
        ir.Tensor("x", source, DType.INT8, ir.Quantization.per_tensor(0.05, spec.zeros[0])),
        ir.Tensor("w", codes.shape, DType(f"int{spec.bits}"), quantization, codes),
        ir.Tensor("b", (channels,), DType.INT32, ir.Quantization.per_tensor(1.0), bias),
        ir.Tensor("y", spec.result, DType.INT8, ir.Quantization.per_tensor(0.05, spec.zeros[1])),
    )
    return ir.Graph("one", {t.name: t for t in tensors}, (_op(spec),), ("x",), ("y",))


def inputs_of(graph: ir.Graph, random: Random) -> Codes:
    """One sample of input codes: mostly random, sometimes all at one end of the range."""
    shape = (1, *graph["x"].shape)
    drawn = random.random()
    if drawn < 0.1:
        return np.full(shape, -128, np.int8)
    if drawn < 0.2:
        return np.full(shape, 127, np.int8)
    return random.integers(-128, 128, shape).astype(np.int8)


def _pair(random: Random, choices: tuple[int, ...], equal: float) -> Pair:
    first, second = (int(value) for value in random.choice(choices, 2))
    return (first, first) if random.random() < equal else (first, second)


def drawn_spec(random: Random) -> Spec:
    """Any operator that the DSP kernels should take, small."""
    kind = str(random.choice(["conv", "conv", "conv", "depthwise", "depthwise", "fc"]))
    activations = [*Activation, Activation.RELU, Activation.NONE]
    zero = (-128, 127, 0, int(random.integers(-128, 128)))
    shared: dict[str, Any] = {
        "activation": activations[int(random.integers(len(activations)))],
        "bits": int(random.choice([8, 4])),
        "zeros": _pair(random, zero, 0.1),
        "fill": str(random.choice(["random", "random", "highest", "lowest", "extremes"])),
        "multiplier": float(2.0 ** random.integers(-22, 1)) if random.random() < 0.2 else None,
        "per_channel": bool(random.random() < 0.8),
    }
    if kind == "fc":
        source = (1, 1, int(random.choice([1, 1, 2, 5])), int(random.integers(1, 140)))
        return Spec(kind, source, int(random.integers(1, 40)), **shared)
    while True:
        height, width = (int(value) for value in random.integers(1, 12, 2))
        channels = int(random.choice([1, 2, 3, 4, 5, 8, 12, 16]))
        usual = (1, 1) if kind == "conv" else (3, 3)
        kernel = usual if random.random() < 0.4 else _pair(random, (1, 2, 3, 3, 4, 5), 0.5)
        padding = Padding(*(int(value) for value in random.choice([0, 0, 1, 2], 4)))
        spec = Spec(
            kind,
            (int(random.choice([1, 1, 1, 2])), height, width, channels),
            int(random.choice([1, 2, 3, 4, 5, 8, 11, 16])),
            kernel,
            _pair(random, (1, 1, 2, 3), 0.7),
            _pair(random, (1, 1, 1, 2), 0.7),
            NO_PADDING if kernel == (1, 1) and random.random() < 0.7 else padding,
            int(random.choice([1, 1, 1, 2, 3])),
            **shared,
        )
        if min(spec.result) > 0:
            return spec
