"""Ranges, scales and codes: properties for all inputs, and brute force as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import entropy

from edgesmith.pipeline.values import (
    INT4_WEIGHT,
    INT8_ACTIVATION,
    INT8_WEIGHT,
    INT16_ACTIVATION,
    QFormat,
)
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.fakequant import AffineQuantizer
from edgesmith.quantize.histogram import BINS, Histogram
from edgesmith.quantize.options import WEIGHT_FORMATS
from edgesmith.quantize.ranges_kl import MAGNITUDES, divergence, kl_range
from edgesmith.quantize.ranges_mse import mse_range
from edgesmith.quantize.ranges_percentile import percentile_range
from edgesmith.quantize.weights import bias_codes, find_scales
from tests.quantize.nets import FloatArray

finite = st.floats(-1e6, 1e6, width=32)
formats = st.sampled_from([INT8_ACTIVATION, INT16_ACTIVATION])


@given(finite, finite, formats)
@example(0.0, 0.0, INT8_ACTIVATION)
@example(3.0, 5.0, INT8_ACTIVATION)
@example(-5.0, -3.0, INT8_ACTIVATION)
@example(1e-38, 2e-38, INT8_ACTIVATION)
def test_a_range_is_covered_and_zero_is_a_code(low: float, high: float, fmt: QFormat) -> None:
    low, high = min(low, high), max(low, high)
    affine = Affine.of_range(low, high, fmt)
    assert affine.scale.dtype == np.float32
    assert affine.scale > 0
    assert fmt.qmin <= affine.zero_point <= fmt.qmax
    assert not fmt.symmetric or affine.zero_point == 0
    ends = np.array([low, high, 0.0], np.float32)
    back = affine.dequantize(affine.codes(ends))
    assert back[2] == 0.0
    # Half a step for rounding, half a step because the zero point is an integer.
    assert np.abs(back - ends).max() <= affine.scale * 1.001


@given(
    arrays.arrays(np.float32, 40, elements=st.floats(-100, 100, width=32)),
    st.floats(0.015625, 2, width=32),
    st.integers(-128, 127),
)
def test_the_fake_quantizer_computes_the_codes(x: FloatArray, scale: float, zero: int) -> None:
    """torch module and NumPy agree in every bit, ties and saturation included."""
    affine = Affine(np.float32(scale), zero, INT8_ACTIVATION)
    module = AffineQuantizer(torch.tensor(affine.scale), zero, INT8_ACTIVATION)
    expected = affine.dequantize(affine.codes(x))
    np.testing.assert_array_equal(module(torch.from_numpy(x))[0].numpy(), expected)


def histogram(values: FloatArray) -> Histogram:
    made = Histogram(float(values.min()), float(values.max()))
    for part in np.array_split(values, 3):
        made.add(torch.from_numpy(part))
    return made


def mse(values: FloatArray, low: float, high: float, fmt: QFormat = INT8_ACTIVATION) -> float:
    affine = Affine.of_range(low, high, fmt)
    return float(np.square(values - affine.dequantize(affine.codes(values))).mean())


def samples(kind: str) -> FloatArray:
    rng = np.random.default_rng(3)
    drawn = {
        "normal": rng.normal(0.3, 1, 40_000),
        "relu": np.maximum(rng.normal(0, 1, 40_000), 0),
        "outliers": np.concatenate([rng.normal(0, 1, 40_000), [80.0, -30.0]]),
        "heavy": rng.standard_t(3, 40_000),
        "uniform": rng.uniform(-1, 3, 40_000),
        "positive": rng.uniform(2, 3, 40_000),
    }
    return drawn[kind].astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "relu", "outliers", "heavy", "uniform", "positive"])
def test_mse_range_against_brute_force(kind: str) -> None:
    """On the values themselves: within 3 % of the best of a dense grid, never above min-max."""
    values = samples(kind)
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    grid = [
        mse(values, low * a, high * b)
        for a in (np.geomspace(1, 0.02, 40) if low < 0 else [1.0])
        for b in np.geomspace(1, 0.02, 40)
    ]
    found = mse(values, *mse_range(histogram(values), INT8_ACTIVATION))
    assert found <= min(grid) * 1.03
    assert found <= mse(values, low, high) * 1.0001


def test_fewer_bits_clip_more() -> None:
    """The error of coarse steps outweighs that of clipped tails, sooner with fewer codes."""
    made = histogram(samples("normal"))
    lengths = [
        high - low
        for low, high in (
            mse_range(made, fmt) for fmt in (QFormat(4), INT8_ACTIVATION, INT16_ACTIVATION)
        )
    ]
    assert lengths[0] < 0.8 * lengths[1]
    assert lengths[1] < 0.99 * lengths[2]


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("kind", ["normal", "relu", "heavy"])
def test_percentile_range_against_numpy(kind: str, percentile: float) -> None:
    """Between the neighbouring order statistics, to one bin, on both tails."""
    values = samples(kind)
    made = histogram(values)
    found = np.array(percentile_range(made, percentile))
    levels = [100 - percentile, percentile]
    assert (found >= np.percentile(values, levels, method="lower") - 1.5 * made.width).all()
    assert (found <= np.percentile(values, levels, method="higher") + 1.5 * made.width).all()


def brute_force_divergence(counts: list[float], kept: int, levels: int) -> float:
    """The pseudo code of Migacz's slides, bin by bin, with SciPy's entropy."""
    reference = counts[:kept]
    reference[-1] += sum(counts[kept:])
    candidate = [0.0] * kept
    for level in range(levels):
        merged = [i for i in range(kept) if i * levels // kept == level and counts[i] > 0]
        for i in merged:
            candidate[i] = sum(counts[j] for j in merged) / len(merged)
    return float(entropy(reference, candidate))


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy"])
def test_divergence_against_brute_force(kind: str) -> None:
    counts = np.histogram(np.abs(samples(kind)), 96)[0].astype(np.float64)
    for kept in (16, 17, 31, 64, 95, 96):
        expected = brute_force_divergence(counts.tolist(), kept, 16)
        assert divergence(counts, kept, 16) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy", "outliers"])
def test_kl_range_has_the_threshold_of_least_divergence(kind: str) -> None:
    """Magnitudes are counted from the values themselves; one threshold bounds both sides."""
    values = samples(kind)
    low, high = kl_range(histogram(values), QFormat(4))
    lowest, highest = float(values.min()), float(values.max())
    top, levels = max(-lowest, highest), 8 if lowest < 0 else 16
    counts = np.histogram(np.abs(values[values != 0]), MAGNITUDES, (0, top))[0].tolist()
    threshold = max(-low, high)
    kept = round(threshold / top * MAGNITUDES)
    assert threshold == pytest.approx(kept / MAGNITUDES * top)
    # The histogram knows values to one of its bins, so neighbouring thresholds may swap places.
    found = min(
        brute_force_divergence(list(map(float, counts)), bins, levels)
        for bins in range(max(kept - 2, levels), min(kept + 2, MAGNITUDES) + 1)
    )
    best = min(
        brute_force_divergence(list(map(float, counts)), bins, levels)
        for bins in range(levels, MAGNITUDES + 1, 16)
    )
    assert found <= best * 1.05 + 1e-6
    assert (low, high) == (max(lowest, -threshold, -top), min(highest, threshold)) or low == 0


def test_kl_clips_outliers_and_leaves_wide_formats_alone() -> None:
    made = histogram(np.append(samples("normal"), np.array([20, -8], np.float32)))
    low, high = kl_range(made, INT8_ACTIVATION)
    assert high < 6
    assert low > -6
    assert kl_range(made, INT16_ACTIVATION) == (made.low, made.high)


def test_histograms_count_everything_once() -> None:
    made = histogram(samples("relu"))
    assert made.counts.sum() == 40_000
    assert made.counts.shape == (BINS,)
    assert made.zeros == int((samples("relu") == 0).sum())


weights = arrays.arrays(
    np.float32, (3, 2, 2), elements=st.floats(-8, 8, width=32, allow_subnormal=False)
)


@given(weights, st.sampled_from(sorted(WEIGHT_FORMATS)), st.booleans())
@example(np.zeros((3, 2, 2), np.float32), "int8", True)
def test_weight_scales(weight: FloatArray, name: str, search: bool) -> None:
    """Codes use the narrow range; searching never loses to the largest magnitude."""
    fmt, bias = WEIGHT_FORMATS[name], np.zeros(3, np.float32)
    found = find_scales(weight, bias, np.float32(0.1), fmt, search=search)
    assert found.scale.shape == ((3,) if fmt.granularity == "per-channel" else (1,))
    assert (found.scale > 0).all()
    codes = found.codes(weight)
    assert fmt.is_float or np.abs(codes).max(initial=0) <= fmt.qmax
    plain = find_scales(weight, bias, np.float32(0.1), fmt, search=False)
    error = np.square(weight - found.dequantize(codes)).sum(dtype=np.float64)
    most = np.square(weight - plain.dequantize(plain.codes(weight))).sum(dtype=np.float64)
    assert error <= most * (1 + 1e-6) + 1e-30


def test_searching_helps_four_bits() -> None:
    weight = np.random.default_rng(0).standard_t(4, (8, 64)).astype(np.float32)
    errors = []
    for search in (False, True):
        scales = find_scales(
            weight, np.zeros(8, np.float32), np.float32(1), INT4_WEIGHT, search=search
        )
        errors.append(np.square(weight - scales.dequantize(scales.codes(weight))).mean())
    assert errors[1] < 0.93 * errors[0]


@settings(max_examples=50)
@given(st.floats(1e-30, 1e3), st.floats(-1e3, 1e3), st.floats(1e-6, 10))
def test_biases_always_fit_32_bits(size: float, bias: float, input_scale: float) -> None:
    """A dead channel with a large bias gets a larger weight scale instead of a saturated bias."""
    weight = np.full((1, 4), size, np.float32)
    biases, scale = np.array([bias], np.float32), np.float32(input_scale)
    scales = find_scales(weight, biases, scale, INT8_WEIGHT, search=False)
    codes = bias_codes(biases, scales, scale, 32)
    assert abs(int(codes[0])) <= 2**30 * 1.001
    step = float(scales.bias(scale)[0])
    assert abs(codes[0] * step - biases[0]) <= step * 0.51


def test_bias_codes_are_nearest_and_saturate() -> None:
    scales = find_scales(
        np.full((1, 1), 127, np.float32),
        np.zeros(1, np.float32),
        np.float32(1),
        INT8_WEIGHT,
        search=False,
    )
    assert scales.scale[0] == 1
    for bias, bits, code in [
        (2.5, 32, 2),
        (-3.5, 32, -4),
        (3e9, 32, 2**31 - 1),
        (-3e9, 32, -(2**31)),
        (3e9, 64, 3_000_000_000),
    ]:
        found = bias_codes(np.array([bias], np.float32), scales, np.float32(1), bits)
        assert found[0] == code
