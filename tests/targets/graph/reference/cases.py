"""Random graphs of one operator other than convolutions and fully connected layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Graph, Op, Padding, Quantization, Tensor
from edgesmith.targets.graph.padding import output_size, same_padding
from tests.targets.graph.reference.draw import ACTIVATIONS, Draw, graph_of

FIXED_OUTPUTS: dict[type[Op], tuple[float, int]] = {
    ir.Softmax: (1 / 256, -128),
    ir.Logistic: (1 / 256, -128),
    ir.Tanh: (1 / 128, 0),
}
SYMMETRIC_OUTPUT = (1 / 32768, 0)


def batch_matmul_case(draw: Draw, dtype: DType) -> Graph:
    """Both operands may be transposed, the second a constant, and one batch axis 1."""
    rows, depth, columns = draw.integer(1, 5), draw.integer(1, 9), draw.integer(1, 5)
    batch = draw.integer(1, 3)
    batches = draw.pick([(batch, batch), (batch, batch), (batch, 1), (1, batch)])
    adjoint_x, adjoint_y = draw.pick([False, True]), draw.pick([False, True])
    x_matrix = (depth, rows) if adjoint_x else (rows, depth)
    y_matrix = (columns, depth) if adjoint_y else (depth, columns)
    x = draw.activation("x", (1, batches[0], *x_matrix), dtype)
    y = draw.activation("y", (1, batches[1], *y_matrix), dtype)
    if draw.integer(0, 2) == 0:
        y = Tensor("y", y.shape, dtype, y.quantization, draw.codes(y.shape, dtype))
    spread = float(x.q.scale[0] * y.q.scale[0]) * np.sqrt(depth) * (1 << (dtype.bits - 1)) / 3
    z = draw.activation("z", (1, batch, rows, columns), dtype, scale=spread)
    return graph_of(ir.BatchMatMul("bmm", ("x", "y"), ("z",), adjoint_x, adjoint_y), x, y, z)


def binary_case(draw: Draw, kind: Callable[..., Op], dtype: DType, *, constant: bool) -> Graph:
    full = (draw.integer(1, 2), draw.integer(1, 4), draw.integer(1, 4), draw.integer(1, 5))
    other = draw.pick(
        [full, (1, 1, 1, full[3]), (full[3],), (1, full[1], 1, full[3]), (1, 1, 1, 1)]
    )
    shapes = [full, other]
    x = draw.activation("x", shapes[0], dtype)
    y = draw.activation("y", shapes[1], dtype)
    if constant:
        y = Tensor("y", y.shape, dtype, y.quantization, draw.codes(y.shape, dtype))
    if kind is ir.Mul:
        scale = float(x.q.scale[0] * y.q.scale[0]) * (1 << (dtype.bits - 1))
    else:
        scale = float(max(x.q.scale[0], y.q.scale[0]))
    z = draw.activation("z", full, dtype, scale=scale * draw.pick([0.3, 0.9, 1.7, 2.5]))
    order = draw.pick([("x", "y"), ("y", "x")])
    return graph_of(kind("op", order, ("z",), draw.pick(ACTIVATIONS)), x, y, z)


def pool_case(draw: Draw, kind: Callable[..., Op], dtype: DType) -> Graph:
    size = draw.integer(4, 9), draw.integer(4, 9)
    kernel, stride = draw.pair(1, 4), draw.pair(1, 3)
    padding = draw.pick([Padding(), same_padding(size, kernel, stride)])
    depth = draw.integer(1, 5)
    x = draw.activation("x", (draw.integer(1, 2), *size, depth), dtype)
    out = output_size(size, kernel, stride, padding)
    y = Tensor("y", (x.shape[0], *out, depth), dtype, x.quantization)
    op = kind("pool", ("x",), ("y",), kernel, stride, padding, draw.pick(ACTIVATIONS))
    return graph_of(op, x, y)


def mean_case(draw: Draw, dtype: DType) -> Graph:
    shape = (draw.integer(1, 2), draw.integer(1, 9), draw.integer(1, 9), draw.integer(1, 6))
    axes = draw.pick([(1, 2), (1,), (2,), (3,), (1, 2, 3), (2, 3)])
    keep = draw.pick([False, True])
    kept = tuple(
        1 if axis in axes else size for axis, size in enumerate(shape) if keep or axis not in axes
    )
    x = draw.activation("x", shape, dtype)
    if draw.pick([False, True, True]):
        y = draw.activation("y", kept, dtype, scale=float(x.q.scale[0]) * draw.scale(0.2, 2))
    else:
        y = Tensor("y", kept, dtype, x.quantization)
    return graph_of(ir.Mean("mean", ("x",), ("y",), axes, keep), x, y)


def unary_case(
    draw: Draw, op: Op, dtype: DType, output: Quantization | None, low: float, high: float
) -> Graph:
    """One input and one output of the same shape; input scales between `low` and `high`."""
    shape = (draw.integer(1, 2), draw.integer(1, 6), draw.integer(20, 60))
    x = draw.activation("x", shape, dtype, scale=draw.scale(low, high))
    return graph_of(op, x, Tensor("y", shape, dtype, output or x.quantization))


def curve_case(draw: Draw, kind: type[Op], dtype: DType, *, power_of_two: bool = False) -> Graph:
    """Softmax, sigmoid or tanh."""
    op = kind("op", ("x",), ("y",))
    if isinstance(op, ir.Softmax):
        op = ir.Softmax("op", ("x",), ("y",), draw.pick([1.0, 1.0, 0.5]))
    output = FIXED_OUTPUTS[kind] if dtype is DType.INT8 else SYMMETRIC_OUTPUT
    low, high = (0.002, 1.0) if dtype is DType.INT8 else (2**-15, 2**-9)
    graph = unary_case(draw, op, dtype, Quantization.per_tensor(*output), low, high)
    if not power_of_two:
        return graph
    # Also where it is only taken for a power of two.
    near = 2.0 ** draw.integer(-14, -9) * draw.pick([1, 1 - 4e-4, 1 + 4e-4])
    narrow = Quantization.per_tensor(near)
    return graph.with_tensors(Tensor("x", graph["x"].shape, dtype, narrow))


def _rescaled(draw: Draw, graph: Graph, dtype: DType, low: float, high: float) -> Graph:
    """The same graph with another output scale, `low` to `high` times the input's."""
    scale = float(graph["x"].q.scale[0]) * draw.scale(low, high)
    y = draw.activation("y", graph["y"].shape, dtype, scale=scale)
    return graph.with_tensors(y)


def relu_case(draw: Draw, dtype: DType, activation: Activation, *, rescaled: bool) -> Graph:
    graph = unary_case(draw, ir.Relu("op", ("x",), ("y",), activation), dtype, None, 0.01, 0.1)
    return _rescaled(draw, graph, dtype, 0.3, 3) if rescaled else graph


def hard_swish_case(draw: Draw) -> Graph:
    graph = unary_case(draw, ir.HardSwish("op", ("x",), ("y",)), DType.INT8, None, 0.005, 0.2)
    return _rescaled(draw, graph, DType.INT8, 0.3, 3)


def clip_case(draw: Draw, dtype: DType) -> Graph:
    op = ir.Clip("op", ("x",), ("y",), -draw.scale(0.1, 2), draw.scale(0.1, 3))
    return unary_case(draw, op, dtype, None, 0.01, 0.1)


def requantize_case(draw: Draw, source: DType, target: DType) -> Graph:
    graph = unary_case(draw, ir.Quantize("op", ("x",), ("y",)), source, None, 0.01, 0.1)
    ratio = source.qmax / target.qmax
    return _rescaled(draw, graph, target, 0.01 * ratio, 3 * ratio)


def concat_case(draw: Draw, dtype: DType) -> Graph:
    quantization, axis = draw.quantization(dtype), draw.integer(1, 3)
    base = [1, *(draw.integer(1, 4) for _ in range(3))]

    def tensor(name: str, size: int) -> Tensor:
        shape = (*base[:axis], size, *base[axis + 1 :])
        return Tensor(name, shape, dtype, quantization)

    parts = [tensor(f"x{index}", draw.integer(1, 4)) for index in range(draw.integer(1, 3))]
    op = ir.Concat("op", tuple(part.name for part in parts), ("y",), axis)
    return graph_of(op, *parts, tensor("y", sum(part.shape[axis] for part in parts)))


def transpose_case(draw: Draw, dtype: DType) -> Graph:
    shape = tuple(draw.integer(1, 4) for _ in range(4))
    order = tuple(int(axis) for axis in draw.rng.permutation(4))
    x = draw.activation("x", shape, dtype)
    y = Tensor("y", tuple(shape[axis] for axis in order), dtype, x.quantization)
    return graph_of(ir.Transpose("op", ("x",), ("y",), order), x, y)


def pad_case(draw: Draw, dtype: DType) -> Graph:
    shape, before, after = (
        tuple(draw.integer(low, high) for _ in range(4)) for low, high in ((1, 4), (0, 2), (0, 2))
    )
    x = draw.activation("x", shape, dtype)
    padded = tuple(sum(sizes) for sizes in zip(shape, before, after, strict=True))
    value = draw.pick([None, draw.integer(-100, 100)])
    op = ir.Pad("op", ("x",), ("y",), before, after, value)
    return graph_of(op, x, Tensor("y", padded, dtype, x.quantization))


def slice_case(draw: Draw, dtype: DType) -> Graph:
    shape = tuple(draw.integer(2, 6) for _ in range(4))
    begin = tuple(draw.integer(0, size - 1) for size in shape)
    end = tuple(draw.integer(low + 1, size) for low, size in zip(begin, shape, strict=True))
    stride = tuple(draw.integer(1, 2) for _ in shape)
    x = draw.activation("x", shape, dtype)
    kept = tuple(len(range(*limits)) for limits in zip(begin, end, stride, strict=True))
    op = ir.StridedSlice("op", ("x",), ("y",), begin, end, stride)
    return graph_of(op, x, Tensor("y", kept, dtype, x.quantization))


def reshape_case(draw: Draw, dtype: DType) -> Graph:
    x = draw.activation("x", (1, 2, 3, 4), dtype)
    y = Tensor("y", (6, 4), dtype, x.quantization)
    return graph_of(ir.Reshape("op", ("x",), ("y",), (6, 4)), x, y)


def resize_case(draw: Draw, kind: Callable[..., Op], dtype: DType) -> Graph:
    x = draw.activation("x", (1, draw.integer(1, 7), draw.integer(1, 7), draw.integer(1, 4)), dtype)
    size = draw.pair(1, 9)
    corners, centers = draw.pick([(False, False), (True, False), (False, True)])
    y = Tensor("y", (1, *size, x.shape[3]), dtype, x.quantization)
    return graph_of(kind("op", ("x",), ("y",), size, corners, centers), x, y)
