"""The lossless graph file: what is written is read back, in every field and bit."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.errors import ModelFileError
from edgesmith.targets.graph.graph_file import VERSION, read_graph, write_graph
from edgesmith.targets.graph.ir import Graph, Layout
from tests.conformance.cases import all_cases
from tests.conformance.random_graphs import random_graph


def same(one: Graph, other: Graph) -> None:
    assert (one.name, one.inputs, one.outputs, one.ops) == (
        other.name,
        other.inputs,
        other.outputs,
        other.ops,
    )
    assert list(one.tensors) == list(other.tensors)
    for name, tensor in one.tensors.items():
        found = other[name]
        assert (tensor.name, tensor.shape, tensor.dtype) == (found.name, found.shape, found.dtype)
        if tensor.quantization is None:
            assert found.quantization is None
        else:
            assert tensor.quantization.same_as(found.quantization)
        assert (tensor.data is None) == (found.data is None)
        if tensor.data is not None and found.data is not None:
            assert tensor.data.dtype == found.data.dtype
            assert np.array_equal(tensor.data, found.data)


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_every_operator_comes_back(case: object) -> None:
    graph = case.graph  # type: ignore[attr-defined]
    same(graph, read_graph(write_graph(graph)))


@given(st.integers(0, 10_000))
def test_random_graphs_come_back_and_give_the_same_bytes(seed: int) -> None:
    graph = random_graph(seed)
    data = write_graph(graph)
    same(graph, read_graph(data))
    assert write_graph(read_graph(data)) == data


def test_origins_layouts_and_positions_come_back() -> None:
    from dataclasses import replace

    graph = replace(
        random_graph(1),
        origin={"x": "input.1"},
        layout={"x": Layout((1, 2), (1, 0))},
        positions={"w0": np.arange(6)},
    )
    found = read_graph(write_graph(graph))
    assert found.origin == graph.origin
    assert found.layout == graph.layout
    assert np.array_equal(found.positions["w0"], graph.positions["w0"])


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -30])
def test_a_damaged_file_is_named(cut: int) -> None:
    with pytest.raises(ModelFileError, match="graph file"):
        read_graph(write_graph(random_graph(2))[:cut])


def read_or_refused(data: bytes, graph: Graph) -> None:
    """Damage is told, or it hit bytes that mean nothing."""
    try:
        found = read_graph(data)
    except ModelFileError:
        return
    same(graph, found)


GRAPH = random_graph(2)
WRITTEN = write_graph(GRAPH)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(WRITTEN) - 1), st.integers(1, 255)), max_size=3))
def test_changed_bytes_are_noticed(changes: list[tuple[int, int]]) -> None:
    data = bytearray(WRITTEN)
    for place, mask in changes:
        data[place] ^= mask
    read_or_refused(bytes(data), GRAPH)


@pytest.mark.parametrize("mask", [1, 8, 0xFF])
def test_every_changed_byte_of_the_directory_is_noticed(mask: int) -> None:
    """Where most flags and sizes stand; flag 1 says encrypted."""
    for place in range(WRITTEN.index(b"PK\x01\x02"), len(WRITTEN)):
        data = bytearray(WRITTEN)
        data[place] ^= mask
        read_or_refused(bytes(data), GRAPH)


@given(st.integers(0, len(WRITTEN)), st.binary(max_size=40))
def test_cut_files_are_noticed(cut: int, tail: bytes) -> None:
    read_or_refused(WRITTEN[:cut] + tail, GRAPH)


@given(st.binary(max_size=200))
def test_other_bytes_are_no_graph(data: bytes) -> None:
    with pytest.raises(ModelFileError, match="graph file"):
        read_graph(data)


@pytest.mark.parametrize("version", [0, VERSION + 1])
def test_another_format_version_is_named(version: int) -> None:
    with np.load(io.BytesIO(WRITTEN)) as arrays:
        structure = json.loads(arrays["structure"].tobytes())
    assert structure.pop("version") == VERSION
    if version:
        structure["version"] = version
    buffer = io.BytesIO()
    np.savez(buffer, structure=np.frombuffer(json.dumps(structure).encode(), np.uint8))
    expected = f"has format version {version}; this edgesmith reads {VERSION}"
    with pytest.raises(ModelFileError, match=expected):
        read_graph(buffer.getvalue())


@pytest.mark.parametrize("text", ["[]", "1", "{", '"version"'])
def test_a_structure_of_another_form_is_refused(text: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, structure=np.frombuffer(text.encode(), np.uint8))
    with pytest.raises(ModelFileError, match="graph file"):
        read_graph(buffer.getvalue())
