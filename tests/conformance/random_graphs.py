"""Random IntegerGraphs: every operator, format and shape that a target may meet, chained at random.

A seed is a graph: the same one everywhere, so a failing test names all there is to repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Graph, Op, Padding, Quantization, Tensor
from edgesmith.targets.graph.padding import output_size
from edgesmith.targets.graph.shapes import infer

Shape = tuple[int, ...]
_FIXED = {
    ir.Logistic: {DType.INT8: (1 / 256, -128), DType.INT16: (1 / 32768, 0)},
    ir.Softmax: {DType.INT8: (1 / 256, -128), DType.INT16: (1 / 32768, 0)},
    ir.Tanh: {DType.INT8: (1 / 128, 0), DType.INT16: (1 / 32768, 0)},
}


@dataclass
class _Growing:
    """A graph that grows by one operator at a time."""

    rng: np.random.Generator
    dtype: DType
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    made: list[str] = field(default_factory=list)  # activations, newest last

    @property
    def last(self) -> Tensor:
        return self.tensors[self.made[-1]]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def quantization(self) -> Quantization:
        scale = float(np.exp(self.rng.uniform(np.log(0.005), np.log(0.2))))
        if self.dtype is DType.INT16:
            return Quantization.per_tensor(scale / 256, 0)
        edge = self.chance(0.3)
        zero = int(self.rng.choice([-128, 127])) if edge else self.integer(-128, 127)
        return Quantization.per_tensor(scale, zero)

    def constant(self, name: str, tensor: Tensor) -> str:
        self.tensors[name] = replace(tensor, name=name)
        return name

    def add(self, op: Op, quantization: Quantization | None = None) -> None:
        operands = tuple(self.tensors[name] if name else None for name in op.inputs)
        shape = infer(op, operands)[0]
        chosen = quantization or self.quantization()
        self.tensors[op.output] = Tensor(op.output, shape, self.dtype, chosen)
        self.ops.append(op)
        self.made.append(op.output)

    def names(self) -> tuple[str, tuple[str, ...]]:
        """The next operator's name and outputs."""
        return f"op{len(self.ops)}", (f"t{len(self.ops)}",)

    def weights(self, shape: Shape, axis: int, reach: int) -> tuple[str, str]:
        """A weight and its bias; sums of `reach` products stay within int32."""
        index, source = len(self.ops), self.last
        kind = DType(self.rng.choice([DType.INT8, DType.INT8, DType.INT4, DType.INT2]))
        low = kind.qmin if self.chance(0.2) else -kind.qmax
        channels = shape[axis]
        per_channel = self.chance(0.7)
        scales = self.rng.uniform(0.2, 1.0, channels if per_channel else 1).astype(np.float32)
        scales /= np.float32(kind.qmax * math.sqrt(reach))
        zeros = np.zeros(scales.size, np.int64)
        codes = self.rng.integers(low, kind.qmax, shape, endpoint=True).astype(np.int8)
        weight = Tensor(
            "", shape, kind, Quantization(scales, zeros, axis if per_channel else None), codes
        )
        wide = DType.INT64 if self.dtype is DType.INT16 else DType.INT32
        biases = self.rng.integers(-20_000, 20_000, channels).astype(wide.numpy)
        quantized = Quantization(scales * source.q.scale, zeros, 0 if per_channel else None)
        bias = Tensor("", (channels,), wide, quantized, biases)
        return self.constant(f"w{index}", weight), self.constant(f"b{index}", bias)

    def activation(self) -> Activation:
        return Activation(
            self.rng.choice([Activation.NONE, Activation.NONE, Activation.RELU, Activation.RELU6])
        )


def _window(g: _Growing, size: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, dilation that fit some padding of at most the kernel less one."""
    kernel = (g.integer(1, min(4, size[0] + 1)), g.integer(1, min(4, size[1] + 1)))
    stride = (g.integer(1, 3), g.integer(1, 3))
    dilation = (g.integer(1, 2), g.integer(1, 2)) if g.chance(0.15) else (1, 1)
    return kernel, stride, dilation


def _padding(g: _Growing, kernel: tuple[int, int]) -> Padding:
    if g.chance(0.4):
        return Padding()
    high, wide = kernel[0] - 1, kernel[1] - 1
    return Padding(g.integer(0, high), g.integer(0, high), g.integer(0, wide), g.integer(0, wide))


def _conv(g: _Growing) -> bool:
    x = g.last
    if len(x.shape) != 4:
        return False
    kernel, stride, dilation = _window(g, x.shape[1:3])
    padding = _padding(g, kernel)
    if min(output_size((x.shape[1], x.shape[2]), kernel, stride, padding, dilation)) < 1:
        return False
    groups = 2 if x.shape[3] % 2 == 0 and g.chance(0.15) else 1
    outputs = g.integer(1, 9) * groups
    name, made = g.names()
    shape = (outputs, *kernel, x.shape[3] // groups)
    names = g.weights(shape, 0, math.prod(shape[1:]))
    bias = names[1] if g.chance(0.9) else ""
    op = ir.Conv2D(
        name, (x.name, names[0], bias), made, stride, dilation, padding, groups, g.activation()
    )
    g.add(op)
    return True


def _depthwise(g: _Growing) -> bool:
    x = g.last
    if len(x.shape) != 4:
        return False
    kernel, stride, dilation = _window(g, x.shape[1:3])
    if g.chance(0.5):
        kernel, dilation = (3, 3), (1, 1)
        stride = (1, 1) if g.chance(0.5) else (2, 2)
    padding = _padding(g, kernel)
    if min(output_size((x.shape[1], x.shape[2]), kernel, stride, padding, dilation)) < 1:
        return False
    multiplier = g.integer(2, 3) if g.chance(0.2) else 1
    name, made = g.names()
    names = g.weights((1, *kernel, x.shape[3] * multiplier), 3, math.prod(kernel))
    op = ir.DepthwiseConv2D(
        name, (x.name, *names), made, stride, dilation, padding, multiplier, g.activation()
    )
    g.add(op)
    return True


def _fully_connected(g: _Growing) -> bool:
    x = g.last
    keep = len(x.shape) > 1 and g.chance(0.5)
    depth = x.shape[-1] if keep else x.elements
    if depth > 400:
        return False
    name, made = g.names()
    names = g.weights((g.integer(1, 12), depth), 0, depth)
    g.add(ir.FullyConnected(name, (x.name, *names), made, g.activation(), keep))
    return True


def _binary(g: _Growing) -> bool:
    x = g.last
    kind = (ir.Add, ir.Add, ir.Sub, ir.Mul)[g.integer(0, 3)]
    same = [each for each in g.made if g.tensors[each].shape == x.shape]
    name, made = g.names()
    if g.chance(0.3):
        shape = tuple(size if g.chance(0.5) else 1 for size in x.shape)
        codes = g.rng.integers(g.dtype.qmin, g.dtype.qmax, shape, endpoint=True)
        tensor = Tensor("", shape, g.dtype, g.quantization(), codes.astype(g.dtype.numpy))
        other = g.constant(f"c{len(g.ops)}", tensor)
    else:
        other = str(g.rng.choice(same))
    pair = (x.name, other) if g.chance(0.5) else (other, x.name)
    g.add(kind(name, pair, made, g.activation()))
    return True


def _pool(g: _Growing) -> bool:
    x = g.last
    if len(x.shape) != 4:
        return False
    kernel, stride, _ = _window(g, x.shape[1:3])
    kind = ir.AveragePool2D if g.chance(0.5) else ir.MaxPool2D
    # Padding that is neither SAME nor VALID has no meaning for averages in most runtimes.
    padding = Padding() if kind is ir.AveragePool2D else _padding(g, kernel)
    if min(output_size((x.shape[1], x.shape[2]), kernel, stride, padding, (1, 1))) < 1:
        return False
    name, made = g.names()
    g.add(kind(name, (x.name,), made, kernel, stride, padding, g.activation()), x.q)
    return True


def _mean(g: _Growing) -> bool:
    x = g.last
    if len(x.shape) < 3:
        return False
    axes = (1, 2) if len(x.shape) == 4 else (1,)
    name, made = g.names()
    g.add(ir.Mean(name, (x.name,), made, axes, g.chance(0.7)))
    return True


def _unary(g: _Growing) -> bool:
    x = g.last
    kinds: list[type[Op]] = [ir.Relu, ir.Clip, ir.Logistic, ir.Tanh, ir.Softmax, ir.Gelu]
    kinds += [ir.HardSwish, ir.Quantize] if g.dtype is DType.INT8 else [ir.Quantize]
    kind = kinds[g.integer(0, len(kinds) - 1)]
    name, made = g.names()
    fixed = _FIXED.get(kind)
    if fixed is not None:
        g.add(kind(name, (x.name,), made), Quantization.per_tensor(*fixed[g.dtype]))
    elif kind is ir.Clip:
        scale = float(x.q.scale[0])
        g.add(ir.Clip(name, (x.name,), made, -20 * scale, 60 * scale), x.q)
    elif kind is ir.Relu:
        g.add(ir.Relu(name, (x.name,), made), x.q)
    else:
        g.add(kind(name, (x.name,), made))
    return True


def _layer_norm(g: _Growing) -> bool:
    x = g.last
    if x.shape[-1] < 2:
        return False
    channels, index = x.shape[-1], len(g.ops)
    kind = DType.INT16 if g.dtype is DType.INT16 or g.chance(0.5) else DType.INT8
    gains = np.rint(g.rng.uniform(0.5, 1.5, channels) * (kind.qmax / 1.5)).astype(kind.numpy)
    shifts = g.rng.integers(-(1 << 23), 1 << 23, channels).astype(np.int32)
    gamma = Tensor("", (channels,), kind, Quantization.per_tensor(1.5 / kind.qmax), gains)
    beta = Tensor("", (channels,), DType.INT32, Quantization.per_tensor(2.0**-23), shifts)
    names = g.constant(f"g{index}", gamma), g.constant(f"s{index}", beta)
    name, made = g.names()
    g.add(ir.LayerNorm(name, (x.name, *names), made), Quantization.per_tensor(4 / g.dtype.qmax))
    return True


def _concat(g: _Growing) -> bool:
    x = g.last
    axis = g.integer(0, len(x.shape) - 1)
    if x.shape[axis] > 12 or axis == 0:
        return False
    name, made = g.names()
    g.add(ir.Concat(name, (x.name, x.name), made, axis), x.q)
    return True


def _movement(g: _Growing) -> bool:
    x = g.last
    name, made = g.names()
    rank = len(x.shape)
    which = g.integer(0, 3)
    if which == 0:
        axes = tuple(int(axis) for axis in g.rng.permutation(np.arange(1, rank)))
        g.add(ir.Transpose(name, (x.name,), made, (0, *axes)), x.q)
    elif which == 1:
        moved = (1, *reversed(x.shape[1:])) if g.chance(0.7) else (1, x.elements)
        g.add(ir.Reshape(name, (x.name,), made, moved), x.q)
    elif which == 2:
        before = (0, *(g.integer(0, 2) for _ in range(rank - 1)))
        after = (0, *(g.integer(0, 2) for _ in range(rank - 1)))
        g.add(ir.Pad(name, (x.name,), made, before, after), x.q)
    else:
        begin = (0, *(g.integer(0, (size - 1) // 2) for size in x.shape[1:]))
        stride = (1, *(g.integer(1, 2) for _ in range(rank - 1)))
        g.add(ir.StridedSlice(name, (x.name,), made, begin, x.shape, stride), x.q)
    return True


def _resize(g: _Growing) -> bool:
    x = g.last
    if len(x.shape) != 4 or x.elements > 400:
        return False
    name, made = g.names()
    size = (g.integer(1, 2 * x.shape[1]), g.integer(1, 2 * x.shape[2]))
    if g.dtype is DType.INT16 or g.chance(0.5):
        g.add(ir.ResizeNearest(name, (x.name,), made, size), x.q)
    else:
        g.add(ir.ResizeBilinear(name, (x.name,), made, size), x.q)
    return True


def _matmul(g: _Growing) -> bool:
    x = g.last
    if len(x.shape) < 3 or x.elements > 600:
        return False
    name, made = g.names()
    g.add(ir.BatchMatMul(name, (x.name, x.name), made, adjoint_y=True))
    return True


_STEPS: tuple[tuple[Callable[[_Growing], bool], float], ...] = (
    (_conv, 4),
    (_depthwise, 3),
    (_fully_connected, 1.5),
    (_binary, 3),
    (_pool, 1.5),
    (_mean, 0.5),
    (_unary, 2.5),
    (_layer_norm, 0.7),
    (_concat, 1),
    (_movement, 2),
    (_resize, 0.7),
    (_matmul, 0.7),
)


def random_graph(seed: int) -> Graph:
    """A graph of 2 to 8 operators, before legalization."""
    rng = np.random.default_rng([seed, 0xED6E])
    dtype = DType.INT16 if rng.random() < 0.2 else DType.INT8
    g = _Growing(rng, dtype)
    shape = (1, g.integer(1, 9), g.integer(1, 9), g.integer(1, 9))
    g.tensors["x"] = Tensor("x", shape, dtype, g.quantization())
    g.made.append("x")
    weights = np.array([weight for _, weight in _STEPS])
    wanted = g.integer(2, 8)
    for _ in range(8 * wanted):
        step = _STEPS[int(rng.choice(len(_STEPS), p=weights / weights.sum()))][0]
        step(g)
        if len(g.ops) >= wanted or g.last.elements > 4000:
            break
    used = {name for op in g.ops for name in op.inputs}
    outputs = tuple(op.output for op in g.ops if op.output not in used)
    return Graph(f"random-{seed}", g.tensors, tuple(g.ops), ("x",), outputs)


def random_inputs(graph: Graph, seed: int, samples: int = 2) -> list[np.ndarray]:
    """Random codes, and the extremes, [samples + 2, *shape] per input."""
    rng = np.random.default_rng([seed, 1])
    found = []
    for name in graph.inputs:
        tensor = graph[name]
        low, high = tensor.dtype.qmin, tensor.dtype.qmax
        codes = rng.integers(low, high, (samples + 2, *tensor.shape), endpoint=True)
        codes[-2], codes[-1] = low, high
        found.append(codes.astype(tensor.dtype.numpy))
    return found
