"""Rewrites of matrix products: fewer operators, the same codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.targets.cpu_onnxruntime import CpuOnnxRuntime
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Quantization, Tensor
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.validate import verify
from tests.targets.graph.qdq import kinds
from tests.targets.graph.test_legalizer import run

DESCRIPTION = CpuOnnxRuntime().describe()
Q8 = Quantization.per_tensor(0.05, 3)


def activation(name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, DType.INT8, Q8)


def product(adjoint_x: bool, adjoint_y: bool, turned: str) -> Graph:
    """x @ y of [2, 3, 4] and [2, 4, 5], with the factors in `turned` behind a transpose."""
    ops: list[ir.Op] = []
    tensors = {"z": activation("z", 2, 3, 5)}
    names = []
    for name, shape, adjoint in (("x", (3, 4), adjoint_x), ("y", (4, 5), adjoint_y)):
        wanted = shape[::-1] if adjoint else shape
        turn = name in turned
        tensors[name] = activation(name, 2, *(wanted[::-1] if turn else wanted))
        names.append(f"{name}t" if turn else name)
        if turn:
            tensors[f"{name}t"] = activation(f"{name}t", 2, *wanted)
            ops.append(ir.Transpose(f"{name}t", (name,), (f"{name}t",), (0, 2, 1)))
    ops.append(ir.BatchMatMul("z", (names[0], names[1]), ("z",), adjoint_x, adjoint_y))
    return verify(Graph("g", tensors, tuple(ops), ("x", "y"), ("z",)))


@pytest.mark.parametrize("turned", ["x", "y", "xy"])
@pytest.mark.parametrize("adjoint_y", [False, True])
@pytest.mark.parametrize("adjoint_x", [False, True])
def test_transposed_factors_become_adjoint(adjoint_x: bool, adjoint_y: bool, turned: str) -> None:
    graph = product(adjoint_x, adjoint_y, turned)
    legal = legalize(graph, DESCRIPTION, keep=())
    assert kinds(legal) == ["BatchMatMul"]
    np.testing.assert_array_equal(run(legal), run(graph))


def test_a_transpose_that_is_kept_or_read_elsewhere_stays() -> None:
    graph = product(False, False, "y")
    assert kinds(legalize(graph, DESCRIPTION)) == ["Transpose", "BatchMatMul"]
    shown = replace(graph, outputs=("z", "yt"))
    assert kinds(legalize(shown, DESCRIPTION, keep=())) == ["Transpose", "BatchMatMul"]


def cut_layer(cuts: list[tuple[int, int]], *, per_channel: bool, bias: bool) -> Graph:
    """A layer [1, 5, 4] -> [1, 5, 6], and slices of its features that are added up pairwise."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (6, 4)).astype(np.int8)
    scales = rng.uniform(0.01, 0.03, 6 if per_channel else 1).astype(np.float32)
    axis = 0 if per_channel else None
    weight_q = Quantization(scales, np.zeros(scales.shape, np.int64), axis)
    bias_q = Quantization(scales * np.float32(0.05), np.zeros(scales.shape, np.int64), axis)
    tensors = [
        activation("x", 1, 5, 4),
        Tensor("w", (6, 4), DType.INT8, weight_q, codes),
        activation("y", 1, 5, 6),
    ]
    names = ["x", "w"]
    if bias:
        values = rng.integers(-999, 999, 6).astype(np.int32)
        tensors.append(Tensor("b", (6,), DType.INT32, bias_q, values))
        names.append("b")
    ops: list[ir.Op] = [ir.FullyConnected("y", tuple(names), ("y",), keep_dims=True)]
    for index, (begin, end) in enumerate(cuts):
        name = f"part{index}"
        tensors.append(activation(name, 1, 5, end - begin))
        ends = (1, 5, end)
        ops.append(ir.StridedSlice(name, ("y",), (name,), (0, 0, begin), ends, (1, 1, 1)))
    by_name = {tensor.name: tensor for tensor in tensors}
    outputs = tuple(f"part{index}" for index in range(len(cuts)))
    return verify(Graph("g", by_name, tuple(ops), ("x",), outputs))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 1))
def test_a_layer_that_is_only_sliced_becomes_one_per_slice(
    middle: int, per_channel: bool, bias: bool, which: int
) -> None:
    graph = cut_layer([(0, middle), (middle, 6)], per_channel=per_channel, bias=bias)
    legal = legalize(graph, DESCRIPTION, keep=())
    assert kinds(legal) == ["FullyConnected", "FullyConnected"]
    assert "y" not in legal.tensors
    ends = [replace(each, outputs=(f"part{which}",)) for each in (legal, graph)]
    np.testing.assert_array_equal(run(ends[0]), run(ends[1]))


def test_a_layer_stays_whole_where_slices_overlap_or_others_read_it() -> None:
    overlapping = cut_layer([(0, 4), (2, 6)], per_channel=True, bias=True)
    assert kinds(legalize(overlapping, DESCRIPTION, keep=()))[1:] == ["StridedSlice"] * 2
    graph = cut_layer([(0, 3), (3, 6)], per_channel=True, bias=True)
    assert kinds(legalize(graph, DESCRIPTION))[1:] == ["StridedSlice"] * 2
    shown = replace(graph, outputs=("y", *graph.outputs))
    assert kinds(legalize(shown, DESCRIPTION, keep=()))[1:] == ["StridedSlice"] * 2
