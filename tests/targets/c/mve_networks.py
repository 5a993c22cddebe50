"""Networks of independent layers for the MVE kernels, and running them in the emulator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgesmith.pipeline.execution import execute_plan
from edgesmith.targets.c.program import Program
from edgesmith.targets.cortex_m55 import CortexM55
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Graph, Op, Padding, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.shapes import infer
from tests.targets.installed import need_tools

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 19, 32, 33)
ACTIVATIONS = (Activation.NONE, Activation.RELU, Activation.RELU6)
MOST_LAYERS = 8  # inputs and outputs that the harness takes


@dataclass(frozen=True, eq=False)
class Layer:
    """One operator and its tensors, input first."""

    op: Op
    tensors: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Weights:
    """What a layer's weight and bias hold, with one multiplier per entry of `scale`."""

    codes: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    bits: int = 8
    axis: int = 0
    wide_bias: bool = True  # beside int16 activations: int64


def layer(
    index: int,
    op: Op,
    source: tuple[int, ...],
    weights: Weights,
    zeros: tuple[int, int] = (0, 0),
    steps: tuple[float, float] = (0.05, 0.05),
    activations: DType = DType.INT8,
) -> Layer:
    """An operator on its own input.

    Args:
        op: without inputs and outputs.
        source: the input's shape.
        zeros, steps: zero points and scales of input and output.
        activations: their type.
    """
    names = [f"{kind}{index}" for kind in ("x", "w", "b", "y")]
    x, w, b, y = names
    scale = np.asarray(weights.scale, np.float32)
    per_channel = scale.size > 1
    axis = weights.axis if per_channel else None
    dtype = DType.INT8 if weights.bits == 8 else DType.INT4
    none = np.zeros(scale.size, np.int64)
    wide = activations is DType.INT16 and weights.wide_bias
    bias_type = DType.INT64 if wide else DType.INT32
    tensors = {
        x: Tensor(x, source, activations, Quantization.per_tensor(steps[0], zeros[0])),
        w: Tensor(w, weights.codes.shape, dtype, Quantization(scale, none, axis), weights.codes),
        b: Tensor(
            b,
            weights.bias.shape,
            bias_type,
            Quantization(scale * np.float32(steps[0]), none, 0 if per_channel else None),
            weights.bias.astype(bias_type.numpy),
        ),
    }
    whole = replace(op, name=f"op{index}", inputs=(x, w, b), outputs=(y,))
    shape = infer(whole, (tensors[x], tensors[w], tensors[b]))[0]
    tensors[y] = Tensor(y, shape, activations, Quantization.per_tensor(steps[1], zeros[1]))
    return Layer(whole, tensors)


def drawn_layer(index: int, kind: type[Op], rng: np.random.Generator) -> Layer:
    """A convolution of any kind, size and format; often at the ends of its range."""
    c, o = (int(rng.choice(CHANNELS)) for _ in range(2))
    height, width = (int(n) for n in rng.integers(1, 12, 2))
    window = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    if rng.random() < 0.4:
        window = (3, 3)
    dilation = (1, 1) if rng.random() < 0.6 else (int(rng.integers(1, 3)), 2)
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    padding = Padding(*(int(n) for n in rng.integers(0, 3, 4)))
    missing = (reach[0] - height, reach[1] - width)
    padding = replace(
        padding,
        bottom=max(padding.bottom, missing[0] - padding.top),
        right=max(padding.right, missing[1] - padding.left),
    )
    fields: dict[str, Any] = {
        "stride": tuple(int(n) for n in rng.integers(1, 4, 2)),
        "dilation": dilation,
        "padding": padding,
        "activation": ACTIVATIONS[rng.integers(3)],
    }
    batch = int(rng.integers(1, 3))
    bits = 4 if rng.random() < 0.3 else 8
    if kind is ir.FullyConnected:
        shape: tuple[int, ...] = (o, c * height)
        source: tuple[int, ...] = (batch * width, c * height)
        fields = {"activation": fields["activation"]}
    elif kind is ir.Conv2D:
        if rng.random() < 0.4:  # pointwise
            window, fields = (1, 1), {"activation": fields["activation"]}
        shape, source = (o, *window, c), (batch, height, width, c)
    else:
        o = c
        shape, source = (1, *window, c), (batch, height, width, c)
    axis = 3 if kind is ir.DepthwiseConv2D else 0
    weights = _drawn_weights(rng, shape, axis, o, bits)
    zeros = tuple(int(n) for n in rng.choice((-128, -5, 0, 3, 127), 2))
    step = float(rng.choice((0.002, 0.02, 0.2)))
    op = replace(kind("", (), ("",)), **fields)
    if bits == 8 and kind is not ir.DepthwiseConv2D and rng.random() < 0.25:
        weights = replace(weights, wide_bias=kind is ir.Conv2D or rng.random() < 0.5)
        return layer(index, op, source, weights, (0, 0), (1e-4, step / 128), DType.INT16)
    return layer(index, op, source, weights, (zeros[0], zeros[1]), (0.05, step))


def _drawn_weights(
    rng: np.random.Generator, shape: tuple[int, ...], axis: int, channels: int, bits: int
) -> Weights:
    limit = (1 << (bits - 1)) - 1
    codes = rng.integers(-limit - (bits == 4), limit, shape, endpoint=True).astype(np.int8)
    if rng.random() < 0.3:
        codes = rng.choice([-limit, limit], shape).astype(np.int8)
    count = channels if rng.random() < 0.7 else 1
    low = float(rng.choice((1e-4, 0.3)))
    scale = rng.uniform(low, 4 * low, count) / limit
    wide = int(rng.choice((100, 1 << 20)))
    return Weights(codes, rng.integers(-wide, wide, channels), scale, bits, axis)


def network(layers: Iterable[Layer]) -> Graph:
    """The layers side by side."""
    found = list(layers)
    assert len(found) <= MOST_LAYERS
    tensors = {name: tensor for each in found for name, tensor in each.tensors.items()}
    inputs = tuple(each.op.inputs[0] for each in found)
    outputs = tuple(each.op.outputs[0] for each in found)
    return Graph("layers", tensors, tuple(each.op for each in found), inputs, outputs)


def codes_of(graph: Graph, rng: np.random.Generator, samples: int) -> list[np.ndarray]:
    """Input codes: random ones, and the ends of the range."""
    found = []
    for name in graph.inputs:
        shape = (samples, *graph[name].shape)
        dtype = graph[name].dtype
        codes = rng.integers(dtype.qmin, dtype.qmax, shape, endpoint=True)
        codes[-1] = rng.choice([dtype.qmin, dtype.qmax], shape[1:])
        found.append(codes.astype(dtype.numpy))
    return found


def check_exact(
    graph: Graph, inputs: list[np.ndarray], folder: Path, plan: str = "speed"
) -> Program:
    """Build for Cortex-M55, run, and compare every byte with the reference executor."""
    target = CortexM55.with_options("cortex-m55", {"plan": plan})()
    assert isinstance(target, CortexM55)
    need_tools(target)
    products = execute_plan(target.build(graph), folder)
    found = target.run(products, inputs)
    wanted = execute(graph, inputs, PROFILES["tflite-micro"])
    for op, name in zip(graph.ops, graph.outputs, strict=True):
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=f"{op}")
    return target.compiled(products).program


def functions(program: Program) -> Iterator[str]:
    """The kernels that a program calls."""
    return (call.function for call in program.calls)
