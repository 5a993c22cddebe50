"""Random codes that inputs of generated networks are tested and measured with."""

from __future__ import annotations

import numpy as np

from edgesmith.targets.c.vectors import random_codes
from edgesmith.targets.graph.ir import DType, Graph, Quantization, Tensor


def test_random_codes_are_the_same_every_time_and_reach_both_ends() -> None:
    x = Tensor("x", (4, 4, 8), DType.INT8, Quantization.per_tensor(0.1))
    graph = Graph("net", {"x": x}, (), ("x",), ("x",))
    (first,), (second,), (other,) = (random_codes(graph, 50, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert first.dtype == np.int8
    assert (int(first.min()), int(first.max())) == (-128, 127)
    assert first.shape == (50, 4, 4, 8)
