"""Convolutions and matrix products against both runtimes, and what profiles refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Op, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.tflite_writer import write_tflite
from tests.oracles import RuntimeRefusedError
from tests.targets.graph.reference.cases import batch_matmul_case
from tests.targets.graph.reference.draw import (
    RUNTIMES,
    Draw,
    assert_same,
    graph_of,
    run_runtime,
)
from tests.targets.graph.reference.linear_cases import (
    Linear,
    conv_case,
    depthwise_case,
    fully_connected_case,
)

Case = Callable[[Draw, Linear], Graph]

INT8 = Linear()
INT8_NO_BIAS = Linear(bias=None)
INT4 = Linear(weight=DType.INT4)
INT16 = Linear(DType.INT16, bias=DType.INT64)
INT16_NO_BIAS = Linear(DType.INT16, bias=None)
INT16_INT32 = Linear(DType.INT16, bias=DType.INT32)
INT16_INT4 = Linear(DType.INT16, DType.INT4, DType.INT64)

# (case, formats, weights may have one scale / several) that a runtime takes.
BOTH: list[tuple[Case, Linear]] = [
    (case, formats)
    for case in (conv_case, depthwise_case, fully_connected_case)
    for formats in (INT8, INT16)
]
TAKEN: dict[str, list[tuple[Case, Linear, tuple[bool, ...]]]] = {
    "tflite-micro": [
        *((case, formats, (True, False)) for case, formats in BOTH),
        (conv_case, INT8_NO_BIAS, (True, False)),
        (conv_case, INT16_NO_BIAS, (True, False)),
        (conv_case, INT16_INT32, (True, False)),
        (conv_case, INT4, (True, False)),
        (depthwise_case, INT8_NO_BIAS, (True, False)),
        (depthwise_case, INT16_NO_BIAS, (True, False)),
        (depthwise_case, INT4, (True, False)),
        (fully_connected_case, INT8_NO_BIAS, (True, False)),
        (fully_connected_case, INT16_NO_BIAS, (True, False)),
        (fully_connected_case, INT16_INT32, (True, False)),
        (fully_connected_case, INT4, (False,)),
    ],
    "litert-reference": [
        *((case, formats, (True, False)) for case, formats in BOTH),
        (conv_case, INT8_NO_BIAS, (True, False)),
        (conv_case, INT16_NO_BIAS, (True, False)),
        (conv_case, INT4, (True, False)),
        (conv_case, INT16_INT4, (True, False)),
        (depthwise_case, INT8_NO_BIAS, (True, False)),
        (depthwise_case, INT16_NO_BIAS, (True, False)),
        (fully_connected_case, INT8_NO_BIAS, (True, False)),
        (fully_connected_case, INT16_NO_BIAS, (True, False)),
        (fully_connected_case, INT4, (True, False)),
        (fully_connected_case, INT16_INT4, (True, False)),
    ],
}


def _variants() -> list[object]:
    found: list[object] = []
    for runtime, rows in TAKEN.items():
        for case, formats, granularities in rows:
            for per_channel in granularities:
                spread = "channels" if per_channel else "tensor"
                bias = formats.bias or "none"
                name = f"{case.__name__}-{formats.activation}-{formats.weight}-{bias}-{spread}"
                chosen = Linear(formats.activation, formats.weight, formats.bias, per_channel)
                found.append(pytest.param(runtime, case, chosen, id=f"{runtime}-{name}"))
    return found


@pytest.mark.parametrize(("runtime", "case", "formats"), _variants())
def test_equals_runtime(runtime: str, case: Case, formats: Linear) -> None:
    for seed in range(12):
        draw = Draw(seed)
        assert_same(case(draw, formats), runtime, draw)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("formats", [INT8, INT16], ids=["int8", "int16"])
def test_grouped_convolution_equals_runtime(runtime: str, formats: Linear) -> None:
    for seed in range(12):
        draw = Draw(seed)
        assert_same(conv_case(draw, formats, groups=True), runtime, draw)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16])
def test_batch_matmul_equals_runtime(runtime: str, dtype: DType) -> None:
    for seed in range(12):
        draw = Draw(seed)
        assert_same(batch_matmul_case(draw, dtype), runtime, draw)


@pytest.mark.parametrize(
    ("runtime", "case", "formats"),
    [
        ("tflite-micro", conv_case, INT16_INT4),
        ("tflite-micro", depthwise_case, INT16_INT4),
        ("tflite-micro", fully_connected_case, INT16_INT4),
        ("tflite-micro", fully_connected_case, INT4),
        ("litert-reference", depthwise_case, INT4),
        ("litert-reference", depthwise_case, INT16_INT32),
    ],
)
def test_runtime_refuses_what_the_profile_says_it_does_not_run(
    runtime: str, case: Case, formats: Linear
) -> None:
    draw = Draw(0)
    graph = case(draw, formats)
    inputs = [draw.codes((1, *graph["x"].shape), graph["x"].dtype)]
    with pytest.raises(RuntimeRefusedError):
        run_runtime(runtime, write_tflite(graph), inputs)


@pytest.mark.parametrize(
    ("runtime", "case"),
    [
        ("tflite-micro", depthwise_case),
        ("litert-reference", conv_case),
        ("litert-reference", depthwise_case),
        ("litert-reference", fully_connected_case),
    ],
)
def test_profile_refuses_an_int32_bias_that_its_runtime_misreads(runtime: str, case: Case) -> None:
    draw = Draw(0)
    graph = case(draw, INT16_INT32)
    inputs = [draw.codes((1, *graph["x"].shape), DType.INT16)]
    with pytest.raises(UnsupportedError, match="int32 bias 'bias' beside int16") as caught:
        execute(graph, inputs, PROFILES[runtime])
    assert "int64" in caught.value.fix


def _fully_connected(weight: Tensor, depth: int) -> Graph:
    quantization = Quantization.per_tensor(0.5)
    x = Tensor("x", (1, depth), DType.INT8, quantization)
    y = Tensor("y", (1, weight.shape[0]), DType.INT8, Quantization.per_tensor(1e6))
    return graph_of(ir.FullyConnected("fc", ("x", "weight"), ("y",)), x, weight, y)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", [ir.Conv2D, ir.FullyConnected])
def test_sums_beyond_24_bits_are_exact(kind: type[Op], runtime: str) -> None:
    """The bias cancels a sum of 30 million, so that a single lost bit of it is an output step."""
    depth, one = 2000, Quantization.per_tensor(1.0)
    lead = (1, 1) if kind is ir.Conv2D else ()
    weight = Tensor(
        "weight", (1, *lead, depth), DType.INT8, one, np.full((1, *lead, depth), 127, np.int8)
    )
    cancel = np.array([-127 * 120 * depth], np.int32)
    bias = Tensor("bias", (1,), DType.INT32, one, cancel)
    x = Tensor("x", (1, *lead, depth), DType.INT8, one)
    y = Tensor("y", (1, *lead, 1), DType.INT8, one)
    graph = graph_of(kind("op", ("x", "weight", "bias"), ("y",)), x, weight, bias, y)
    codes = np.full((3, *x.shape), 120, np.int8)
    codes[1, ..., 7] += 1
    codes[2, ..., 9] -= 1
    wanted = run_runtime(runtime, write_tflite(graph), [codes])
    assert wanted.reshape(-1).tolist() == [0, 127, -127]
    np.testing.assert_array_equal(execute(graph, [codes], PROFILES[runtime])["y"], wanted)


@pytest.mark.parametrize("case", [conv_case, depthwise_case, fully_connected_case])
def test_weight_zero_point_is_refused(case: Case) -> None:
    draw = Draw(3)
    graph = case(draw, Linear(per_channel=False))
    weight = graph["weight"]
    shifted = Tensor(
        "weight", weight.shape, weight.dtype, Quantization.per_tensor(0.1, 3), weight.data
    )
    inputs = [draw.codes((1, *graph["x"].shape), DType.INT8)]
    with pytest.raises(UnsupportedError, match="'weight' has a zero point other than 0"):
        execute(graph.with_tensors(shifted), inputs, PROFILES["tflite-micro"])


@pytest.mark.parametrize("dtype", [DType.INT16, DType.UINT8, DType.INT32])
def test_weight_of_another_type_is_refused(dtype: DType) -> None:
    codes = np.ones((2, 4), dtype.numpy)
    weight = Tensor("weight", (2, 4), dtype, Quantization.per_tensor(1.0), codes)
    with pytest.raises(UnsupportedError, match=f"weight 'weight' is {dtype}"):
        execute(_fully_connected(weight, 4), [np.zeros((1, 1, 4), np.int8)], PROFILES[RUNTIMES[0]])


def test_weight_scales_must_fit_the_channels() -> None:
    quantization = Quantization.per_channel([1.0, 2.0, 3.0], 0)
    weight = Tensor("weight", (2, 4), DType.INT8, quantization, np.ones((2, 4), np.int8))
    with pytest.raises(UnsupportedError, match="neither 1 nor 2 scales"):
        execute(_fully_connected(weight, 4), [np.zeros((1, 1, 4), np.int8)], PROFILES[RUNTIMES[0]])


def test_weight_that_is_an_activation_is_refused() -> None:
    quantization = Quantization.per_tensor(1.0)
    weight = Tensor("weight", (2, 4), DType.INT8, quantization)
    inputs = [np.zeros((1, 1, 4), np.int8), np.zeros((1, 2, 4), np.int8)]
    with pytest.raises(UnsupportedError, match="'weight'\\) is not a constant"):
        execute(_fully_connected(weight, 4), inputs, PROFILES[RUNTIMES[0]])
