"""Every portable kernel against the reference executor: conformance cases and random operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.errors import TargetUnsupportedError, UnsupportedError
from edgesmith.targets.c.lowerings import (
    elementwise,
    matmul,
    movement,
    norm,
    pooling,
    reduction,
    resize,
    softmax,
    tables,
)
from edgesmith.targets.c.lowerings.base import Site, lower_op
from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, Array, DType, Graph, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, run_op
from edgesmith.targets.graph.shapes import infer
from tests.conformance.cases import Case, all_cases
from tests.targets.c import portable_cases
from tests.targets.c.host import KERNELS, Kernels, Request
from tests.targets.graph.reference import cases as drawn
from tests.targets.graph.reference.draw import Draw, graph_of

LOWERINGS = (elementwise, matmul, movement, norm, pooling, reduction, resize, softmax, tables)
MATRIX = (ir.Conv2D, ir.DepthwiseConv2D, ir.FullyConnected, ir.Reshape)
PROFILE = PROFILES["tflite-micro"]
GRAPHS = 4  # per example: compiled programs start slowly under the sanitizers


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    files = sorted(path.name for path in (KERNELS / "portable").glob("*.c"))
    own = [f"portable/{name}" for name in files if not name.startswith("matrix_")]
    return Kernels(own, tmp_path_factory.mktemp("portable"))


def requests_of(
    graph: Graph, draw: Draw, scratch_bytes: int | None = None
) -> Iterator[tuple[Request, Array]]:
    """The graph's one operator with results apart, and over every operand that allows it."""
    (op,) = graph.ops
    values = {name: draw.codes(graph[name].shape, graph[name].dtype)[None] for name in graph.inputs}
    try:
        expected = run_op(graph, op, values, PROFILE)[0]
    except UnsupportedError:
        return
    call = lower_op(op, Site(graph, KernelSet.PORTABLE, scratch_bytes))
    known = {tensor.name: tensor.data for tensor in graph.constants() if tensor.data is not None}
    known |= {name: codes[0] for name, codes in values.items()}
    reads = tuple(known[name] for name in call.reads)
    output = graph[op.output]
    for over in (None, *(call.reads.index(name) for name in call.overlaps if name in values)):
        yield Request(call, reads, output.dtype.numpy, output.shape, over), expected


def check(
    kernels: Kernels, graphs: list[Graph], seed: int, scratch_bytes: int | None = None
) -> int:
    """Compare all graphs' calls; how many there were."""
    draw = Draw(seed)
    pairs = [pair for graph in graphs for pair in requests_of(graph, draw, scratch_bytes)]
    found = kernels.run([request for request, _ in pairs])
    for (request, expected), result in zip(pairs, found, strict=True):
        message = f"{request.call.function} over {request.over}"
        np.testing.assert_array_equal(result, expected, err_msg=message)
    return len(pairs)


CASES = [case for case in all_cases() if not isinstance(case.graph.ops[0], MATRIX)]


def _name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_conformance_cases(case: Case, kernels: Kernels) -> None:
    assert check(kernels, [case.graph] * 3, 1) >= 3


TYPES = (DType.INT8, DType.INT16)
FLAGS = (False, True)
RUNTIME_FAMILIES: dict[str, Callable[[Draw], Graph]] = {
    "add": lambda draw: drawn.binary_case(
        draw, ir.Add, draw.pick(TYPES), constant=draw.pick(FLAGS)
    ),
    "sub": lambda draw: drawn.binary_case(
        draw, ir.Sub, draw.pick(TYPES), constant=draw.pick(FLAGS)
    ),
    "mul": lambda draw: drawn.binary_case(
        draw, ir.Mul, draw.pick(TYPES), constant=draw.pick(FLAGS)
    ),
    "average-pool": lambda draw: drawn.pool_case(draw, ir.AveragePool2D, draw.pick(TYPES)),
    "max-pool": lambda draw: drawn.pool_case(draw, ir.MaxPool2D, draw.pick(TYPES)),
    "mean": lambda draw: drawn.mean_case(draw, draw.pick(TYPES)),
    "relu": lambda draw: drawn.relu_case(
        draw, draw.pick(TYPES), draw.pick(list(Activation)[1:]), rescaled=draw.pick(FLAGS)
    ),
    "clip": lambda draw: drawn.clip_case(draw, draw.pick(TYPES)),
    "hard-swish": drawn.hard_swish_case,
    "logistic": lambda draw: drawn.curve_case(
        draw, ir.Logistic, draw.pick(TYPES), power_of_two=draw.pick(FLAGS)
    ),
    "tanh": lambda draw: drawn.curve_case(
        draw, ir.Tanh, draw.pick(TYPES), power_of_two=draw.pick(FLAGS)
    ),
    "softmax": lambda draw: drawn.curve_case(draw, ir.Softmax, draw.pick(TYPES)),
    "batch-matmul": lambda draw: drawn.batch_matmul_case(draw, draw.pick(TYPES)),
}


@pytest.mark.parametrize("family", RUNTIME_FAMILIES)
def test_operators_as_runtimes_take_them(family: str, kernels: Kernels) -> None:
    @settings(max_examples=12, deadline=None)
    @given(seed=st.integers(0, 1 << 32))
    def run(seed: int) -> None:
        draw = Draw(seed)
        check(kernels, [RUNTIME_FAMILIES[family](draw) for _ in range(GRAPHS)], seed)

    run()


@pytest.mark.parametrize("family", portable_cases.FAMILIES)
def test_any_operator(family: str, kernels: Kernels) -> None:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 1 << 32), scratch_bytes=st.sampled_from([None, 0, 200]))
    def run(seed: int, scratch_bytes: int | None) -> None:
        draw = Draw(seed)
        graphs = [portable_cases.FAMILIES[family](draw) for _ in range(GRAPHS)]
        check(kernels, graphs, seed, scratch_bytes)

    run()


@pytest.mark.parametrize(
    ("scales", "zero", "activation", "function"),
    [
        ((0.0393936, 0.104195, 0.0509457), -128, Activation.RELU, "es_add_affine_s8"),
        ((0.0393936, 0.104195, 0.0509457), -3, Activation.RELU, "es_add_affine_rows_s8"),
        ((1 / 16, 1 / 32, 1 / 16), 5, Activation.NONE, "es_add_affine_rows_s8"),
        # Sums of 4 a + 7 b over 6: many ties, which fall to either side.
        ((0.04, 0.07, 0.06), 5, Activation.NONE, "es_add_s8"),
    ],
)
def test_sums_take_the_fastest_exact_kernel(
    scales: tuple[float, float, float],
    zero: int,
    activation: Activation,
    function: str,
    kernels: Kernels,
) -> None:
    tensors = [
        Tensor(name, (1, 5, 5, 7), DType.INT8, Quantization.per_tensor(scale, own))
        for name, scale, own in zip("xyz", scales, (-128, 4, zero), strict=True)
    ]
    graph = graph_of(ir.Add("op", ("x", "y"), ("z",), activation), *tensors)
    assert lower_op(graph.ops[0], Site(graph, KernelSet.PORTABLE)).function == function
    assert check(kernels, [graph] * 4, 0) == 12


def test_a_constant_scalar_makes_a_table() -> None:
    unit = Quantization.per_tensor(0.1)
    x, z = (Tensor(name, (4, 3), DType.INT8, unit) for name in "xz")
    y = Tensor("y", (1,), DType.INT8, unit, np.array([3], np.int8))
    call = lower_op(
        ir.Mul("op", ("y", "x"), ("z",)),
        Site(graph_of(ir.Mul("op", ("y", "x"), ("z",)), x, y, z), KernelSet.PORTABLE),
    )
    assert call.function == "es_lookup_s8"
    assert call.reads == ("x",)


def _int8(name: str, shape: tuple[int, ...], **fields: Any) -> Tensor:
    return Tensor(name, shape, DType.INT8, Quantization.per_tensor(0.1), **fields)


@pytest.mark.parametrize(
    ("op", "shape", "reason"),
    [
        (ir.Concat("op", ("x",) * 9, ("z",), 0), (1,), "joins 9 operands at once"),
        (ir.Transpose("op", ("x",), ("z",), (5, 4, 3, 2, 1, 0)), (2,) * 6, "more than 5 axes"),
        (ir.Mean("op", ("x",), ("z",), (0,)), (1 << 24,), "32-bit sums"),
    ],
    ids=["concat", "transpose", "mean"],
)
def test_what_no_kernel_takes_is_refused_by_name(
    op: ir.Op, shape: tuple[int, ...], reason: str
) -> None:
    x = _int8("x", shape)
    (wanted,) = infer(op, (x,) * len(op.inputs))
    graph = graph_of(op, x, _int8("z", wanted))
    with pytest.raises(TargetUnsupportedError, match=f"{op.kind} 'op' .*{reason}"):
        lower_op(op, Site(graph, KernelSet.PORTABLE))
