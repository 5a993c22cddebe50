"""The lossless graph file: what is written is read back, in every field and bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.errors import ModelFileError
from edgesmith.targets.graph.graph_file import read_graph, write_graph
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


def test_a_changed_byte_is_noticed() -> None:
    data = bytearray(write_graph(random_graph(2)))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(ModelFileError):
        read_graph(bytes(data))
