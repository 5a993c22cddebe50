"""Drift between forms, costs by shape, and encoding of inputs, against computation by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgesmith.pipeline.errors import DataError
from edgesmith.pipeline.values import INT8_ACTIVATION
from edgesmith.quantize.affine import Affine
from edgesmith.targets.graph.costs import largest_live_bytes, macs, weight_bytes
from edgesmith.targets.graph.drift import edge, layer_rows, real_values, worst_layers
from edgesmith.targets.graph.edges import encode_inputs
from edgesmith.targets.graph.ir import DType, Layout, Quantization, Tensor
from tests.conformance.cases import all_cases

GRAPHS = {case.name: case.graph for case in all_cases()}


def test_an_edge_counts_lsb_and_noise() -> None:
    before = np.array([[1.0, 2.0, -2.0, 0.0]])
    found = edge("a → b", before, before + np.array([[0.0, 0.1, -0.2, 0.0]]), scale=0.1)
    assert found.max_lsb == pytest.approx(2.0)
    assert found.mean_lsb == pytest.approx(0.75)
    assert found.differing == 0.5
    assert found.sqnr_db == pytest.approx(10 * math.log10(9.0 / 0.05))


def test_equal_forms_have_no_drift() -> None:
    values = np.ones((2, 3))
    assert edge("a → b", values, values, 0.5).sqnr_db is None
    assert edge("a → b", values, values, 0.5).max_lsb == 0.0


def test_rows_compare_consecutive_forms_that_know_the_tensor() -> None:
    graph = GRAPHS["conv-valid"]
    shape = (2, 1, 6, 6, 6)
    low, high = np.zeros(shape) + 1.0, np.zeros(shape) + 1.5
    rows = layer_rows(graph, [("float", {"y": low}), ("b", {}), ("c", {"y": high})])
    assert [e.edge for e in rows[0].drift] == ["float → c"]
    assert rows[0].macs == 6 * 6 * 6 * 3 * 3 * 4
    assert worst_layers(rows) == ("op",)


CHANNELS_LAST = Layout((4, 2, 3), (1, 2, 0))


def test_real_values_come_in_the_source_order() -> None:
    tensor = Tensor("t", (1, 2, 3, 4), DType.INT8, Quantization.per_tensor(0.5, 10))
    codes = np.arange(24, dtype=np.int8).reshape(1, 1, 2, 3, 4)
    reals = real_values(tensor, codes, CHANNELS_LAST).reshape(4, 2, 3)
    assert reals[3, 1, 2] == (23 - 10) * 0.5
    assert reals[1, 0, 0] == (1 - 10) * 0.5
    assert real_values(tensor, codes).tolist() == [[(c - 10) * 0.5 for c in range(24)]]


def test_worst_layers_are_judged_by_one_edge() -> None:
    rows = layer_rows(
        GRAPHS["conv-valid"],
        [
            ("float", {"y": np.ones(4)}),
            ("reference", {"y": np.ones(4) * 2}),
            ("deployed", {"y": np.zeros(4)}),
        ],
    )
    later = replace(rows[0], name="derived", drift=rows[0].drift[1:])
    assert worst_layers((rows[0], later)) == ("op",)
    assert worst_layers((later, rows[0])) == ("op",)
    assert worst_layers((later,)) == ("derived",)
    assert worst_layers(()) == ()


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("conv-valid", 6 * 6 * 6 * 9 * 4),
        ("conv-grouped", 6 * 6 * 6 * 9 * 2),
        ("depthwise-plain", 6 * 6 * 4 * 9),
        ("fully-connected-per-tensor", 5 * 16),
        ("batch-matmul", 2 * 4 * 5 * 6),
        ("batch-matmul-adjoint", 2 * 4 * 5 * 6),
        ("mul", 48),
        ("add", 0),
    ],
)
def test_macs_by_hand(case: str, expected: int) -> None:
    graph = GRAPHS[case]
    assert macs(graph, graph.ops[0]) == expected


def test_int4_weights_are_counted_packed() -> None:
    graph = GRAPHS["fully-connected-int4"]
    assert weight_bytes(graph, graph.ops[0]) == 5 * 16 // 2 + 5 * 4


def test_live_bytes_of_one_operator_are_its_ends() -> None:
    graph = GRAPHS["conv-valid"]
    assert largest_live_bytes(graph) == 8 * 8 * 4 + 6 * 6 * 6


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.integers(-128, 127))
def test_encoding_is_within_half_a_step_or_clamped(values: list[float], zero: int) -> None:
    scale = np.float32(0.25)
    tensor = Tensor("t", (1, len(values)), DType.INT8, Quantization.per_tensor(float(scale), zero))
    reals = np.array([values], np.float32)
    codes = encode_inputs(tensor, reals)
    back = (codes.astype(np.float64) - zero) * scale
    inside = (codes > -128) & (codes < 127)
    assert np.all(np.abs(back - reals.reshape(codes.shape))[inside] <= scale / 2)
    assert codes.shape == (1, 1, len(values))


@given(st.integers(-128, 127), st.integers(1, 64), st.integers(0, 1000))
def test_codes_are_those_of_the_quantizer_and_of_onnx_runtime(
    zero: int, step: int, seed: int
) -> None:
    """Ties too: multiples of half a step, where the order of rounding and shifting shows."""
    scale = np.float32(step / 16)
    halves = np.random.default_rng(seed).integers(-300, 300, 64)
    reals = (halves * (scale / 2)).astype(np.float32)[None]
    tensor = Tensor("t", (1, 64), DType.INT8, Quantization.per_tensor(float(scale), zero))
    found = encode_inputs(tensor, reals).reshape(-1)
    quantizer = Affine(scale, zero, INT8_ACTIVATION)
    assert np.array_equal(found, quantizer.codes(reals[0]))
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    quantize = ReferenceEvaluator(node)
    feeds = {"x": reals[0], "s": scale, "z": np.int8(zero)}
    assert np.array_equal(found, np.asarray(next(iter(quantize.run(None, feeds)))))


def test_images_are_turned_to_channels_last() -> None:
    tensor = Tensor("t", (1, 2, 3, 4), DType.INT8, Quantization.per_tensor(1.0, 0))
    images = np.arange(24, dtype=np.float32).reshape(1, 4, 2, 3)
    codes = encode_inputs(tensor, images, CHANNELS_LAST)
    assert codes[0, 0, 1, 2].tolist() == images[0, :, 1, 2].tolist()


def test_samples_that_do_not_fit_are_refused() -> None:
    tensor = Tensor("pixels", (1, 2, 3, 4), DType.INT8, Quantization.per_tensor(1.0, 0))
    with pytest.raises(DataError, match=r"\[9\] do not fit the model's input 'pixels'"):
        encode_inputs(tensor, np.zeros((5, 9), np.float32))
