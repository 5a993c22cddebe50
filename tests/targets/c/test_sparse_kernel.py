"""The fully connected kernel that skips zeros against the reference executor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.lowerings.sparse import sparse_fully_connected
from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.graph.ir import Activation, DType, Graph
from edgesmith.targets.graph.reference import PROFILES, run_op
from tests.targets.c.dsp_graphs import Spec, graph_of, inputs_of
from tests.targets.c.host import Kernels, Request
from tests.targets.c.sparse import with_zeros

SHARES = (0.0, 0.5, 0.9, 1.0)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(["portable/matrix_sparse_s8.c"], tmp_path_factory.mktemp("sparse"))


def drawn(random: np.random.Generator, rows: int = 1, bits: int = 8) -> Graph:
    """One fully connected operator with zeros in its weights."""
    spec = Spec(
        "fc",
        (1, 1, rows, int(random.integers(1, 140))),
        int(random.choice([1, 2, 31, 32, 33, 70])),
        activation=list(Activation)[int(random.integers(len(Activation)))],
        bits=bits,
        zeros=(int(random.integers(-128, 128)), int(random.integers(-128, 128))),
        per_channel=bool(random.random() < 0.7),
    )
    graph = graph_of(spec, random)
    codes = graph["w"].data
    assert codes is not None
    share = float(random.choice(SHARES))
    sparse = replace(graph["w"], data=with_zeros(codes.astype(np.int8), share, random))
    return replace(graph, tensors={**graph.tensors, "w": sparse})


def test_it_computes_the_same_integers_apart_and_in_place(kernels: Kernels) -> None:
    random = np.random.default_rng(0)
    requests, expected = [], []
    for _ in range(150):
        graph = drawn(random)
        (op,) = graph.ops
        call = sparse_fully_connected(op, Site(graph, KernelSet.PORTABLE))
        assert call is not None
        inputs = inputs_of(graph, random)
        result = run_op(graph, op, {"x": inputs}, PROFILES["tflite-micro"])[0][0]
        for over in (None, 0):
            requests.append(Request(call, (inputs[0],), result.dtype, result.shape, over))
            expected.append(result)
    for got, wanted in zip(kernels.run(requests), expected, strict=True):
        assert np.array_equal(got, wanted)


def test_several_rows_and_other_types_are_left_to_others() -> None:
    random = np.random.default_rng(1)
    for graph in (drawn(random, rows=2), drawn(random, bits=4)):
        assert sparse_fully_connected(graph.ops[0], Site(graph, KernelSet.PORTABLE)) is None
    graph = drawn(random)
    wide = replace(graph["x"], dtype=DType.INT16)
    other = replace(graph, tensors={**graph.tensors, "x": wide})
    assert sparse_fully_connected(other.ops[0], Site(other, KernelSet.PORTABLE)) is None
