"""What the DSP kernels store: every packing inverts, and requantization words mean the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgesmith.targets.c import packing
from edgesmith.targets.c.lowerings.dsp_tail import DspTail, channel_tail
from edgesmith.targets.graph.ir import DType
from edgesmith.targets.graph.reference.linear import Tail
from edgesmith.targets.graph.requantize import Rounding

Codes = npt.NDArray[np.int8]

SHAPES = st.tuples(st.integers(1, 19), st.integers(1, 23))
NINES = st.tuples(st.integers(1, 19), st.just(9))
GROUPS = st.sampled_from([4, 8])


def codes(shapes: st.SearchStrategy[tuple[int, int]], low: int) -> st.SearchStrategy[Codes]:
    return arrays.arrays(np.int8, shapes, elements=st.integers(low, -low - 1))


@given(codes(SHAPES, -128), GROUPS)
def test_int8_words_invert(weights: Codes, group: int) -> None:
    words = packing.pack_matrix_s8(weights, group)
    if packing.fits_matrix_s8(weights):
        found = packing.unpack_matrix_s8(words, weights.shape, group)
        np.testing.assert_array_equal(found, weights)


@given(codes(SHAPES, -128))
def test_what_does_not_fit_a_half_is_found(weights: Codes) -> None:
    pairs = np.zeros((weights.shape[0] + weights.shape[0] % 2, weights.shape[1]), np.int64)
    pairs[: len(weights)] = weights
    halves = 256 * pairs[1::2] + pairs[0::2]
    assert packing.fits_matrix_s8(weights) == bool((halves >= -(1 << 15)).all())


@given(codes(SHAPES, -128), GROUPS)
def test_wide_words_invert(weights: Codes, group: int) -> None:
    words = packing.pack_matrix_wide(weights, group)
    np.testing.assert_array_equal(packing.unpack_matrix_wide(words, weights.shape, group), weights)


@given(codes(SHAPES, -8), GROUPS)
def test_int4_words_invert(weights: Codes, group: int) -> None:
    words = packing.pack_matrix_s4(weights, group)
    found = packing.unpack_matrix_s4(words, weights.shape, group)
    np.testing.assert_array_equal(found, weights)
    assert 2 * words.nbytes == packing.pack_matrix_s8(weights, group).nbytes


@given(codes(NINES, -128), codes(NINES, -8))
def test_3x3_windows_invert(wide: Codes, narrow: Codes) -> None:
    packed = packing.pack_3x3_s8(wide)
    np.testing.assert_array_equal(packing.unpack_3x3_s8(packed, len(wide)), wide)
    packed = packing.pack_3x3_s4(narrow)
    np.testing.assert_array_equal(packing.unpack_3x3_s4(packed, len(narrow)), narrow)
    assert packed.nbytes <= 5 * len(narrow) + 3


def tail_of(real: float, bias: int, zero: int, limits: tuple[int, int]) -> Tail:
    return Tail(
        bias=np.array([bias], np.int64),
        real=np.array([real]),
        rounding=Rounding.DOUBLE,
        wide=False,
        zero=zero,
        limits=limits,
        dtype=DType.INT8,
    )


def kernel_codes(found: DspTail, products: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What the kernels make of sums of products of the only channel, step by step."""
    channels = found.channels
    sums = products + channels.bias[0]
    word = int(channels.rounding[0])
    centre = (word >> 8) - (1 << 24 if word >> 31 else 0)
    high = ((2 * sums * channels.multiplier[0] + (1 << 31)) >> 32) + centre
    if not found.floored:
        high += sums >> 63
    low, top = found.limits
    saturated = np.clip(high >> (word & 0xFF), -128, 127)
    return np.asarray(np.clip(saturated, low, top), np.int64)


@given(
    real=st.floats(1e-9, 0.999) | st.sampled_from([0.5, 2.0**-8, 2.0**-24, 1e-12]),
    bias=st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-5000, 5000),
    zero=st.integers(-128, 127),
    clamp=st.sampled_from(["none", "relu", "relu6"]),
    weights=arrays.arrays(np.int8, 6, elements=st.integers(-127, 127)),
    input_zero=st.integers(-128, 127),
    seed=st.integers(0, 2**32 - 1),
)
def test_requantization_words_equal_the_reference(
    real: float, bias: int, zero: int, clamp: str, weights: Codes, input_zero: int, seed: int
) -> None:
    low = -128 if clamp == "none" else zero
    high = min(127, zero + 60) if clamp == "relu6" else 127
    tail = tail_of(real, bias, zero, (low, high))
    found = channel_tail(tail, weights[np.newaxis], input_zero)
    if isinstance(found, str):
        return
    random = np.random.default_rng(seed)
    inputs = random.integers(-128, 128, (512, 6))
    inputs[0], inputs[1] = np.where(weights > 0, 127, -128), np.where(weights > 0, -128, 127)
    products = inputs @ weights.astype(np.int64)
    expected = tail.apply((products - input_zero * int(weights.astype(int).sum()))[:, np.newaxis])
    np.testing.assert_array_equal(kernel_codes(found, products), expected[:, 0])


@pytest.mark.parametrize("bias", [1073741824, -1073741824, 5000])
def test_a_channel_without_weights_is_taken(bias: int) -> None:
    tail = tail_of(1e-8, bias, -128, (-128, 127))
    found = channel_tail(tail, np.zeros((1, 4), np.int8), -128)
    assert isinstance(found, DspTail)
    assert found.channels.multiplier[0] == 0


def test_a_small_multiplier_beside_a_large_bias_is_taken() -> None:
    """From a converter: a depthwise channel whose code is 18 or 19, with a shift of 20."""
    real, bias = 1565063334 / 2**31 / 2**20, 26571660
    weights = np.array([[127, -80, 65, -70, 60, 75, -50, 40, 46]], np.int8)
    tail = tail_of(real, bias, -128, (-128, 127))
    found = channel_tail(tail, weights, -128)
    assert isinstance(found, DspTail)
    reach = np.abs(weights.astype(int)).sum() * 255
    products = np.arange(-reach, reach, 7, dtype=np.int64) - 128 * weights.astype(int).sum()
    expected = tail.apply((products + 128 * weights.astype(int).sum())[:, np.newaxis])
    np.testing.assert_array_equal(kernel_codes(found, products), expected[:, 0])


@pytest.mark.parametrize(
    ("real", "reason"), [(1.5, "too large for a right shift"), (0.7, "too large for a right shift")]
)
def test_multipliers_beyond_the_kernels_are_declined(real: float, reason: str) -> None:
    found = channel_tail(tail_of(real, 0, 0, (-128, 127)), np.ones((1, 4), np.int8), 0)
    assert isinstance(found, str)
    assert reason in found
