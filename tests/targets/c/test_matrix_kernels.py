"""Portable convolutions, depthwise convolutions and fully connected layers against the reference.

Every call runs with its result apart and as far over its input as its lowering allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.targets.c.lowerings.base import Site, lower_op
from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Padding
from tests.conformance.cases import Case, all_cases
from tests.targets.c.host import KERNELS, Kernels
from tests.targets.c.test_portable_kernels import GRAPHS, check
from tests.targets.graph.reference import linear_cases
from tests.targets.graph.reference.draw import Draw, graph_of
from tests.targets.graph.reference.linear_cases import Linear

MATRIX = (ir.Conv2D, ir.DepthwiseConv2D, ir.FullyConnected)
WEIGHTS = (DType.INT8, DType.INT4, DType.INT2)
FORMATS = {
    f"{activation.value}-{weight.value}-{bias.value if bias else 'unbiased'}": Linear(
        activation, weight, bias
    )
    for activation, biases in (
        (DType.INT8, (DType.INT32, None)),
        (DType.INT16, (DType.INT64, DType.INT32)),
    )
    for weight in WEIGHTS
    for bias in biases
}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    files = sorted(path.name for path in (KERNELS / "portable").glob("matrix_*.c"))
    return Kernels([f"portable/{name}" for name in files], tmp_path_factory.mktemp("matrix"))


CASES = [case for case in all_cases() if isinstance(case.graph.ops[0], MATRIX)]


def _name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_conformance_cases(case: Case, kernels: Kernels) -> None:
    assert check(kernels, [case.graph] * 3, 1) >= 3


def long_rows(draw: Draw, formats: Linear) -> Graph:
    """More products than a part sum of any kernel takes, more channels than a strip."""
    depth, outputs = draw.pick([81, 257, 2050]), draw.pick([3, 5, 34, 67])
    x = draw.activation("x", (draw.integer(1, 2), depth), formats.activation)
    w = linear_cases.weight(draw, (outputs, depth), 0, formats.weight, formats.per_channel)
    y = linear_cases.linear_output(draw, (x.shape[0], outputs), x, w, depth)
    tensors, inputs = linear_cases.operands(draw, formats, x, w, y)
    return graph_of(ir.FullyConnected("fc", inputs, ("y",)), *tensors)


def extremes(draw: Draw, formats: Linear) -> Graph:
    """Weights that are all the least or the greatest code."""
    graph = long_rows(draw, formats)
    weight = graph["weight"]
    dtype = weight.dtype
    codes = np.full(weight.shape, draw.pick([dtype.qmin + 1, dtype.qmax]), dtype.numpy)
    return replace(graph, tensors={**graph.tensors, "weight": replace(weight, data=codes)})


def many_channels(draw: Draw, formats: Linear) -> Graph:
    """Depthwise 3x3 over more channels than a strip, with windows cut at every side."""
    channels, size = draw.pick([33, 70]), draw.pair(1, 5)
    x = draw.activation("x", (1, *size, channels), formats.activation)
    w = linear_cases.weight(draw, (1, 3, 3, channels), 3, formats.weight, formats.per_channel)
    y = linear_cases.linear_output(draw, x.shape, x, w, 9)
    tensors, inputs = linear_cases.operands(draw, formats, x, w, y)
    made = ir.DepthwiseConv2D("dw", inputs, ("y",), padding=Padding(1, 1, 1, 1))
    return graph_of(made, *tensors)


FAMILIES: dict[str, Callable[[Draw, Linear], Graph]] = {
    "conv": linear_cases.conv_case,
    "grouped": lambda draw, formats: linear_cases.conv_case(draw, formats, groups=True),
    "depthwise": linear_cases.depthwise_case,
    "fully-connected": linear_cases.fully_connected_case,
    "long-rows": long_rows,
    "extremes": extremes,
    "many-channels": many_channels,
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_any_operator(family: str, name: str, kernels: Kernels) -> None:
    @settings(max_examples=6, deadline=None)
    @given(
        seed=st.integers(0, 1 << 32),
        per_channel=st.booleans(),
        scratch_bytes=st.sampled_from([None, 0, 300]),
    )
    def run(seed: int, per_channel: bool, scratch_bytes: int | None) -> None:
        draw = Draw(seed)
        formats = replace(FORMATS[name], per_channel=per_channel)
        graphs = [FAMILIES[family](draw, formats) for _ in range(GRAPHS)]
        check(kernels, graphs, seed, scratch_bytes)

    run()


def test_depthwise_convolution_trades_scratch_for_overlap() -> None:
    """A waiting position costs as many bytes as it gains; unbounded, the output fits in place."""
    graph = many_channels(Draw(1), FORMATS["int8-int8-int32"])
    calls = [
        lower_op(graph.ops[0], Site(graph, KernelSet.PORTABLE, limit)) for limit in (None, 200, 0)
    ]
    distances = [call.overlaps["x"].distance for call in calls]
    both = {call.scratch_bytes + call.overlaps["x"].distance for call in calls}
    assert distances[0] <= 0 < distances[1] < distances[2]
    assert len(both) == 1
