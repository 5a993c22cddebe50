"""Layer normalization in integers: close to real arithmetic, and within the widths it states."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.errors import ModelFileError, UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.reference.normalization import (
    LayerNormPlan,
    normalize_rows,
    plan_layer_norm,
    reciprocal_root,
)
from edgesmith.targets.graph.shapes import infer

Reals = npt.NDArray[np.float64]
TYPES = (DType.INT8, DType.INT16)


def most(graph: Graph, plan: LayerNormPlan, exact: Reals) -> float:
    """Codes between a result and the real value: rounding, and what the fixed point adds."""
    gamma = graph["gamma"]
    gain = gamma.dtype.qmax * float(gamma.q.scale[0]) / float(graph["y"].q.scale[0])
    return float(0.5 + 2.0**-plan.shift + gain * 2.0**-21 + np.abs(exact).max() * 2.0**-26)


@st.composite
def norms(draw: st.DrawFn) -> Graph:
    """A layer norm on [4, n] with any scales that calibration may choose."""
    dtype = draw(st.sampled_from(TYPES))
    gamma_type = draw(st.sampled_from(TYPES))
    size = draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    steps = 1 if dtype is DType.INT8 else 256
    zeros = [0 if dtype is DType.INT16 else draw(st.integers(-128, 127)) for _ in range(2)]
    source = draw(st.floats(1e-5, 1.0)) / steps
    result = draw(st.floats(0.01, 0.1)) / steps
    epsilon = draw(st.sampled_from([0.0, 1e-12, 1e-6, 1e-5, 1e-3]))
    gamma = rng.integers(-gamma_type.qmax, gamma_type.qmax, size, endpoint=True)
    beta = rng.integers(-(1 << 23), 1 << 23, size)
    tensors = (
        Tensor("x", (4, size), dtype, Quantization.per_tensor(source, zeros[0])),
        Tensor(
            "gamma",
            (size,),
            gamma_type,
            Quantization.per_tensor(1.5 / gamma_type.qmax),
            gamma.astype(gamma_type.numpy),
        ),
        Tensor("beta", (size,), DType.INT32, Quantization.per_tensor(2**-23), beta.astype("i4")),
        Tensor("y", (4, size), dtype, Quantization.per_tensor(result, zeros[1])),
    )
    op = ir.LayerNorm("op", ("x", "gamma", "beta"), ("y",), epsilon)
    return Graph("norm", {tensor.name: tensor for tensor in tensors}, (op,), ("x",), ("y",))


def rows(graph: Graph, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Noise, noise of few codes, one element apart from the rest, and both extremes."""
    x = graph["x"]
    low, high, size = x.dtype.qmin, x.dtype.qmax, x.shape[1]
    alone = np.full(size, low)
    alone[rng.integers(size)] = high
    found = [
        rng.integers(low, high, size, endpoint=True),
        rng.integers(-3, 3, size),
        alone,
        rng.choice([low, high], size),
    ]
    return np.stack(found).astype(np.int64)


def plan_of(graph: Graph) -> LayerNormPlan:
    op = graph.ops[0]
    assert isinstance(op, ir.LayerNorm)
    beta = graph["beta"] if len(op.inputs) > 2 else None
    return plan_layer_norm(graph["x"], graph["gamma"], beta, graph["y"], op.epsilon)


def real_codes(graph: Graph, codes: npt.NDArray[np.int64]) -> Reals:
    """The output codes before rounding and clamping, in float64."""
    op = graph.ops[0]
    assert isinstance(op, ir.LayerNorm)
    x, y = graph["x"], graph["y"]
    reals = codes * np.float64(x.q.scale[0])
    centred = reals - reals.mean(axis=-1, keepdims=True)
    spread = np.sqrt(reals.var(axis=-1, keepdims=True) + np.float64(np.float32(op.epsilon)))
    normal = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    gamma, beta = (
        graph[name].data * np.float64(graph[name].q.scale[0])  # type: ignore[operator]
        for name in ("gamma", "beta")
    )
    result: Reals = (normal * gamma + beta) / np.float64(y.q.scale[0]) + y.q.zero_point[0]
    return result


@settings(max_examples=300, deadline=None)
@given(norms(), st.integers(0, 1 << 32))
def test_codes_are_those_of_real_arithmetic(graph: Graph, seed: int) -> None:
    codes = rows(graph, np.random.default_rng(seed))
    # Rows whose codes are all alike have no direction: their real value is 0 / sqrt(epsilon).
    plan = plan_of(graph)
    found, exact = normalize_rows(codes, plan), real_codes(graph, codes)
    assert np.abs(found - exact).max() <= most(graph, plan, exact)
    if graph["x"].dtype is DType.INT8:
        assert most(graph, plan, np.clip(exact, -128, 127)) < 0.5 + 1 / 500
    y = graph["y"]
    inputs = [codes.astype(graph["x"].dtype.numpy)[np.newaxis]]
    expected = np.clip(found, y.dtype.qmin, y.dtype.qmax)
    for profile in PROFILES.values():
        np.testing.assert_array_equal(execute(graph, inputs, profile)["y"][0], expected)


def one_row(codes: list[int], plan: LayerNormPlan) -> list[int]:
    """The definition with Python's integers, every width that C relies on checked."""

    def fits(value: int, bits: int) -> int:
        assert -(1 << (bits - 1)) <= value < 1 << (bits - 1)
        return value

    total, squares = fits(sum(codes), 32), fits(sum(q * q for q in codes), 64)
    spread = fits(plan.size * squares - total * total, 64)
    value = max(fits((spread << plan.extra_bits) + plan.epsilon, 63), 1 << plan.extra_bits)
    zeros = (64 - value.bit_length()) & ~1
    mantissa = (value << zeros) >> 32
    assert 1 << 30 <= mantissa < 1 << 32
    root = fits(int(reciprocal_root(np.array([mantissa], np.uint64))[0]), 32)
    right = 41 - (plan.extra_bits + zeros) // 2
    assert 10 <= right <= 41
    made = []
    for q, gain, offset in zip(codes, plan.gain.tolist(), plan.offset.tolist(), strict=True):
        centred = fits(plan.size * q - total, 32)
        normal = fits((fits(centred * root, 64) + (1 << (right - 1))) >> right, 29)
        if right <= 32:
            high = (fits(centred << (32 - right), 32) * root + (1 << 31)) >> 32
            assert high == normal
        product = fits(fits(gain, 32) * normal + (1 << 31), 64) >> 32
        made.append(fits(product + fits(offset, 32), 32) >> plan.shift)
    return made


@settings(max_examples=150, deadline=None)
@given(norms(), st.integers(0, 1 << 32))
def test_a_row_in_plain_integers_of_the_stated_widths(graph: Graph, seed: int) -> None:
    codes = rows(graph, np.random.default_rng(seed))
    plan = plan_of(graph)
    found = normalize_rows(codes, plan)
    assert [one_row(row, plan) for row in codes.tolist()] == found.tolist()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [4096, 32768])
def test_the_longest_rows_fit_the_widths(size: int, dtype: DType) -> None:
    ones, zero = np.full(size, 127, np.int8), np.zeros(size, np.int32)
    x = Tensor("x", (size,), dtype, Quantization.per_tensor(0.05))
    gamma = Tensor("gamma", (size,), DType.INT8, Quantization.per_tensor(1 / 127), ones)
    beta = Tensor("beta", (size,), DType.INT32, Quantization.per_tensor(1.0), zero)
    y = replace(x, name="y", quantization=Quantization.per_tensor(8 / dtype.qmax))
    plan = plan_layer_norm(x, gamma, beta, y, 1e-5)
    row = [dtype.qmin] * size
    row[0] = dtype.qmax
    found = one_row(row, plan)
    assert found[0] / (dtype.qmax / 8) == pytest.approx(math.sqrt(size - 1), rel=1e-2)
    assert set(found[1:]) == {round(-dtype.qmax / 8 / math.sqrt(size - 1))}


@given(st.lists(st.integers(1 << 30, (1 << 32) - 1), min_size=1, max_size=50))
def test_reciprocal_root_is_right_to_two_units(mantissas: list[int]) -> None:
    exact = [2.0**29 / math.sqrt(m / 2**32) for m in mantissas]
    found = reciprocal_root(np.array(mantissas, np.uint64)).astype(np.float64)
    assert np.abs(found - exact).max() < 2


def norm(**changes: Tensor) -> Graph:
    codes = np.arange(1, 5)
    tensors = {
        "x": Tensor("x", (2, 4), DType.INT8, Quantization.per_tensor(0.05)),
        "gamma": Tensor(
            "gamma", (4,), DType.INT16, Quantization.per_tensor(0.01), codes.astype(np.int16)
        ),
        "beta": Tensor(
            "beta", (4,), DType.INT32, Quantization.per_tensor(0.01), codes.astype(np.int32)
        ),
        "y": Tensor("y", (2, 4), DType.INT8, Quantization.per_tensor(0.05)),
    }
    op = ir.LayerNorm("op", ("x", "gamma", "beta"), ("y",))
    return Graph("norm", {**tensors, **changes}, (op,), ("x",), ("y",))


def test_a_constant_row_gives_beta() -> None:
    graph = norm()
    for code in (-128, 0, 127):
        found = execute(graph, [np.full((1, 2, 4), code, np.int8)], PROFILES["tflite-micro"])["y"]
        np.testing.assert_array_equal(found[0], np.tile([0, 0, 1, 1], (2, 1)))


REFUSED: dict[str, tuple[Graph, str]] = {
    "wide-gamma": (
        norm(gamma=replace(norm()["gamma"], dtype=DType.INT32, data=np.ones(4, np.int32))),
        "gamma 'gamma' is int32",
    ),
    "zero-point": (
        norm(gamma=replace(norm()["gamma"], quantization=Quantization.per_tensor(0.01, 3))),
        "'gamma' is not a symmetric constant",
    ),
    "tiny-input-scale": (
        norm(x=replace(norm()["x"], quantization=Quantization.per_tensor(1e-12))),
        "epsilon 1e-05 is beyond 64 bits",
    ),
    "tiny-output-scale": (
        norm(y=replace(norm()["y"], quantization=Quantization.per_tensor(1e-12))),
        "too large for the output scale",
    ),
}


@pytest.mark.parametrize(("graph", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(graph: Graph, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=f"LayerNorm 'op': .*{reason}|{reason}") as caught:
        execute(graph, [np.zeros((1, 2, 4), np.int8)], PROFILES["tflite-micro"])
    assert caught.value.fix


def test_parameters_have_one_value_per_element() -> None:
    graph = norm()
    short = replace(graph["gamma"], shape=(3,))
    with pytest.raises(ModelFileError, match=r"LayerNorm 'op' has a parameter of shape \[3\]"):
        infer(graph.ops[0], (graph["x"], short, graph["beta"]))
