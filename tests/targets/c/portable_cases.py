"""Random graphs of one operator over more ranks, sizes and scales than runtimes take."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Op, Padding, Quantization, Tensor
from edgesmith.targets.graph.shapes import infer
from tests.targets.graph.reference.draw import ACTIVATIONS, Draw, graph_of

Shape = tuple[int, ...]
MOST_ELEMENTS = 4000


def shape_of(draw: Draw, low: int, high: int, most: int = 9) -> Shape:
    """`low` to `high` axes with few enough elements, many of them of size 1."""
    while True:
        rank = draw.integer(low, high)
        shape = tuple(draw.pick([1, draw.integer(1, most)]) for _ in range(rank))
        if math.prod(shape) <= MOST_ELEMENTS:
            return shape


def dtype_of(draw: Draw) -> DType:
    found: DType = draw.pick([DType.INT8, DType.INT16])
    return found


def result(
    op: Op, name: str, *operands: Tensor, quantization: Quantization | None = None
) -> Tensor:
    """The output of an operator, by default on the first operand's scale."""
    (shape,) = infer(op, operands)
    return Tensor(name, shape, operands[0].dtype, quantization or operands[0].quantization)


def moved(op: Op, x: Tensor) -> Graph:
    return graph_of(op, x, result(op, "y", x))


def _broadcast(draw: Draw) -> tuple[Shape, Shape]:
    """Two shapes that fit: equal, with axes of 1 or without leading axes, or one a scalar."""
    wanted = shape_of(draw, 1, 5, 12)
    kind = draw.integer(0, 4)
    if kind == 0:
        return wanted, (1,)
    if kind == 1:
        return wanted, wanted
    first, second = (
        tuple(draw.pick([1, size, size]) for size in wanted)[draw.pick([0, 0, 1]) :]
        for _ in range(2)
    )
    return first, second


def _scales(draw: Draw) -> tuple[float, float, float]:
    """Of two operands and the result: usual ones, powers of two, or absurd ones."""
    kind = draw.integer(0, 5)
    if kind == 0:
        return draw.scale(1e-3, 0.1), draw.scale(1e-3, 0.1), draw.scale(1e-9, 1e3)
    if kind in (1, 2):
        first, second, output = (2.0 ** draw.integer(-6, -4) for _ in range(3))
        return first, second, output
    base = draw.scale(1e-3, 0.1)
    return base, base * draw.scale(0.2, 3), base * draw.scale(0.3, 3)


def binary(draw: Draw, kind: Callable[..., Op]) -> Graph:
    """Any broadcasting of up to five axes."""
    dtype, shapes, scales = dtype_of(draw), _broadcast(draw), _scales(draw)
    if kind is ir.Mul:
        scales = (*scales[:2], scales[0] * scales[1] * (1 << (dtype.bits - 1)))
    x, y = (
        draw.activation(name, shape, dtype, scale=scale)
        for name, shape, scale in zip("xy", shapes, scales[:2], strict=True)
    )
    if draw.integer(0, 3) == 0:
        y = Tensor("y", y.shape, dtype, y.quantization, draw.codes(y.shape, dtype))
    op = kind("op", draw.pick([("x", "y"), ("x", "y"), ("y", "x")]), ("z",), draw.pick(ACTIVATIONS))
    operands = (x, y) if op.inputs[0] == "x" else (y, x)
    quantization = draw.quantization(dtype, scales[2])
    return graph_of(op, x, y, result(op, "z", *operands, quantization=quantization))


def pool(draw: Draw, kind: Callable[..., Op]) -> Graph:
    """Any padding below the kernel's size; now and then a window of more than 256 positions."""
    dtype = dtype_of(draw)
    kernel = draw.pair(1, 5)
    size = draw.pair(5, 9)
    if draw.integer(0, 7) == 0:
        size = kernel = (draw.integer(15, 19), 19)
    padding = Padding(
        *(draw.integer(0, edge - 1) for edge in (kernel[0], kernel[0], kernel[1], kernel[1]))
    )
    padding = draw.pick([Padding(), padding])
    x = draw.activation("x", (draw.integer(1, 2), *size, draw.integer(1, 13)), dtype)
    return moved(
        kind("op", ("x",), ("y",), kernel, draw.pair(1, 3), padding, draw.pick(ACTIVATIONS)), x
    )


def mean(draw: Draw) -> Graph:
    """Any subset of axes, up to thousands of elements."""
    dtype = dtype_of(draw)
    shape = shape_of(draw, 1, 5, 24)
    axes = tuple(axis for axis in range(len(shape)) if draw.integer(0, 1))
    x = draw.activation("x", shape, dtype)
    op = ir.Mean("op", ("x",), ("y",), axes, draw.pick([False, True]))
    scale = float(x.q.scale[0]) * draw.scale(0.01, 5)
    return graph_of(op, x, result(op, "y", x, quantization=draw.quantization(dtype, scale)))


def concat(draw: Draw) -> Graph:
    dtype, shape = dtype_of(draw), shape_of(draw, 1, 5, 5)
    axis, quantization = draw.integer(-len(shape), len(shape) - 1), draw.quantization(dtype)
    parts = []
    for index in range(draw.integer(1, 8)):
        sizes = list(shape)
        sizes[axis] = draw.integer(1, 5)
        parts.append(Tensor(f"x{index}", tuple(sizes), dtype, quantization))
    op = ir.Concat("op", tuple(part.name for part in parts), ("y",), axis)
    return graph_of(op, *parts, result(op, "y", *parts))


def transpose(draw: Draw) -> Graph:
    x = draw.activation("x", shape_of(draw, 1, 5, 7), dtype_of(draw))
    order = tuple(int(axis) for axis in draw.rng.permutation(len(x.shape)))
    return moved(ir.Transpose("op", ("x",), ("y",), order), x)


def pad(draw: Draw) -> Graph:
    x = draw.activation("x", shape_of(draw, 1, 4, 6), dtype_of(draw))
    before, after = (
        tuple(draw.pick([0, 0, draw.integer(0, 3)]) for _ in x.shape) for _ in range(2)
    )
    value = draw.pick([None, draw.integer(x.dtype.qmin, x.dtype.qmax)])
    return moved(ir.Pad("op", ("x",), ("y",), before, after, value), x)


def strided_slice(draw: Draw) -> Graph:
    x = draw.activation("x", shape_of(draw, 1, 5, 9), dtype_of(draw))
    limits = []
    for size in x.shape:
        begin = draw.pick([0, draw.integer(0, size - 1)])
        limits.append((begin, draw.pick([size, draw.integer(begin + 1, size)]), draw.integer(1, 3)))
    return moved(ir.StridedSlice("op", ("x",), ("y",), *zip(*limits, strict=True)), x)


def softmax(draw: Draw) -> Graph:
    """Rows up to 900 elements; in flat ones an int8 share is far below half a code."""
    dtype = dtype_of(draw)
    shape = (*shape_of(draw, 0, 2, 3), draw.pick([1, draw.integer(1, 20), draw.integer(20, 900)]))
    low, high = (1e-5, 1.0) if dtype is DType.INT8 else (2**-17, 2**-8)
    x = draw.activation("x", shape, dtype, scale=draw.scale(low, high))
    fixed = (1 / 256, -128) if dtype is DType.INT8 else (1 / 32768, 0)
    op = ir.Softmax("op", ("x",), ("y",), draw.pick([1.0, 0.3, 2.0]))
    return graph_of(op, x, result(op, "y", x, quantization=Quantization.per_tensor(*fixed)))


def curve(draw: Draw, kind: Callable[..., Op], int8: tuple[float, int]) -> Graph:
    dtype = dtype_of(draw)
    scale = draw.scale(1e-4, 1.0) if dtype is DType.INT8 else draw.scale(2**-18, 16)
    x = draw.activation("x", (draw.integer(1, 500),), dtype, scale=scale)
    fixed = int8 if dtype is DType.INT8 else (1 / 32768, 0)
    op = kind("op", ("x",), ("y",))
    return graph_of(op, x, result(op, "y", x, quantization=Quantization.per_tensor(*fixed)))


def gelu(draw: Draw) -> Graph:
    dtype = dtype_of(draw)
    x = draw.activation("x", (draw.integer(1, 500),), dtype, scale=draw.scale(1e-4, 0.2))
    op = ir.Gelu("op", ("x",), ("y",), draw.pick([False, True]))
    scale = float(x.q.scale[0]) * draw.scale(0.3, 3)
    return graph_of(op, x, result(op, "y", x, quantization=draw.quantization(dtype, scale)))


def layer_norm(draw: Draw) -> Graph:
    dtype = dtype_of(draw)
    depth = draw.pick([1, draw.integer(2, 20), draw.integer(20, 400)])
    x = draw.activation("x", (*shape_of(draw, 0, 2, 4), depth), dtype, scale=draw.scale(1e-4, 0.2))
    gamma_type = dtype_of(draw)
    unit = Quantization.per_tensor(draw.scale(0.2, 3) / gamma_type.qmax)
    gamma = Tensor("gamma", (depth,), gamma_type, unit, draw.codes((depth,), gamma_type))
    codes = draw.rng.integers(-(1 << 15), 1 << 15, depth).astype(np.int32)
    beta = Tensor("beta", (depth,), DType.INT32, Quantization.per_tensor(1e-4), codes)
    names = draw.pick([("x", "gamma", "beta"), ("x", "gamma")])
    op = ir.LayerNorm("op", names, ("y",), draw.pick([1e-5, 1e-3, 0.0]))
    scale = 3.0 / dtype.qmax * draw.scale(0.5, 2)
    y = Tensor("y", x.shape, dtype, draw.quantization(dtype, scale))
    return graph_of(op, x, gamma, beta, y)


def batch_matmul(draw: Draw) -> Graph:
    dtype = dtype_of(draw)
    rows, depth, columns = draw.integer(1, 9), draw.integer(1, 30), draw.integer(1, 12)
    batch = shape_of(draw, 0, 3, 3)
    adjoints = draw.pick([False, True]), draw.pick([False, True])
    operands = []
    matrices = ((rows, depth), (depth, columns))
    for name, matrix, swapped in zip("xy", matrices, adjoints, strict=True):
        own = tuple(draw.pick([1, size, size]) for size in batch)
        own = own[draw.integer(0, len(own)) :] if draw.integer(0, 3) == 0 else own
        shape = (*own, *(reversed(matrix) if swapped else matrix))
        operands.append(draw.activation(name, shape, dtype))
    x, y = operands
    if draw.integer(0, 3) == 0:
        y = Tensor("y", y.shape, dtype, y.quantization, draw.codes(y.shape, dtype))
    spread = float(x.q.scale[0] * y.q.scale[0]) * math.sqrt(depth) * (1 << (dtype.bits - 1)) / 3
    op = ir.BatchMatMul("op", ("x", "y"), ("z",), *adjoints)
    z = result(op, "z", x, y, quantization=draw.quantization(dtype, spread))
    return graph_of(op, x, y, z)


def resize(draw: Draw, kind: Callable[..., Op]) -> Graph:
    shape = (draw.integer(1, 2), *draw.pair(1, 9), draw.integer(1, 9))
    corners, centers = draw.pick([(False, False), (True, False), (False, True)])
    op = kind("op", ("x",), ("y",), draw.pair(1, 14), corners, centers)
    return moved(op, draw.activation("x", shape, dtype_of(draw)))


def quantize(draw: Draw) -> Graph:
    """Between all pairs of types; ratios from usual to absurd."""
    types = [DType.INT8, DType.INT16, DType.UINT8]
    source, target = draw.pick(types), draw.pick(types)
    zero = {DType.INT16: (0, 0), DType.INT8: (-128, 127), DType.UINT8: (0, 255)}
    scales = draw.scale(1e-4, 0.1), draw.scale(1e-4, 0.1)
    if draw.integer(0, 5) == 0:
        scales = scales[0], draw.scale(1e-9, 1e5)
    tensors = [
        Tensor(
            name,
            (draw.integer(1, 1), 77),
            dtype,
            Quantization.per_tensor(scale, draw.integer(*zero[dtype])),
        )
        for name, dtype, scale in zip("xy", (source, target), scales, strict=True)
    ]
    return graph_of(ir.Quantize("op", ("x",), ("y",)), *tensors)


FAMILIES: dict[str, Callable[[Draw], Graph]] = {
    "add": lambda draw: binary(draw, ir.Add),
    "sub": lambda draw: binary(draw, ir.Sub),
    "mul": lambda draw: binary(draw, ir.Mul),
    "average-pool": lambda draw: pool(draw, ir.AveragePool2D),
    "max-pool": lambda draw: pool(draw, ir.MaxPool2D),
    "mean": mean,
    "concat": concat,
    "transpose": transpose,
    "pad": pad,
    "slice": strided_slice,
    "softmax": softmax,
    "logistic": lambda draw: curve(draw, ir.Logistic, (1 / 256, -128)),
    "tanh": lambda draw: curve(draw, ir.Tanh, (1 / 128, 0)),
    "gelu": gelu,
    "layer-norm": layer_norm,
    "batch-matmul": batch_matmul,
    "resize-nearest": lambda draw: resize(draw, ir.ResizeNearest),
    "resize-bilinear": lambda draw: resize(draw, ir.ResizeBilinear),
    "quantize": quantize,
}
