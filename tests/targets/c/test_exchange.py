"""What test programs read and write comes back as it was; anything else is told."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.targets.c.exchange import TensorType, joined, read, split, traced_rows
from edgesmith.targets.graph.legalizer import legalize
from tests.conformance.random_graphs import random_graph, random_inputs
from tests.targets.installed import target_of

TYPES = st.builds(
    TensorType,
    st.sampled_from(["int8", "uint8", "int16"]),
    st.lists(st.integers(1, 4), max_size=3).map(tuple),
)


@given(st.lists(TYPES, min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 99))
def test_arrays_come_back(types: list[TensorType], samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(0, 100, (samples, *each.shape)).astype(each.dtype) for each in types]
    found = split(joined(arrays), types, samples)
    for array, back in zip(arrays, found, strict=True):
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_a_file_of_another_size_is_told() -> None:
    with pytest.raises(ToolFailedError, match=r"have 5 bytes; 2 x 3 were expected"):
        split(bytes(5), [TensorType("int8", (3,))], 2)


def record(tensor: int, body: bytes) -> bytes:
    return struct.pack("<2I", tensor, len(body)) + body


def test_the_last_writing_of_a_sample_is_traced() -> None:
    data = b"".join(record(7, bytes([sample, again])) for sample in (1, 2) for again in (3, 4))
    assert traced_rows(data, 2)[7].tolist() == [[1, 4], [2, 4]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (record(1, b"ab")[:-1], "ends within a tensor"),
        (record(1, b"ab") + b"\0", "ends within a tensor"),
        (record(1, b"ab"), "tensor 1 was traced 1 times in 2 samples"),
        (record(1, b"ab") + record(1, b"a"), "tensor 1 was traced 2 times in 2 samples"),
    ],
)
def test_a_trace_of_something_else_is_told(data: bytes, said: str) -> None:
    with pytest.raises(ToolFailedError, match=said):
        traced_rows(data, 2)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolFailedError, match=r"outputs\.bin is missing"):
        read(tmp_path / "outputs.bin")


@pytest.mark.parametrize("name", ["c-host", "cortex-m4"])
def test_codes_in_a_wider_type_are_stored_in_the_networks(name: str, tmp_path: Path) -> None:
    target = target_of(name)
    graph = legalize(random_graph(3), target.describe())
    products = execute_plan(target.build(graph), tmp_path)
    inputs = random_inputs(graph, 0)
    expected = target.run(products, inputs)
    found = target.run(products, [each.astype(np.int64) for each in inputs])
    for output in graph.outputs:
        np.testing.assert_array_equal(found[output], expected[output])
