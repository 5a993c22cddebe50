"""Running whole graphs: chunks, traces, teacher forcing and wrong inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from edgesmith.pipeline.errors import DataError, UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, DType, Graph, Op, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute, executor, kernel, run_op
from tests.targets.graph.reference.draw import Draw, graph_of

MICRO = PROFILES["tflite-micro"]
Q = Quantization.per_tensor(0.1, 5)


def residual_graph() -> Graph:
    """A 3x3 convolution added to its input, averaged; `x` and `conv` have two readers each."""
    draw = Draw(7)
    codes = draw.codes((4, 3, 3, 4), DType.INT8)
    weight = Tensor("w", codes.shape, DType.INT8, Quantization.per_channel([0.01] * 4, 0), codes)
    bias = Tensor("b", (4,), DType.INT32, Quantization.per_tensor(0.001), np.arange(4, dtype="i4"))
    same = ir.Padding(1, 1, 1, 1)
    image = (1, 6, 6, 4)
    tensors = [
        Tensor("x", image, DType.INT8, Q),
        weight,
        bias,
        Tensor("conv", image, DType.INT8, Quantization.per_tensor(0.3, -20)),
        Tensor("sum", image, DType.INT8, Quantization.per_tensor(0.35, -9)),
        Tensor("product", image, DType.INT8, Quantization.per_tensor(4.0, 2)),
        Tensor("mean", (1, 4), DType.INT8, Quantization.per_tensor(4.0, 2)),
    ]
    ops: tuple[Op, ...] = (
        ir.Conv2D("c", ("x", "w", "b"), ("conv",), padding=same),
        ir.Add("a", ("conv", "x"), ("sum",)),
        ir.Mul("m", ("sum", "conv"), ("product",)),
        ir.Mean("g", ("product",), ("mean",), (1, 2)),
    )
    return Graph("residual", {t.name: t for t in tensors}, ops, ("x",), ("sum", "mean"))


def samples(count: int) -> list[Array]:
    return [Draw(1).codes((count, 1, 6, 6, 4), DType.INT8)]


def test_returns_the_outputs_and_traces_every_activation() -> None:
    graph, inputs = residual_graph(), samples(5)
    outputs = execute(graph, inputs, MICRO)
    traced = execute(graph, inputs, MICRO, trace=True)
    assert set(outputs) == {"sum", "mean"}
    assert set(traced) == {"x", "conv", "sum", "product", "mean"}
    for name, codes in outputs.items():
        np.testing.assert_array_equal(codes, traced[name])
    np.testing.assert_array_equal(traced["x"], inputs[0])
    assert all(codes.shape == (5, *graph[name].shape) for name, codes in traced.items())


@pytest.mark.parametrize("limit", ["CHUNK_BYTES", "BLOCK_ELEMENTS"])
def test_chunks_and_blocks_change_nothing(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs = residual_graph(), samples(9)
    whole = execute(graph, inputs, MICRO, trace=True)
    monkeypatch.setattr(executor if limit == "CHUNK_BYTES" else kernel, limit, 400)
    parts = execute(graph, inputs, MICRO, trace=True)
    for name, codes in whole.items():
        np.testing.assert_array_equal(codes, parts[name])


def test_samples_do_not_depend_on_each_other() -> None:
    graph, inputs = residual_graph(), samples(6)
    together = execute(graph, inputs, MICRO)
    for index in range(6):
        alone = execute(graph, [inputs[0][index : index + 1]], MICRO)
        for name, codes in alone.items():
            np.testing.assert_array_equal(codes[0], together[name][index])


def test_no_samples_give_empty_outputs() -> None:
    assert execute(residual_graph(), samples(0), MICRO)["mean"].shape == (0, 1, 4)


def test_teacher_forcing_repeats_the_trace() -> None:
    graph = residual_graph()
    traced = execute(graph, samples(4), MICRO, trace=True)
    for op in graph.ops:
        np.testing.assert_array_equal(run_op(graph, op, traced, MICRO), traced[op.output])


def test_operator_on_constants_alone_gives_every_sample_the_same() -> None:
    x = Tensor("x", (1, 3), DType.INT8, Q)
    constant = Tensor("k", (3, 1), DType.INT8, Q, np.array([[1], [2], [3]], np.int8))
    reshaped = Tensor("r", (1, 3), DType.INT8, Q)
    y = Tensor("y", (1, 3), DType.INT8, Quantization.per_tensor(0.2))
    ops = (ir.Reshape("r", ("k",), ("r",), (1, 3)), ir.Add("a", ("x", "r"), ("y",)))
    graph = Graph("g", {t.name: t for t in (x, constant, reshaped, y)}, ops, ("x",), ("y",))
    found = execute(graph, [np.zeros((2, 1, 3), np.int8)], MICRO, trace=True)
    assert found["r"].tolist() == [[[1, 2, 3]], [[1, 2, 3]]]
    assert found["y"].shape == (2, 1, 3)


def test_constant_of_the_samples_size_does_not_broadcast_over_samples() -> None:
    """A [4] constant aligns with the last tensor axis even where there are four samples."""
    x = Tensor("x", (1, 3, 4), DType.INT8, Quantization.per_tensor(1.0))
    codes = np.array([10, 20, 30, 40], np.int8)
    constant = Tensor("k", (4,), DType.INT8, Quantization.per_tensor(1.0), codes)
    y = Tensor("y", (1, 3, 4), DType.INT8, Quantization.per_tensor(1.0))
    graph = graph_of(ir.Add("a", ("x", "k"), ("y",)), x, constant, y)
    found = execute(graph, [np.ones((4, 1, 3, 4), np.int8)], MICRO)["y"]
    assert np.unique(found, axis=0).tolist() == [[[[11, 21, 31, 41]] * 3]]


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([], "has 1 inputs, got 0"),
        ([np.zeros((2, 1, 6, 6, 3), np.int8)], r"tensor 'x' is int8 \[samples, 1, 6, 6, 4\]"),
        ([np.zeros((2, 1, 6, 6, 4), np.float32)], "got float32"),
        ([np.zeros((1, 6, 6, 4), np.int8)], "tensor 'x' is int8"),
    ],
)
def test_wrong_inputs_are_named(inputs: list[Array], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        execute(residual_graph(), inputs, MICRO)


def test_inputs_must_have_the_same_number_of_samples() -> None:
    a, b, y = (Tensor(name, (1, 2), DType.INT8, Q) for name in "aby")
    graph = graph_of(ir.Add("op", ("a", "b"), ("y",)), a, b, y)
    arrays = [np.zeros((n, 1, 2), np.int8) for n in (2, 3)]
    with pytest.raises(DataError, match="different numbers of samples"):
        execute(graph, arrays, MICRO)


def test_teacher_forcing_without_a_value_names_the_activation() -> None:
    graph = residual_graph()
    with pytest.raises(DataError, match="activation 'conv' has no value"):
        run_op(graph, graph.ops[1], {"x": samples(1)[0]}, MICRO)


def test_wrong_declared_shape_is_refused() -> None:
    x, y = Tensor("x", (1, 4), DType.INT8, Q), Tensor("y", (1, 4), DType.INT8, Q)
    graph = graph_of(ir.Transpose("t", ("x",), ("y",), (1, 0)), x, y)
    with pytest.raises(UnsupportedError, match=r"computes int8 \(4, 1\) for output 'y'"):
        execute(graph, [np.zeros((1, 1, 4), np.int8)], MICRO)


def test_operator_without_kernel_is_refused() -> None:
    @dataclass(frozen=True)
    class Unknown(Op):
        pass

    x, y = Tensor("x", (1, 4), DType.INT8, Q), Tensor("y", (1, 4), DType.INT8, Q)
    with pytest.raises(UnsupportedError, match="Unknown 'u' has no reference kernel"):
        execute(graph_of(Unknown("u", ("x",), ("y",)), x, y), [np.zeros((1, 1, 4), "i1")], MICRO)


def test_every_operator_of_the_ir_has_a_kernel() -> None:
    kinds = [kind for kind in vars(ir).values() if isinstance(kind, type) and issubclass(kind, Op)]
    for kind in kinds:
        if kind is not Op:
            assert callable(kernel.kernel_of(kind("op", (), ())))


def test_missing_operand_is_refused() -> None:
    x, y = Tensor("x", (1, 4), DType.INT8, Q), Tensor("y", (1, 4), DType.INT8, Q)
    graph = graph_of(ir.Add("a", ("x", ""), ("y",)), x, y)
    with pytest.raises(UnsupportedError, match="input 1 is missing"):
        execute(graph, [np.zeros((1, 1, 4), np.int8)], MICRO)
