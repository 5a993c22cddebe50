"""Weights and records as the MVE kernels read them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.targets.c.lowerings import mve_layout as layout

SEEDS = st.integers(0, 2**32 - 1)
BITS = st.sampled_from([8, 4])


def drawn(shape: tuple[int, int], bits: int, seed: int) -> np.ndarray:
    limit = 1 << (bits - 1)
    return np.random.default_rng(seed).integers(-limit, limit, shape).astype(np.int8)


@given(st.integers(1, 11), st.integers(1, 80), BITS, SEEDS)
def test_rows_come_back(outputs: int, depth: int, bits: int, seed: int) -> None:
    rows = drawn((outputs, depth), bits, seed)
    packed = layout.pack_rows(rows, bits)
    assert packed.size == outputs * -(-depth * bits // 8)
    np.testing.assert_array_equal(layout.unpack_rows(packed, outputs, depth, bits), rows)


@given(st.integers(1, 10), st.integers(1, 40), BITS, SEEDS)
def test_taps_come_back(taps: int, channels: int, bits: int, seed: int) -> None:
    codes = drawn((taps, channels), bits, seed)
    packed = layout.pack_taps(codes, bits)
    np.testing.assert_array_equal(layout.unpack_taps(packed, taps, channels, bits), codes)


@given(st.integers(1, 20), SEEDS)
def test_columns_come_back(channels: int, seed: int) -> None:
    codes = drawn((channels, 9), 8, seed)
    np.testing.assert_array_equal(layout.unpack_columns(layout.pack_columns(codes)), codes)


def test_four_rows_take_turns() -> None:
    rows = np.arange(4 * 18).reshape(4, 18).astype(np.int8)
    packed = layout.pack_rows(rows, 8)
    np.testing.assert_array_equal(packed[16:32], rows[1, :16])
    np.testing.assert_array_equal(packed[64:], rows[:, 16:].reshape(-1))


def test_a_record_of_16_has_every_fourth_channel_together() -> None:
    channels = np.arange(16)
    words = layout.pack_records(channels, channels + 100, -channels, 16)
    np.testing.assert_array_equal(words[:5], [0, 4, 8, 12, 1])
    np.testing.assert_array_equal(words[16:20], [100, 104, 108, 112])
    np.testing.assert_array_equal(words[32:].view(np.int8)[:5], [0, -4, -8, -12, -1])


def test_missing_channels_of_a_record_shift_right() -> None:
    """So that they do not make kernels take the way of left shifts."""
    one = np.array([-7])
    words = layout.pack_records(one, one, one, 4)
    np.testing.assert_array_equal(words[8:].view(np.int8), [-7, -1, -1, -1])
