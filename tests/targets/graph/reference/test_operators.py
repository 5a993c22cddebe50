"""Every operator without weights against both runtimes, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Graph, Op, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.tflite_writer import write_tflite
from tests.oracles import RuntimeRefusedError
from tests.targets.graph.reference import cases
from tests.targets.graph.reference.draw import (
    RUNTIMES,
    Draw,
    assert_same,
    graph_of,
    run_runtime,
)

Case = Callable[[Draw], Graph]
INT8, INT16, INT32 = DType.INT8, DType.INT16, DType.INT32
MICRO, LITERT = RUNTIMES
SEEDS = range(15)


def _of_type(dtype: DType) -> dict[str, Case]:
    """Cases that both runtimes take for int8 and int16."""
    binary: dict[str, Case] = {
        f"{kind.__name__}-{'constant' if constant else 'activation'}": partial(
            cases.binary_case, kind=kind, dtype=dtype, constant=constant
        )
        for kind in (ir.Add, ir.Sub, ir.Mul)
        for constant in (False, True)
    }
    pools: dict[str, Case] = {
        kind.__name__: partial(cases.pool_case, kind=kind, dtype=dtype)
        for kind in (ir.AveragePool2D, ir.MaxPool2D)
    }
    curves: dict[str, Case] = {
        kind.__name__: partial(cases.curve_case, kind=kind, dtype=dtype)
        for kind in cases.FIXED_OUTPUTS
    }
    plain: dict[str, Case] = {
        "Mean": partial(cases.mean_case, dtype=dtype),
        "Clip": partial(cases.clip_case, dtype=dtype),
        "Concat": partial(cases.concat_case, dtype=dtype),
        "Transpose": partial(cases.transpose_case, dtype=dtype),
        "Pad": partial(cases.pad_case, dtype=dtype),
        "StridedSlice": partial(cases.slice_case, dtype=dtype),
        "Reshape": partial(cases.reshape_case, dtype=dtype),
        "ResizeNearest": partial(cases.resize_case, kind=ir.ResizeNearest, dtype=dtype),
        "Relu-relu-rescaled": partial(
            cases.relu_case, dtype=dtype, activation=Activation.RELU, rescaled=True
        ),
        "Relu-relu6": partial(
            cases.relu_case, dtype=dtype, activation=Activation.RELU6, rescaled=False
        ),
    }
    return {
        f"{name}-{dtype}": case for name, case in {**binary, **pools, **curves, **plain}.items()
    }


BOTH: dict[str, Case] = {
    **_of_type(INT8),
    **_of_type(INT16),
    "HardSwish-int8": cases.hard_swish_case,
    "ResizeBilinear-int8": partial(cases.resize_case, kind=ir.ResizeBilinear, dtype=INT8),
    **{
        f"{kind.__name__}-int16-power-of-two": partial(
            cases.curve_case, kind=kind, dtype=INT16, power_of_two=True
        )
        for kind in (ir.Logistic, ir.Tanh)
    },
    **{
        f"Quantize-{source}-{target}": partial(cases.requantize_case, source=source, target=target)
        for source, target in (
            (INT8, INT8),
            (INT8, INT16),
            (INT16, INT8),
            (INT16, INT16),
            (INT16, INT32),
            (INT32, INT8),
            (INT32, INT16),
        )
    },
}
ONLY_MICRO: dict[str, Case] = {
    "Quantize-int8-int32": partial(cases.requantize_case, source=INT8, target=INT32),
}
_RELU1 = Activation.RELU_N1_TO_1
ONLY_LITERT: dict[str, Case] = {
    "ResizeBilinear-int16": partial(cases.resize_case, kind=ir.ResizeBilinear, dtype=INT16),
    "Relu-relu-n1-to-1-int8": partial(
        cases.relu_case, dtype=INT8, activation=_RELU1, rescaled=False
    ),
    "Relu-relu-n1-to-1-rescaled-int8": partial(
        cases.relu_case, dtype=INT8, activation=_RELU1, rescaled=True
    ),
    **{
        f"Relu-relu6-rescaled-{dtype}": partial(
            cases.relu_case, dtype=dtype, activation=Activation.RELU6, rescaled=True
        )
        for dtype in (INT8, INT16)
    },
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", BOTH.values(), ids=BOTH.keys())
def test_equals_both_runtimes(case: Case, runtime: str) -> None:
    for seed in SEEDS:
        draw = Draw(seed)
        assert_same(case(draw), runtime, draw)


@pytest.mark.parametrize("case", ONLY_MICRO.values(), ids=ONLY_MICRO.keys())
def test_equals_tflite_micro(case: Case) -> None:
    for seed in SEEDS:
        draw = Draw(seed)
        assert_same(case(draw), MICRO, draw)


@pytest.mark.parametrize("case", ONLY_LITERT.values(), ids=ONLY_LITERT.keys())
def test_equals_litert(case: Case) -> None:
    for seed in SEEDS:
        draw = Draw(seed)
        assert_same(case(draw), LITERT, draw)


@pytest.mark.parametrize(
    ("runtime", "case"),
    [
        (LITERT, ONLY_MICRO["Quantize-int8-int32"]),
        (MICRO, ONLY_LITERT["ResizeBilinear-int16"]),
        (MICRO, ONLY_LITERT["Relu-relu-n1-to-1-int8"]),
        (
            LITERT,
            partial(cases.relu_case, dtype=INT16, activation=_RELU1, rescaled=False),
        ),
    ],
    ids=[
        "litert-quantize-int32",
        "micro-resize-bilinear-int16",
        "micro-relu-n1-to-1",
        "litert-relu-n1-to-1-int16",
    ],
)
def test_runtime_refuses_what_the_profile_says_it_does_not_run(runtime: str, case: Case) -> None:
    draw = Draw(1)
    graph = case(draw)
    inputs = [draw.codes((1, *graph["x"].shape), graph["x"].dtype)]
    with pytest.raises(RuntimeRefusedError):
        run_runtime(runtime, write_tflite(graph), inputs)


@pytest.mark.parametrize("kind", [ir.Logistic, ir.Tanh])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_curves_agree_on_every_code(kind: type[Op], runtime: str) -> None:
    codes = np.arange(-128, 128, dtype=np.int8)[np.newaxis, np.newaxis]
    for seed in range(60):
        draw = Draw(seed + 1000)
        x = draw.activation("x", (1, 256), INT8, scale=draw.scale(0.0005, 2.0))
        output = Quantization.per_tensor(*cases.FIXED_OUTPUTS[kind])
        graph = graph_of(kind("op", ("x",), ("y",)), x, Tensor("y", (1, 256), INT8, output))
        wanted = run_runtime(runtime, write_tflite(graph), [codes])
        np.testing.assert_array_equal(execute(graph, [codes], PROFILES[runtime])["y"], wanted)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", [INT8, INT16])
def test_quantize_from_float_equals_runtime(runtime: str, dtype: DType) -> None:
    for seed in SEEDS:
        draw = Draw(seed)
        x = Tensor("x", (1, 64), DType.FLOAT32)
        y = draw.activation("y", (1, 64), dtype)
        graph = graph_of(ir.Quantize("op", ("x",), ("y",)), x, y)
        ties = (draw.rng.integers(-600, 600, (3, 1, 64)) / 2).astype(np.float32)
        values = np.where(draw.rng.random(ties.shape) < 0.5, ties, ties + 0.3) * y.q.scale[0]
        values = values.astype(np.float32)
        wanted = run_runtime(runtime, write_tflite(graph), [values])
        np.testing.assert_array_equal(execute(graph, [values], PROFILES[runtime])["y"], wanted)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", [INT8, INT16])
def test_dequantize_equals_runtime(runtime: str, dtype: DType) -> None:
    for seed in SEEDS:
        draw = Draw(seed)
        x = draw.activation("x", (1, 64), dtype)
        y = Tensor("y", (1, 64), DType.FLOAT32)
        assert_same(graph_of(ir.Dequantize("op", ("x",), ("y",)), x, y), runtime, draw)


def _unary(op: Op, x: Quantization, y: Quantization, dtype: DType = INT8) -> Graph:
    shape = (1, 4, 4, 2)
    return graph_of(op, Tensor("x", shape, dtype, x), Tensor("y", shape, dtype, y))


_A, _B = Quantization.per_tensor(0.5, 3), Quantization.per_tensor(0.25, 3)
REFUSED: dict[str, tuple[Graph, str]] = {
    "reshape": (_unary(ir.Reshape("op", ("x",), ("y",)), _A, _B), "differ in scale"),
    "pool": (_unary(ir.MaxPool2D("op", ("x",), ("y",)), _A, _B), "differ in scale"),
    "average-pool": (_unary(ir.AveragePool2D("op", ("x",), ("y",)), _A, _B), "differ in scale"),
    "clip": (_unary(ir.Clip("op", ("x",), ("y",)), _A, _B), "differ in scale"),
    "softmax": (_unary(ir.Softmax("op", ("x",), ("y",)), _A, _A), "output scale 0.5"),
    "logistic": (_unary(ir.Logistic("op", ("x",), ("y",)), _A, _A), "output scale 0.5"),
    "tanh": (_unary(ir.Tanh("op", ("x",), ("y",)), _A, _A), "output scale 0.5"),
    "resize": (
        _unary(ir.ResizeBilinear("op", ("x",), ("y",), (4, 4), True, True), _A, _A),
        "align_corners together with",
    ),
    "hard-swish": (
        _unary(ir.HardSwish("op", ("x",), ("y",)), Quantization.per_tensor(200.0), _A),
        "more than 128 times",
    ),
    "hard-swish-int16": (
        _unary(ir.HardSwish("op", ("x",), ("y",)), _A, _A, INT16),
        "int8 only",
    ),
    "float": (
        graph_of(
            ir.Relu("op", ("x",), ("y",)),
            Tensor("x", (1, 4, 4, 2), DType.FLOAT32),
            Tensor("y", (1, 4, 4, 2), DType.FLOAT32),
        ),
        "activations are float32",
    ),
    "relu6-rescaled": (
        _unary(ir.Relu("op", ("x",), ("y",), Activation.RELU6), _A, _B),
        "keeps scale and zero point",
    ),
}


@pytest.mark.parametrize(("graph", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_no_runtime_defines_is_refused(graph: Graph, reason: str) -> None:
    x = graph["x"]
    with pytest.raises(UnsupportedError, match=reason) as caught:
        execute(graph, [np.zeros((1, *x.shape), x.dtype.numpy)], PROFILES[MICRO])
    assert f"{graph.ops[0].kind} 'op'" in caught.value.message
    assert caught.value.fix
