"""Random IntegerGraphs: every operator, format and shape that a target may meet, at random.

A seed is a graph: the same one everywhere, so a failing test names all there is to repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Op, Quantization, Tensor
from tests.conformance.growing import MOST_ELEMENTS, Growing
from tests.conformance.growing_windows import conv, depthwise, pool

_FIXED = {
    ir.Logistic: {DType.INT8: (1 / 256, -128), DType.INT16: (1 / 32768, 0)},
    ir.Softmax: {DType.INT8: (1 / 256, -128), DType.INT16: (1 / 32768, 0)},
    ir.Tanh: {DType.INT8: (1 / 128, 0), DType.INT16: (1 / 32768, 0)},
}


def _fully_connected(g: Growing) -> bool:
    x = g.x
    keep = len(x.shape) > 1 and g.chance(0.5)
    depth = x.shape[-1] if keep else x.elements // x.shape[0]
    if depth > 400:
        return False
    name, made = g.names()
    names = g.weights((g.integer(1, 12), depth), 0, depth)
    g.add(ir.FullyConnected(name, (x.name, *names), made, g.activation(), keep))
    return True


def _binary(g: Growing) -> bool:
    x = g.x
    kind = g.pick((ir.Add, ir.Add, ir.Sub, ir.Mul))
    name, made = g.names()
    if g.chance(0.3):
        other = g.constant_like(tuple(size if g.chance(0.5) else 1 for size in x.shape))
    else:
        other = g.pick(g.others({x.shape})).name
    pair = (x.name, other) if g.chance(0.5) else (other, x.name)
    g.add(kind(name, pair, made, g.activation()))
    return True


def _mean(g: Growing) -> bool:
    x = g.x
    axes = tuple(axis for axis in range(1, len(x.shape)) if g.chance(0.6))
    if not axes:
        return False
    name, made = g.names()
    g.add(ir.Mean(name, (x.name,), made, axes, len(axes) > len(x.shape) - 2 or g.chance(0.5)))
    return True


def _unary(g: Growing) -> bool:
    x = g.x
    kinds: list[type[Op]] = [ir.Relu, ir.Clip, ir.Logistic, ir.Tanh, ir.Softmax, ir.Gelu]
    kinds += [ir.HardSwish, ir.Quantize] if g.dtype is DType.INT8 else [ir.Quantize]
    kind = g.pick(kinds)
    name, made = g.names()
    operands = (x.name,)
    fixed = _FIXED.get(kind)
    if kind is ir.Softmax:
        op: Op = ir.Softmax(name, operands, made, g.pick((1.0, 1.0, 0.5, 2.0)))
    elif kind is ir.Clip:
        scale = float(x.q.scale[0])
        op = ir.Clip(name, operands, made, -20 * scale, 60 * scale)
    elif kind is ir.Gelu:
        op = ir.Gelu(name, operands, made, g.chance(0.5))
    else:
        op = kind(name, operands, made)
    if fixed is not None:
        g.add(op, g.mostly(Quantization.per_tensor(*fixed[g.dtype])))
    else:
        g.add(op, g.mostly(x.q) if kind in (ir.Clip, ir.Relu) else None)
    return True


def _retype(g: Growing) -> bool:
    """From here on in the other activation type: what "mixed per layer" means."""
    name, made = g.names()
    other = DType.INT8 if g.dtype is DType.INT16 else DType.INT16
    g.add(ir.Quantize(name, (g.current,), made), dtype=other)
    return True


def _layer_norm(g: Growing) -> bool:
    x = g.x
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


def _concat(g: Growing) -> bool:
    """Of 2 to 12 tensors, some of them several times, some constant."""
    x = g.x
    axis = g.integer(0 if g.chance(0.1) else min(1, len(x.shape) - 1), len(x.shape) - 1)
    around = (x.shape[:axis], x.shape[axis + 1 :])
    fitting = [t for t in g.others() if (t.shape[:axis], t.shape[axis + 1 :]) == around]
    fitting = [each for each in fitting if len(each.shape) == len(x.shape)]
    count = g.integer(2, 12) if g.chance(0.3) else g.integer(2, 4)
    chosen = [x.name, *(g.pick(fitting).name for _ in range(count - 1))]
    if g.chance(0.15):
        chosen[g.integer(1, count - 1)] = g.constant_like(x.shape)
    g.rng.shuffle(chosen)
    if sum(g.tensors[each].elements for each in chosen) > MOST_ELEMENTS // 2:
        return False
    name, made = g.names()
    written = axis - len(x.shape) if g.chance(0.3) else axis
    g.add(ir.Concat(name, tuple(chosen), made, written), g.mostly(x.q))
    return True


def _transpose(g: Growing) -> bool:
    first = 0 if g.chance(0.15) else 1
    axes = g.rng.permutation(np.arange(first, len(g.x.shape)))
    order = (*range(first), *(int(axis) for axis in axes))
    name, made = g.names()
    g.add(ir.Transpose(name, (g.current,), made, order), g.mostly(g.x.q))
    return True


def _reshape(g: Growing) -> bool:
    batch, *rest = g.x.shape
    shape = (batch, *reversed(rest)) if g.chance(0.7) else (batch, math.prod(rest))
    name, made = g.names()
    g.add(ir.Reshape(name, (g.current,), made, shape), g.mostly(g.x.q))
    return True


def _pad(g: Growing) -> bool:
    rest = len(g.x.shape) - 1
    before = (0, *(g.integer(0, 2) for _ in range(rest)))
    after = (0, *(g.integer(0, 2) for _ in range(rest)))
    name, made = g.names()
    value = g.integer(g.dtype.qmin, g.dtype.qmax) if g.chance(0.2) else None
    # A code means another number in another scale, so that only real 0 may change its scale.
    quantization = g.mostly(g.x.q) if value is None else g.x.q
    g.add(ir.Pad(name, (g.current,), made, before, after, value), quantization)
    return True


def _slice(g: Growing) -> bool:
    shape = g.x.shape
    begin = (0, *(g.integer(0, (size - 1) // 2) for size in shape[1:]))
    end = (shape[0], *(g.integer((size + 1) // 2, size) for size in shape[1:]))
    stride = (1, *(g.integer(1, 2) for _ in shape[1:]))
    name, made = g.names()
    g.add(ir.StridedSlice(name, (g.current,), made, begin, end, stride), g.mostly(g.x.q))
    return True


def _resize(g: Growing) -> bool:
    x = g.x
    if len(x.shape) != 4 or x.elements > 400:
        return False
    name, made = g.names()
    size = (g.integer(1, 2 * x.shape[1]), g.integer(1, 2 * x.shape[2]))
    kind = ir.ResizeNearest if g.chance(0.5) else ir.ResizeBilinear
    corners, centers = g.pick(((False, False), (False, True), (True, False)))
    g.add(kind(name, (x.name,), made, size, corners, centers), g.mostly(x.q))
    return True


def _matmul(g: Growing) -> bool:
    """With another activation, a constant, or itself."""
    x = g.x
    if len(x.shape) < 2 or x.elements > 600:
        return False
    name, made = g.names()
    *batch, rows, inner = x.shape
    if g.chance(0.25):
        columns = g.integer(1, 8)
        g.add(ir.BatchMatMul(name, (x.name, g.constant_like((*batch, inner, columns))), made))
        return True
    found = []
    for y in g.others():
        if len(y.shape) == len(x.shape) and y.shape[:-2] == tuple(batch) and y.elements <= 600:
            adjoints = [(a, b) for a in (False, True) for b in (False, True)]
            sizes = {False: inner, True: rows}
            found += [(y.name, a, b) for a, b in adjoints if y.shape[-1 if b else -2] == sizes[a]]
    different = [each for each in found if each[0] != x.name]
    other, a, b = g.pick(different or found)
    g.add(ir.BatchMatMul(name, (x.name, other), made, a, b))
    return True


def _branch(g: Growing) -> bool:
    """Goes on from an earlier tensor; what was last becomes an output, or joins later."""
    g.current = g.pick(g.made)
    return True


_STEPS: tuple[tuple[Callable[[Growing], bool], float], ...] = (
    (conv, 4),
    (depthwise, 3),
    (_fully_connected, 1.5),
    (_binary, 3),
    (pool, 1.5),
    (_mean, 0.5),
    (_unary, 2.5),
    (_retype, 0.7),
    (_layer_norm, 0.7),
    (_concat, 1.2),
    (_transpose, 0.6),
    (_reshape, 0.5),
    (_pad, 0.5),
    (_slice, 0.5),
    (_resize, 0.7),
    (_matmul, 0.9),
    (_branch, 1.2),
)


def random_graph(seed: int) -> Graph:
    """A graph of 2 to 8 operators, before legalization."""
    rng = np.random.default_rng([seed, 0xED6E])
    g = Growing(rng)
    dtype = DType.INT16 if g.chance(0.2) else DType.INT8
    batch = g.integer(2, 3) if g.chance(0.15) else 1
    shape = (batch, g.integer(1, 9), g.integer(1, 9), g.integer(1, 9))
    for _ in range(2 if g.chance(0.25) else 1):
        g.add_input(shape, dtype)
    weights = np.array([weight for _, weight in _STEPS])
    wanted = g.integer(2, 8)
    for _ in range(8 * wanted):
        step = _STEPS[int(rng.choice(len(_STEPS), p=weights / weights.sum()))][0]
        step(g)
        if len(g.ops) >= wanted or g.x.elements > MOST_ELEMENTS:
            break
    return Graph(f"random-{seed}", g.tensors, tuple(g.ops), tuple(g.inputs), _outputs(g))


def _outputs(g: Growing) -> tuple[str, ...]:
    """All that no operator reads, often one that some do, which must outlive them; rarely twice."""
    used = {name for op in g.ops for name in op.inputs}
    last = tuple(op.output for op in g.ops if op.output not in used)
    inner = [op.output for op in g.ops if op.output in used]
    shown = (g.pick(inner), *last) if inner and g.chance(0.25) else last
    return (*shown, g.pick(shown)) if g.chance(0.05) else shown


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
