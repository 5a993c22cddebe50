"""Requantization against arithmetic on Python's unbounded integers and exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.targets.graph.requantize import (
    INT32_MAX,
    INT32_MIN,
    Multiplier,
    Rounding,
    high_mul,
    multiply_double_rounding,
    multiply_single_rounding,
    multiply_wide,
    quantize_multiplier,
    requantize,
    round_half_away,
    rounding_divide_by_pot,
    saturate,
    wrap_int32,
)

INT32 = st.integers(INT32_MIN, INT32_MAX)
MULTIPLIER = st.integers(1 << 30, INT32_MAX)
REAL = st.floats(1e-9, 1e6)


def of(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def half_away(value: Fraction) -> int:
    return half_up(value) if value >= 0 else -half_up(-value)


def wrapped(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


@given(REAL)
def test_multiplier_has_31_bits_and_is_nearest(real: float) -> None:
    by = quantize_multiplier(real)
    multiplier, shift = int(by.multiplier[0]), int(by.shift[0])
    assert 1 << 30 <= multiplier <= INT32_MAX
    step = Fraction(2) ** (shift - 31)
    assert abs(Fraction(real) - multiplier * step) <= step / 2


@pytest.mark.parametrize(
    ("real", "multiplier", "shift"),
    [
        (0.0, 0, 0),
        (1.0, 1 << 30, 1),
        (0.5, 1 << 30, 0),
        (1 - 2.0**-40, 1 << 30, 1),  # rounds up to a power of two
        (2.0**-31, 1 << 30, -30),
        (2.0**-33, 0, 0),  # vanishes
    ],
)
def test_multiplier_at_the_edges(real: float, multiplier: int, shift: int) -> None:
    by = quantize_multiplier(real)
    assert (int(by.multiplier[0]), int(by.shift[0])) == (multiplier, shift)


@pytest.mark.parametrize("real", [-1.0, float("nan"), float("inf")])
def test_multiplier_must_be_finite_and_positive(real: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        quantize_multiplier([0.5, real])


@given(INT32, INT32)
def test_high_mul_rounds_ties_up_and_saturates(a: int, b: int) -> None:
    exact = half_up(Fraction(a * b, 1 << 31))
    assert int(high_mul(of(a), b)[0]) == min(exact, INT32_MAX)


@given(INT32, st.integers(0, 31))
def test_divide_by_power_of_two_rounds_ties_away(value: int, exponent: int) -> None:
    found = int(rounding_divide_by_pot(of(value), exponent)[0])
    assert found == half_away(Fraction(value, 1 << exponent))


@given(INT32, MULTIPLIER, st.integers(-31, 8))
def test_double_rounding(value: int, multiplier: int, shift: int) -> None:
    raised = wrapped(value << max(shift, 0))
    first = min(half_up(Fraction(raised * multiplier, 1 << 31)), INT32_MAX)
    wanted = half_away(Fraction(first, 1 << max(-shift, 0)))
    found = multiply_double_rounding(of(value), Multiplier(of(multiplier), of(shift)))
    assert int(found[0]) == wanted


@given(INT32, MULTIPLIER, st.integers(-31, 8))
def test_single_rounding(value: int, multiplier: int, shift: int) -> None:
    found = multiply_single_rounding(of(value), Multiplier(of(multiplier), of(shift)))
    assert int(found[0]) == half_up(Fraction(value * multiplier, 1 << (31 - shift)))


@given(st.integers(-(1 << 40), 1 << 40), MULTIPLIER, st.integers(-31, -10))
def test_wide_uses_sixteen_bits_of_the_multiplier(value: int, multiplier: int, shift: int) -> None:
    reduced = min(half_up(Fraction(multiplier, 1 << 16)), 0x7FFF)
    wanted = wrapped(half_up(Fraction(value * reduced, 1 << (15 - shift))))
    found = multiply_wide(of(value), Multiplier(of(multiplier), of(shift)))
    assert int(found[0]) == wanted


@given(st.lists(INT32, min_size=3, max_size=3), st.lists(REAL, min_size=3, max_size=3))
def test_channels_are_scaled_by_their_own_multiplier(values: list[int], reals: list[float]) -> None:
    """Left shifts, right shifts and none beside each other in one array."""
    together = requantize(of(*values), reals, Rounding.DOUBLE)
    alone = [
        int(requantize(of(value), real, Rounding.DOUBLE)[0])
        for value, real in zip(values, reals, strict=True)
    ]
    assert together.tolist() == alone


@given(INT32, st.floats(1e-9, 1.0))
def test_float64_rounds_the_double_product_half_away(value: int, real: float) -> None:
    found = int(requantize(of(value), real, Rounding.FLOAT64)[0])
    assert found == half_away(Fraction(float(value) * real))


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.5, 1), (-0.5, -1), (0.49999999999999994, 0), (2.5, 3), (-1.2, -1)]
)
def test_round_half_away(value: float, rounded: int) -> None:
    assert float(round_half_away(np.array([value]))[0]) == rounded


def test_variants_differ_where_they_should() -> None:
    """By one at most, and at negative ties: -2 / 4 is -1 rounded twice and 0 rounded once."""
    values = np.arange(-200_000, 200_000, dtype=np.int64)
    double = requantize(values, 0.000123, Rounding.DOUBLE)
    single = requantize(values, 0.000123, Rounding.SINGLE)
    assert abs(double - single).max() <= 1
    assert (double != single).any()
    variants = (Rounding.DOUBLE, Rounding.SINGLE, Rounding.FLOAT64)
    assert [int(requantize(of(-2), 0.25, each)[0]) for each in variants] == [-1, 0, -1]


@given(st.integers(-(1 << 40), 1 << 40))
def test_wrap_is_twos_complement(value: int) -> None:
    assert int(wrap_int32(of(value))[0]) == wrapped(value)


def test_saturate_holds_both_ends() -> None:
    assert saturate(of(-5, 0, 5), -1, 2).tolist() == [-1, 0, 2]
