"""What is rewritten before lowering: the same codes, in operators that kernels take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.execution import execute_plan
from edgesmith.targets.c.lowerings.movement import SLOTS
from edgesmith.targets.c.prepare import prepared
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Op, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.validate import verify
from tests.conformance.random_graphs import random_inputs
from tests.targets.installed import target_of

UNIT = Quantization.per_tensor(0.1, 3)
PROFILE = PROFILES["tflite-micro"]


def tensor(name: str, *shape: int, data: bool = False) -> Tensor:
    codes = np.arange(np.prod(shape), dtype=np.int8).reshape(shape) if data else None
    return Tensor(name, shape, DType.INT8, UNIT, codes)


def graph_of(ops: list[Op], outputs: tuple[str, ...], *tensors: Tensor) -> Graph:
    named = {each.name: each for each in tensors}
    return verify(Graph("small", named, tuple(ops), ("x",), outputs))


def concat_of(count: int) -> Graph:
    """x and constants, in turn, `count` of them."""
    x, c = tensor("x", 1, 2, 3), tensor("c", 1, 1, 3, data=True)
    names = tuple("xc"[index % 2] for index in range(count))
    rows = sum({"x": 2, "c": 1}[name] for name in names)
    return graph_of([ir.Concat("op", names, ("y",), -2)], ("y",), x, c, tensor("y", 1, rows, 3))


@pytest.mark.parametrize("count", [1, SLOTS, SLOTS + 1, 2 * SLOTS + 1, SLOTS**2, SLOTS**2 + 1])
def test_concatenations_of_any_length_are_split_and_stay_equal(count: int) -> None:
    graph = concat_of(count)
    split = verify(prepared(graph))
    assert all(len(op.inputs) <= SLOTS for op in split.ops)
    assert (split is graph) == (count <= SLOTS)
    inputs = random_inputs(graph, 0)
    expected, found = (execute(each, inputs, PROFILE)["y"] for each in (graph, split))
    assert np.array_equal(expected, found)


def reshaped_constant(outputs: tuple[str, ...]) -> Graph:
    """y = x + reshape(reshape(c))."""
    ops: list[Op] = [
        ir.Reshape("one", ("c",), ("d",), (3, 2)),
        ir.Reshape("two", ("d",), ("e",), (1, 6)),
        ir.Add("sum", ("x", "e"), ("y",)),
    ]
    shapes = (tensor("x", 1, 6), tensor("d", 3, 2), tensor("e", 1, 6), tensor("y", 1, 6))
    return graph_of(ops, outputs, tensor("c", 2, 3, data=True), *shapes)


def test_a_reshaped_constant_is_a_constant() -> None:
    found = verify(prepared(reshaped_constant(("y",))))
    assert [op.name for op in found.ops] == ["sum"]
    data = found["e"].data
    assert data is not None
    assert np.array_equal(data, np.arange(6).reshape(1, 6))


def test_a_reshaped_constant_that_is_an_output_stays() -> None:
    graph = reshaped_constant(("y", "d"))
    assert prepared(graph) is graph


@pytest.mark.parametrize(
    "graph",
    [concat_of(20), reshaped_constant(("y",)), reshaped_constant(("d", "y"))],
    ids=["concat", "constant", "output"],
)
def test_c_of_what_was_prepared_gives_the_graphs_codes(graph: Graph, tmp_path: Path) -> None:
    target = target_of("c-host")
    inputs = random_inputs(graph, 0)
    found = target.run(execute_plan(target.build(graph), tmp_path), inputs)
    expected = execute(graph, inputs, PROFILE)
    for name in graph.outputs:
        assert np.array_equal(found[name], expected[name])
