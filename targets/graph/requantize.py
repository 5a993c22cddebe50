"""Integer requantization: scaling accumulators by a real number without using floats at run time.

A real multiplier M > 0 is stored as M = multiplier * 2**(shift - 31) with multiplier
in [2**30, 2**31). Applying it comes in variants that differ in the last bit:

    double rounding   round to nearest at bit 31 (ties up), then at the right
                      shift (ties away from zero); TFLite Micro and TFLite's
                      reference kernels
    single rounding   one 64-bit product, one rounding (ties up); builds with
                      TFLITE_SINGLE_ROUNDING
    wide              multiplier reduced to 16 bits for 48-bit accumulators, one
                      rounding; int16 activations with int64 bias
    float64           accumulator times M in double precision, rounded half away
                      from zero

Sources: TFLite `kernels/internal/quantization_util.cc` and `common.cc`; gemmlowp
`fixedpoint.h`. Everything is vectorized over int64 arrays; values that C holds in
int32 wrap as two's complement does.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

F = TypeVar("F", bound=np.floating)

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


class Rounding(StrEnum):
    """How a real multiplier is applied to an integer accumulator."""

    DOUBLE = "double"
    SINGLE = "single"
    FLOAT64 = "float64"


class Multiplier(NamedTuple):
    """multiplier * 2**(shift - 31), one per channel or one for all; both int64, shape [n]."""

    multiplier: Int64Array
    shift: Int64Array


def quantize_multiplier(real: npt.ArrayLike) -> Multiplier:
    """The fixed-point form of non-negative real multipliers, as TFLite's QuantizeMultiplier.

    Multipliers below 2**-32 become zero.

    Args:
        real: float64, any shape; the result is flat.

    Raises:
        ValueError: a multiplier is negative or not finite.
    """
    values = np.asarray(real, np.float64).reshape(-1)
    if not np.all(np.isfinite(values) & (values >= 0)):
        raise ValueError(f"multipliers must be finite and not negative, got {values}")
    fraction, exponent = np.frexp(values)
    multiplier = np.floor(fraction * (1 << 31) + 0.5).astype(np.int64)
    shift = exponent.astype(np.int64)
    overflow = multiplier == 1 << 31
    multiplier[overflow] >>= 1
    shift[overflow] += 1
    vanishes = shift < -31
    multiplier[vanishes] = 0
    shift[vanishes] = 0
    return Multiplier(multiplier, shift)


def wrap_int32(values: Int64Array) -> Int64Array:
    """Two's complement wrap of int64 values to the int32 range; a view where nothing wraps."""
    if values.size and (values.max() > INT32_MAX or values.min() < INT32_MIN):
        return values.astype(np.int32).astype(np.int64)
    return values


def saturate(values: Int64Array, low: int, high: int) -> Int64Array:
    """Values held to [low, high]."""
    return np.minimum(np.maximum(values, np.int64(low)), np.int64(high))


def rounding_divide_by_pot(values: Int64Array, exponent: npt.ArrayLike) -> Int64Array:
    """values / 2**exponent, rounded half away from zero (gemmlowp RoundingDivideByPOT)."""
    shift = np.asarray(exponent, np.int64)
    half = (np.int64(1) << shift) >> 1
    # A negative value is lowered by one so that its tie falls away from zero; not without a shift.
    lowered = (values >> 63) & -(shift > 0).astype(np.int64)
    lowered += values
    lowered += half
    lowered >>= shift
    return lowered


def high_mul(a: Int64Array, b: npt.ArrayLike) -> Int64Array:
    """round(a * b / 2**31), ties up, saturated to int32 (SaturatingRoundingDoublingHighMul).

    gemmlowp's nudge by sign followed by truncation is the same as floor((a * b + 2**30) / 2**31).
    """
    product = a * np.asarray(b, np.int64)
    product += 1 << 30
    product >>= 31
    np.minimum(product, INT32_MAX, out=product)
    return product


def multiply_double_rounding(values: Int64Array, by: Multiplier) -> Int64Array:
    """MultiplyByQuantizedMultiplier on int32 values with two roundings.

    Args:
        values: int64 array of int32 values, channels last.
        by: one multiplier, or one per channel.
    """
    left, right = np.maximum(by.shift, 0), np.maximum(-by.shift, 0)
    if left.any():
        values = wrap_int32(values << left)
    product = values * by.multiplier
    product += 1 << 30
    product >>= 31
    if not right.any():
        return product
    if right.all():
        product += product >> 63
        product += (np.int64(1) << right) >> 1
        product >>= right
        return product
    return rounding_divide_by_pot(product, right)


def multiply_single_rounding(values: Int64Array, by: Multiplier) -> Int64Array:
    """MultiplyByQuantizedMultiplier on int32 values with one rounding, ties up.

    Shifts above 30 saturate the multiplier, as TFLite does for this variant.
    """
    saturates = by.shift > 30
    multiplier = np.where(saturates, INT32_MAX, by.multiplier)
    total = 31 - np.where(saturates, 30, by.shift)
    product = values * multiplier
    product += np.int64(1) << (total - 1)
    product >>= total
    return product


def multiply_wide(values: Int64Array, by: Multiplier) -> Int64Array:
    """MultiplyByQuantizedMultiplier on 48-bit values: a 16-bit multiplier and one rounding."""
    reduced = np.where(
        by.multiplier < 0x7FFF0000, (by.multiplier + (1 << 15)) >> 16, np.int64(0x7FFF)
    )
    total = 15 - by.shift
    product = values * reduced
    product += np.int64(1) << (total - 1)
    product >>= total
    return wrap_int32(product)


def round_half_away(values: npt.NDArray[F]) -> npt.NDArray[F]:
    """C's round(): to the nearest integer, ties away from zero."""
    whole: npt.NDArray[F] = np.trunc(values)
    whole += np.copysign((np.abs(values - whole) >= 0.5).astype(values.dtype), values)
    return whole


def multiply_float64(values: Int64Array, real: Float64Array) -> Int64Array:
    """round(values * real) in double precision, ties away from zero."""
    return round_half_away(values.astype(np.float64) * real).astype(np.int64)


def requantize(
    values: Int64Array, real: npt.ArrayLike, rounding: Rounding, *, wide: bool = False
) -> Int64Array:
    """Scale accumulators by real multipliers.

    Args:
        values: int64 accumulators, channels last.
        real: float64 multiplier, one or one per channel.
        rounding: how to round; integer variants quantize the multiplier first.
        wide: the accumulator is 64-bit (int16 activations with int64 bias).
    """
    scales = np.asarray(real, np.float64).reshape(-1)
    if rounding is Rounding.FLOAT64:
        return multiply_float64(values, scales)
    by = quantize_multiplier(scales)
    if wide:
        return multiply_wide(values, by)
    apply = multiply_single_rounding if rounding is Rounding.SINGLE else multiply_double_rounding
    return apply(values, by)
