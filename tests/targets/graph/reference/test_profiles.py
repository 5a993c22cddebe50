"""Every choice in a profile is one that its runtime shows: other choices give other bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Graph, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, Profile, execute
from edgesmith.targets.graph.reference.linear import product_type
from edgesmith.targets.graph.reference.profiles import Curve, ScaleMath
from edgesmith.targets.graph.requantize import Rounding
from edgesmith.targets.graph.tflite_writer import write_tflite
from tests.targets.graph.reference import cases
from tests.targets.graph.reference.draw import RUNTIMES, Draw, graph_of, run_runtime
from tests.targets.graph.reference.linear_cases import Linear, conv_case, fully_connected_case

Case = Callable[[Draw], Graph]
INT8, INT16 = DType.INT8, DType.INT16
MICRO, LITERT = PROFILES["tflite-micro"], PROFILES["litert-reference"]


def _math(profile: Profile, kind: str, math: ScaleMath) -> Profile:
    return replace(profile, scale_math={**profile.scale_math, kind: math})


def _binary(kind: type[ir.Op], dtype: DType) -> Case:
    return partial(cases.binary_case, kind=kind, dtype=dtype, constant=False)


CONV: Case = partial(conv_case, formats=Linear(per_channel=False))
FULLY: Case = partial(fully_connected_case, formats=Linear(per_channel=False))
MATMUL: Case = partial(cases.batch_matmul_case, dtype=INT8)
SOFTMAX16: Case = partial(cases.curve_case, kind=ir.Softmax, dtype=INT16)
RELU16: Case = partial(cases.relu_case, dtype=INT16, activation=Activation.RELU, rescaled=True)
PRODUCT, SINGLE, DOUBLE = ScaleMath.FLOAT32_PRODUCT, ScaleMath.FLOAT32, ScaleMath.FLOAT64

# (profile, the same with another choice, a case that shows the difference)
CHOICES: dict[str, tuple[Profile, Profile, Case]] = {
    "micro-conv-product": (MICRO, _math(MICRO, "Conv2D", PRODUCT), CONV),
    "micro-fully-connected-product": (MICRO, _math(MICRO, "FullyConnected", PRODUCT), FULLY),
    "micro-matmul-product": (MICRO, _math(MICRO, "BatchMatMul", PRODUCT), MATMUL),
    "micro-add-single": (MICRO, _math(MICRO, "Add", SINGLE), _binary(ir.Add, INT16)),
    "micro-sub-single": (MICRO, _math(MICRO, "Sub", SINGLE), _binary(ir.Sub, INT16)),
    "micro-mul-single": (MICRO, _math(MICRO, "Mul", SINGLE), _binary(ir.Mul, INT8)),
    "micro-relu-single": (MICRO, _math(MICRO, "Relu", SINGLE), RELU16),
    "micro-softmax-tables": (MICRO, replace(MICRO, softmax16_tables=DOUBLE), SOFTMAX16),
    "micro-conv-single-rounding": (
        MICRO,
        replace(MICRO, rounding={"Conv2D": Rounding.SINGLE}),
        CONV,
    ),
    "litert-conv-product": (LITERT, _math(LITERT, "Conv2D", PRODUCT), CONV),
    "litert-fully-connected-rounding": (LITERT, replace(LITERT, rounding={}), FULLY),
    "litert-matmul-double": (LITERT, _math(LITERT, "BatchMatMul", DOUBLE), MATMUL),
    "litert-add-single": (LITERT, _math(LITERT, "Add", SINGLE), _binary(ir.Add, INT16)),
    "litert-sub-single": (LITERT, _math(LITERT, "Sub", SINGLE), _binary(ir.Sub, INT16)),
    "litert-mul-double": (LITERT, _math(LITERT, "Mul", DOUBLE), _binary(ir.Mul, INT8)),
    "litert-mul-product": (LITERT, _math(LITERT, "Mul", PRODUCT), _binary(ir.Mul, INT8)),
    "litert-relu-double": (LITERT, _math(LITERT, "Relu", DOUBLE), RELU16),
    "litert-softmax-tables": (LITERT, replace(LITERT, softmax16_tables=SINGLE), SOFTMAX16),
}


@pytest.mark.parametrize(("profile", "other", "case"), CHOICES.values(), ids=CHOICES.keys())
def test_runtime_shows_the_choice(profile: Profile, other: Profile, case: Case) -> None:
    for seed in range(400):
        draw = Draw(seed)
        graph = case(draw)
        inputs = [draw.codes((40, *graph[name].shape), graph[name].dtype) for name in graph.inputs]
        found = execute(graph, inputs, profile)[graph.outputs[0]]
        if np.array_equal(found, execute(graph, inputs, other)[graph.outputs[0]]):
            continue
        wanted = run_runtime(profile.name, write_tflite(graph), inputs)
        np.testing.assert_array_equal(found, wanted)
        return
    pytest.fail("no case tells the two choices apart")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("scale", "zero"), [(0.211315572, -122), (0.000699109107, 86), (0.104978785, -86)]
)
def test_sigmoid_curves_where_they_differ(scale: float, zero: int, runtime: str) -> None:
    x = Tensor("x", (1, 256), INT8, Quantization.per_tensor(scale, zero))
    y = Tensor("y", (1, 256), INT8, Quantization.per_tensor(1 / 256, -128))
    graph = graph_of(ir.Logistic("op", ("x",), ("y",)), x, y)
    codes = np.arange(-128, 128, dtype=np.int8)[np.newaxis, np.newaxis]
    by_curve = [
        execute(graph, [codes], replace(PROFILES[runtime], curve=curve))["y"] for curve in Curve
    ]
    assert (by_curve[0] != by_curve[1]).any()
    wanted = run_runtime(runtime, write_tflite(graph), [codes])
    np.testing.assert_array_equal(execute(graph, [codes], PROFILES[runtime])["y"], wanted)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_mean_of_many_elements(runtime: str) -> None:
    """Enough outputs that the last bit of the divided multiplier shows."""
    draw = Draw(11)
    x = draw.activation("x", (1, 3, 7, 30_000), INT16, scale=0.01)
    y = draw.activation("y", (1, 30_000), INT16, scale=0.0041)
    graph = graph_of(ir.Mean("op", ("x",), ("y",), (1, 2)), x, y)
    inputs = [draw.codes((6, *x.shape), INT16)]
    wanted = run_runtime(runtime, write_tflite(graph), inputs)
    np.testing.assert_array_equal(execute(graph, inputs, PROFILES[runtime])["y"], wanted)


@pytest.mark.parametrize(
    ("bound", "kind"),
    [
        ((1 << 24) - 1, np.float32),
        (1 << 24, np.float64),
        ((1 << 53) - 1, np.float64),
        (1 << 53, np.int64),
    ],
)
def test_products_use_a_type_that_holds_them(bound: int, kind: type[np.generic]) -> None:
    assert product_type(bound) == np.dtype(kind)
    assert int(np.array(bound).astype(kind)) == bound


def test_products_beyond_64_bits_are_refused() -> None:
    with pytest.raises(OverflowError, match="does not fit 64 bits"):
        product_type(1 << 63)


def test_profiles_are_found_by_their_name() -> None:
    assert all(name == profile.name for name, profile in PROFILES.items())
    assert set(RUNTIMES) == set(PROFILES)
