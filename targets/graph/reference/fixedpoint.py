"""Fixed-point transcendental functions of gemmlowp, vectorized.

A Qm.n value is an int32 with m integer and n = 31 - m fraction bits, held in int64.
Polynomials and constants follow gemmlowp's `fixedpoint/fixedpoint.h`; the arithmetic is its
rounding doubling high multiplication, so results equal the C++ code in every bit.
"""

from __future__ import annotations

import numpy as np

from edgesmith.targets.graph.requantize import (
    INT32_MAX,
    INT32_MIN,
    Int64Array,
    high_mul,
    rounding_divide_by_pot,
    saturate,
    wrap_int32,
)

# exp(-2**k) in Q0.31 for k = -2 .. 4.
_EXP_OF_POWER = {
    -2: 1672461947,
    -1: 1302514674,
    0: 790015084,
    1: 290630308,
    2: 39332535,
    3: 720401,
    4: 242,
}
_EXP_OF_MINUS_EIGHTH = 1895147668  # Q0.31
_ONE_THIRD = 715827883  # Q0.31
_48_OVER_17, _MINUS_32_OVER_17 = 1515870810, -1010580540  # Q2.29


def saturating_shift_left(values: Int64Array, bits: int) -> Int64Array:
    """values * 2**bits, saturated to int32 (SaturatingRoundingMultiplyByPOT, positive exponent)."""
    return saturate(values << bits, INT32_MIN, INT32_MAX)


def _exp_near_zero(values: Int64Array) -> Int64Array:
    """exp(x) in Q0.31 for x in [-1/4, 0), Q0.31: a Taylor expansion around -1/8."""
    x = values + (1 << 28)
    squared = high_mul(x, x)
    cubed = high_mul(squared, x)
    fourth = rounding_divide_by_pot(high_mul(squared, squared), 2)
    tail = rounding_divide_by_pot(high_mul(fourth + cubed, _ONE_THIRD) + squared, 1)
    return _EXP_OF_MINUS_EIGHTH + high_mul(x + tail, _EXP_OF_MINUS_EIGHTH)


def exp_on_negative_values(values: Int64Array, integer_bits: int) -> Int64Array:
    """exp(x) in Q0.31 for x <= 0 in Q(integer_bits)."""
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    small = (values & (quarter - 1)) - quarter
    result = _exp_near_zero(saturating_shift_left(small, integer_bits))
    remainder = small - values
    for exponent, factor in _EXP_OF_POWER.items():
        if exponent < integer_bits:
            present = (remainder >> (fraction_bits + exponent)) & 1
            result = np.where(present == 1, high_mul(result, factor), result)
    return np.where(values == 0, INT32_MAX, result)


def _reciprocal(values: Int64Array) -> Int64Array:
    """2 / (1 + x) in Q2.29 for x in [0, 1], Q0.31: three Newton-Raphson steps."""
    # RoundingHalfSum of x and one; both are positive, so its rounding is plain.
    half_denominator = (values + INT32_MAX + 1) >> 1
    x = _48_OVER_17 + high_mul(half_denominator, _MINUS_32_OVER_17)
    for _ in range(3):
        error = (1 << 29) - high_mul(half_denominator, x)
        x = x + saturating_shift_left(high_mul(x, error), 2)
    return wrap_int32(x)


def one_over_one_plus_x(values: Int64Array) -> Int64Array:
    """1 / (1 + x) in Q0.31 for x in [0, 1], Q0.31."""
    return saturating_shift_left(_reciprocal(values), 1)


def one_minus_x_over_one_plus_x(values: Int64Array) -> Int64Array:
    """(1 - x) / (1 + x) in Q0.31 for x in [0, 1], Q0.31."""
    return saturating_shift_left(_reciprocal(values) - (1 << 29), 2)


def logistic(values: Int64Array, integer_bits: int) -> Int64Array:
    """1 / (1 + exp(-x)) in Q0.31 for x in Q(integer_bits)."""
    positive = one_over_one_plus_x(exp_on_negative_values(-np.abs(values), integer_bits))
    result = np.where(values > 0, positive, INT32_MAX - positive)
    return np.where(values == 0, 1 << 30, result)


def tanh(values: Int64Array, integer_bits: int) -> Int64Array:
    """tanh(x) in Q0.31 for x in Q(integer_bits)."""
    # Reading the same bits with one more integer bit doubles the value: exp(-2|x|).
    exp = exp_on_negative_values(-np.abs(values), integer_bits + 1)
    magnitude = one_minus_x_over_one_plus_x(exp)
    return np.where(values == 0, 0, np.where(values < 0, -magnitude, magnitude))
