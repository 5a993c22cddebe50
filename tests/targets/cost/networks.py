"""Networks for the cost model: small fixed ones, and the same network calibrated otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Quantization, Tensor
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.mcu.target import MicrocontrollerTarget
from tests.conformance.random_graphs import random_graph


def activation(name: str, shape: tuple[int, ...], scale: float = 0.05, zero: int = 3) -> Tensor:
    return Tensor(name, shape, DType.INT8, Quantization.per_tensor(scale, zero))


def convolution(seed: int = 0, channels: int = 8, size: int = 8) -> Graph:
    """A 3x3 convolution on [1, size, size, 4], its scales and weights drawn from a seed."""
    rng = np.random.default_rng(seed)
    scale, made = rng.uniform(0.01, 0.1, 2)
    x = activation("x", (1, size, size, 4), float(scale), int(rng.integers(-128, 128)))
    scales = rng.uniform(0.001, 0.01, channels).astype(np.float32)
    codes = rng.integers(-127, 128, (channels, 3, 3, 4)).astype(np.int8)
    weight = Tensor("w", codes.shape, DType.INT8, Quantization.per_channel(scales, 0), codes)
    bias = Tensor(
        "b",
        (channels,),
        DType.INT32,
        Quantization.per_channel(scales * x.q.scale, 0),
        rng.integers(-1000, 1000, channels).astype(np.int32),
    )
    y = activation("y", (1, size - 2, size - 2, channels), float(made), int(rng.integers(-50, 50)))
    tensors = {each.name: each for each in (x, weight, bias, y)}
    op = ir.Conv2D("conv", ("x", "w", "b"), ("y",))
    return Graph("convolution", tensors, (op,), ("x",), ("y",))


def recalibrated(graph: Graph, seed: int) -> Graph:
    """The same operators and shapes with other scales, zero points and weights.

    Tensors that shared a quantization (as pooling demands) still do; fixed ones (of softmax)
    and constants' value ranges stay.
    """
    rng = np.random.default_rng([seed, 0xCA1])
    fixed = {op.output for op in graph.ops if op.kind in {"Softmax", "Logistic", "Tanh"}}
    moved: dict[tuple[float, int], Quantization] = {
        (float(graph[name].q.scale[0]), int(graph[name].q.zero_point[0])): graph[name].q
        for name in fixed
    }
    tensors = {}
    for name, tensor in graph.tensors.items():
        quantization, data = tensor.q, tensor.data
        if data is not None and data.dtype == np.int8 and data.ndim > 1:
            low = int(data.min())  # the most negative code changes kernels
            data = rng.integers(low, max(int(data.max()), low + 1), data.shape, endpoint=True)
            data = data.astype(np.int8)
            data.flat[0] = low
        if not tensor.is_constant:
            old = float(quantization.scale[0]), int(quantization.zero_point[0])
            zero = int(rng.integers(-100, 100)) if tensor.dtype is DType.INT8 else 0
            other = Quantization.per_tensor(old[0] * float(rng.uniform(0.8, 1.25)), zero)
            quantization = moved.setdefault(old, other)
        tensors[name] = replace(tensor, quantization=quantization, data=data)
    return replace(graph, tensors=_with_bias_scales(graph, tensors))


def _with_bias_scales(graph: Graph, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Biases have the product of their input's and weight's scales."""
    found = dict(tensors)
    for op in graph.ops:
        if op.kind not in {"Conv2D", "DepthwiseConv2D", "FullyConnected"} or not op.inputs[2]:
            continue
        x, weight, bias = (tensors[name] for name in op.inputs[:3])
        scale = x.q.scale * weight.q.scale
        found[bias.name] = replace(
            bias, quantization=replace(bias.q, scale=scale.astype(np.float32))
        )
    return found


def random_network(seed: int, target: MicrocontrollerTarget) -> Graph:
    """A random graph as the target takes it."""
    return legalize(random_graph(seed), target.describe())
