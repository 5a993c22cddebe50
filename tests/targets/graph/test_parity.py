"""Parity: equal integers pass, and any single difference is found and named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.errors import ParityError
from edgesmith.quantize.searched import Searched
from edgesmith.targets.graph.ir import DType, Graph, Quantization, Tensor
from edgesmith.targets.graph.parity import as_searched, compare, require_parity
from tests.conformance.cases import Case, all_cases

CASES = all_cases()
CONV = next(case.graph for case in CASES if case.name == "conv-valid")
SEARCHED = as_searched(CONV)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_graph_equals_itself(case: Case) -> None:
    parity = compare(as_searched(case.graph), case.graph)
    assert parity.different == 0
    assert parity.compared == sum(t.quantization is not None for t in case.graph.tensors.values())


def changed(name: str, **fields: Any) -> Graph:
    return CONV.with_tensors(replace(CONV[name], **fields))


def only_difference(graph: Graph) -> str:
    parity = compare(SEARCHED, graph)
    assert parity.different == 1
    assert not parity.rows[0].same
    return f"{parity.rows[0].tensor}: {parity.rows[0].difference}"


@given(st.integers(0, CONV["weight"].elements - 1), st.sampled_from([-1, 1]))
def test_one_changed_weight_code_is_found(position: int, step: int) -> None:
    codes = np.array(CONV["weight"].data)
    flat = codes.reshape(-1)
    flat[position] = flat[position] + step if abs(int(flat[position]) + step) < 128 else 0
    found = only_difference(changed("weight", data=codes))
    assert found == f"weight: 1 of {codes.size} codes differ"


def test_one_changed_bias_code_is_found() -> None:
    codes = np.array(CONV["bias"].data)
    codes[-1] += 1
    assert "bias: 1 of 6 codes differ" in only_difference(changed("bias", data=codes))


def test_the_smallest_change_of_a_scale_is_found() -> None:
    scale, zero = CONV["y"].q.scalar
    nudged = Quantization.per_tensor(float(np.nextafter(scale, np.float32(1))), zero)
    assert only_difference(changed("y", quantization=nudged)).startswith("y: scale ")


def test_a_changed_zero_point_is_found() -> None:
    scale, zero = CONV["x"].q.scalar
    moved = Quantization.per_tensor(float(scale), zero + 1)
    assert "zero point" in only_difference(changed("x", quantization=moved))


def test_a_changed_type_is_found() -> None:
    assert "type int8 became int16" in only_difference(changed("x", dtype=DType.INT16))


def test_a_missing_tensor_is_found() -> None:
    extra = replace(SEARCHED["y"], name="gone")
    parity = compare(Searched((*SEARCHED.tensors, extra)), CONV)
    assert parity.different == 1
    assert parity.rows[0].difference == "missing from the artifact"


def test_a_scale_that_nobody_scored_is_found() -> None:
    stray = Tensor("stray", (1, 4), DType.INT8, Quantization.per_tensor(0.123, 4))
    parity = compare(SEARCHED, CONV.with_tensors(stray))
    assert parity.rows[0].difference == "its scale and zero point were never scored"


def test_a_derived_tensor_may_share_a_scored_scale() -> None:
    pooled = replace(CONV["y"], name="pooled")
    assert compare(SEARCHED, CONV.with_tensors(pooled)).different == 0


@given(st.permutations(range(6)))
def test_a_recorded_reordering_is_undone_and_nothing_else(order: list[int]) -> None:
    """Output channels in another order: equal along the record, different without it."""
    weight = CONV["weight"]
    assert weight.data is not None
    places = np.arange(weight.elements).reshape(weight.shape)[order]
    moved = CONV.with_tensors(replace(weight, data=weight.data[order].copy()))
    assert compare(SEARCHED, moved, {"weight": places}).different == 0
    assert compare(SEARCHED, moved).different == (order != sorted(order))


def test_a_difference_stops_the_deployment() -> None:
    codes = np.array(CONV["weight"].data)
    codes[0, 0, 0, 0] ^= 1
    parity = compare(SEARCHED, changed("weight", data=codes))
    with pytest.raises(ParityError, match=r"ES420: 1 of 4 tensors of model.tflite.*'weight'"):
        require_parity(parity, "model.tflite")
    require_parity(compare(SEARCHED, CONV), "model.tflite")
