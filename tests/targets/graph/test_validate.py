"""Every invariant of the IR has a graph that breaks it, and an error that names the tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgesmith.pipeline.errors import ModelFileError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Op, Padding, Quantization, Tensor
from edgesmith.targets.graph.shapes import infer
from edgesmith.targets.graph.validate import verify

Q8 = Quantization.per_tensor(0.5, 1)


def graph() -> Graph:
    weight = Tensor("w", (3, 4), DType.INT4, Quantization.per_channel([1, 2, 3], 0))
    weight = replace(weight, data=np.full((3, 4), -8, np.int8))
    tensors = {
        "x": Tensor("x", (1, 4), DType.INT8, Q8),
        "w": weight,
        "h": Tensor("h", (1, 3), DType.INT8, Q8),
        "y": Tensor("y", (1, 3), DType.INT8, Q8),
    }
    ops = (
        ir.FullyConnected("first", ("x", "w", ""), ("h",)),
        ir.Relu("second", ("h",), ("y",)),
    )
    return Graph("g", tensors, ops, ("x",), ("y",))


def with_op(op: Op) -> Graph:
    found = graph()
    return replace(found, ops=(*found.ops[:1], op))


def with_tensor(name: str, **fields: object) -> Graph:
    found = graph()
    return found.with_tensors(replace(found[name], **fields))  # type: ignore[arg-type]


def quantized(name: str, scale: list[float], zero: list[int], axis: int | None) -> Graph:
    quantization = Quantization(np.array(scale, np.float32), np.array(zero, np.int64), axis)
    return with_tensor(name, quantization=quantization)


BROKEN: dict[str, tuple[Callable[[], Graph], str]] = {
    "misfiled": (lambda: replace(graph(), tensors={**graph().tensors, "z": graph()["x"]}), "'z'"),
    "unknown port": (lambda: replace(graph(), outputs=("z",)), "'z' is not among"),
    "repeated input": (lambda: replace(graph(), inputs=("x", "x")), "repeat"),
    "constant input": (lambda: replace(graph(), inputs=("x", "w")), "'w' is a constant"),
    "constant output": (lambda: replace(graph(), outputs=("w",)), "output 'w' is a constant"),
    "operand too many": (
        lambda: with_op(ir.Relu("r", ("h", "x"), ("y",))),
        "Relu 'r' has 2 operands, expected 1\n",
    ),
    "operand too few": (
        lambda: with_op(ir.Add("a", ("h",), ("y",))),
        "Add 'a' has 1 operands, expected 2\n",
    ),
    "operands of a product": (
        lambda: with_op(ir.FullyConnected("f", ("x", "w", "", ""), ("y",))),
        "FullyConnected 'f' has 4 operands, expected 2 to 3\n",
    ),
    "padding value": (
        lambda: with_op(ir.Pad("p", ("h",), ("y",), (0, 0), (0, 0), 128)),
        "Pad 'p' pads with 128, which is no int8 code",
    ),
    "never produced": (lambda: replace(graph(), ops=graph().ops[:1]), "'y' is never produced"),
    "unknown tensor": (lambda: with_op(ir.Relu("r", ("z",), ("y",))), "unknown tensor 'z'"),
    "read too early": (lambda: replace(graph(), ops=graph().ops[::-1]), "reads tensor 'h' before"),
    "assigned twice": (lambda: with_op(ir.Relu("r", ("x",), ("h",))), "'h' a second time"),
    "assigned constant": (lambda: with_op(ir.Relu("r", ("x",), ("w",))), "'w' a second time"),
    "same name": (lambda: with_op(ir.Relu("first", ("h",), ("y",))), "named 'first'"),
    "wrong shape": (lambda: with_tensor("y", shape=(1, 4)), r"'y' has shape \[1, 4\]"),
    "empty axis": (lambda: with_tensor("y", shape=(1, 0)), "'y' has shape"),
    "huge": (lambda: with_tensor("y", shape=(1 << 20, 1 << 20)), "'y' has shape"),
    "deep": (lambda: with_tensor("y", shape=(1,) * 9), "'y' has shape"),
    "unquantized": (lambda: with_tensor("y", quantization=None), "'y' has no scale"),
    "unquantized sums": (
        lambda: with_tensor("y", quantization=None, dtype=DType.INT32),
        "int32 tensor 'y' has no scale",
    ),
    "activation per channel": (
        lambda: quantized("y", [1.0, 2, 3], [0, 0, 0], 1),
        "activation 'y' has a scale per channel",
    ),
    "quantized float": (lambda: with_tensor("y", dtype=DType.FLOAT32), "'y' has a quantization"),
    "NaN scale": (lambda: quantized("y", [np.nan], [0], None), "'y' has a scale"),
    "zero scale": (lambda: quantized("y", [0.0], [0], None), "'y' has a scale"),
    "zero point": (lambda: quantized("y", [1.0], [128], None), "'y' has a zero point outside int8"),
    "axis": (lambda: quantized("y", [1.0], [0], 2), "'y' is quantized along axis 2"),
    "scales": (lambda: quantized("w", [1.0, 2.0], [0, 0], 0), "'w' has 2 scales"),
    "zero points": (lambda: quantized("w", [1.0, 2, 3], [0], 0), "'w' has 3 scales and 1 zero"),
    "codes": (lambda: with_tensor("w", data=np.full((3, 4), 8, np.int8)), "'w' holds codes"),
    "data shape": (lambda: with_tensor("w", data=np.ones((4, 3), np.int8)), "'w' holds int8"),
    "data type": (lambda: with_tensor("w", data=np.ones((3, 4), np.int16)), "'w' holds int16"),
}


def test_a_sound_graph_is_returned_as_it_is() -> None:
    sound = graph()
    assert verify(sound) is sound


@pytest.mark.parametrize("name", BROKEN)
def test_broken_graphs(name: str) -> None:
    build, words = BROKEN[name]
    with pytest.raises(ModelFileError, match=words) as caught:
        verify(build())
    assert caught.value.fix


def test_float_constants_must_be_finite() -> None:
    tensors = {
        "x": Tensor("x", (1, 2), DType.FLOAT32),
        "c": Tensor("c", (2,), DType.FLOAT32, None, np.array([1, np.inf], np.float32)),
        "y": Tensor("y", (1, 2), DType.FLOAT32),
    }
    bad = Graph("g", tensors, (ir.Add("a", ("x", "c"), ("y",)),), ("x",), ("y",))
    with pytest.raises(ModelFileError, match="'c' holds NaN or infinite"):
        verify(bad)


def shape(*sizes: int) -> Tensor:
    return Tensor("t", sizes, DType.INT8, Q8)


def op(kind: type[Op], **fields: object) -> Op:
    return kind("op", ("a", "b"), ("y",), **fields)


@pytest.mark.parametrize(
    ("made", "operands", "expected"),
    [
        (op(ir.Conv2D, stride=(2, 1)), [(1, 5, 6, 4), (8, 3, 3, 4)], (1, 2, 4, 8)),
        (op(ir.Conv2D, groups=2), [(1, 5, 6, 4), (8, 1, 1, 2)], (1, 5, 6, 8)),
        (op(ir.DepthwiseConv2D, multiplier=2), [(1, 3, 3, 4), (1, 3, 3, 8)], (1, 1, 1, 8)),
        (op(ir.FullyConnected), [(2, 3, 4), (5, 4)], (6, 5)),
        (op(ir.FullyConnected, keep_dims=True), [(2, 3, 4), (5, 4)], (2, 3, 5)),
        (op(ir.BatchMatMul, adjoint_y=True), [(2, 1, 3, 4), (5, 6, 4)], (2, 5, 3, 6)),
        (op(ir.Add), [(1, 3, 1), (2, 1, 4)], (2, 3, 4)),
        (op(ir.Mean, axes=(1, 2)), [(1, 3, 4, 5)], (1, 5)),
        (op(ir.Mean, axes=(1,), keep_dims=True), [(1, 3, 4)], (1, 1, 4)),
        (op(ir.Concat, axis=-1), [(1, 3), (1, 4)], (1, 7)),
        (op(ir.Reshape, shape=(6, 2)), [(3, 4)], (6, 2)),
        (op(ir.Transpose, permutation=(2, 0, 1)), [(3, 4, 5)], (5, 3, 4)),
        (op(ir.Pad, before=(0, 1), after=(2, 0)), [(3, 4)], (5, 5)),
        (op(ir.StridedSlice, begin=(1, 0), end=(3, 4), stride=(1, 3)), [(3, 4)], (2, 2)),
        (op(ir.ResizeNearest, size=(6, 7)), [(1, 3, 4, 2)], (1, 6, 7, 2)),
        (op(ir.MaxPool2D, kernel=(2, 2), stride=(2, 2)), [(1, 5, 4, 2)], (1, 2, 2, 2)),
        (op(ir.Softmax), [(3, 4)], (3, 4)),
    ],
)
def test_shapes(made: Op, operands: list[tuple[int, ...]], expected: tuple[int, ...]) -> None:
    assert infer(made, [shape(*sizes) for sizes in operands]) == (expected,)


@pytest.mark.parametrize(
    ("made", "operands"),
    [
        (op(ir.Conv2D), [(1, 5, 6, 4), (8, 3, 3, 3)]),
        (op(ir.Conv2D), [(5, 6, 4), (8, 3, 3, 4)]),
        (op(ir.Conv2D), [(1, 5, 6, 4)]),
        (op(ir.Conv2D, groups=0), [(1, 5, 6, 4), (8, 3, 3, 4)]),
        (op(ir.Conv2D, stride=(0, 1)), [(1, 5, 6, 4), (8, 3, 3, 4)]),
        (op(ir.Conv2D, padding=Padding(-1)), [(1, 5, 6, 4), (8, 3, 3, 4)]),
        (op(ir.Conv2D), [(1, 2, 6, 4), (8, 3, 3, 4)]),
        (op(ir.Conv2D), [(1, 5, 6, 4), (8, 3, 3, 4), (7,)]),
        (op(ir.DepthwiseConv2D), [(1, 5, 6, 4), (1, 3, 3, 8)]),
        (op(ir.FullyConnected), [(1, 5), (3, 4)]),
        (op(ir.FullyConnected, keep_dims=True), [(1, 8), (3, 4)]),
        (op(ir.BatchMatMul), [(2, 3), (4, 5)]),
        (op(ir.BatchMatMul), [(2,), (2, 5)]),
        (op(ir.Add), [(2, 3), (4,)]),
        (op(ir.AveragePool2D, kernel=(2, 2), padding=Padding(2)), [(1, 4, 4, 1)]),
        (op(ir.Mean, axes=(2,)), [(3, 4)]),
        (op(ir.Mean, axes=(1, 0)), [(3, 4)]),
        (op(ir.Concat, axis=0), [(1, 3), (1, 4)]),
        (op(ir.Concat, axis=2), [(1, 3), (1, 4)]),
        (op(ir.Reshape, shape=(5, 2)), [(3, 4)]),
        (op(ir.Transpose, permutation=(0, 0)), [(3, 4)]),
        (op(ir.Pad, before=(1,), after=(1,)), [(3, 4)]),
        (op(ir.Pad, before=(-1, 0), after=(0, 0)), [(3, 4)]),
        (op(ir.StridedSlice, begin=(0,), end=(3,), stride=(1,)), [(3, 4)]),
        (op(ir.StridedSlice, begin=(0, 0), end=(9, 4), stride=(1, 1)), [(3, 4)]),
        (op(ir.StridedSlice, begin=(2, 0), end=(2, 4), stride=(1, 1)), [(3, 4)]),
        (op(ir.ResizeNearest, size=(0, 7)), [(1, 3, 4, 2)]),
        (op(ir.Softmax), [()]),
    ],
)
def test_shapes_that_do_not_fit(made: Op, operands: list[tuple[int, ...]]) -> None:
    with pytest.raises(ModelFileError, match="'op'"):
        infer(made, [shape(*sizes) for sizes in operands])


def test_unknown_operators_have_no_shape() -> None:
    class Strange(Op):
        """Not registered."""

    with pytest.raises(ModelFileError, match="unknown kind Strange"):
        infer(Strange("s", ("x",), ("y",)), [shape(1)])


def test_outputs_are_counted() -> None:
    with pytest.raises(ModelFileError, match="has 2 outputs, expected 1"):
        infer(ir.Relu("r", ("x",), ("y", "z")), [shape(1)])
