"""The reference of every number format, at scale 1: values to codes, and back.

Codes are integers: of an integer format the number itself, of a float format its bit
pattern (sign, exponent, mantissa, from the most significant bit). Both directions are
exact in float64, and rounding is to the nearest value with ties to the even mantissa
(between two powers of two, where there are no mantissa bits, to the larger one).

- Beyond the largest value codes saturate, infinity included. No encoder gives an infinity.
- NaN becomes the NaN of float formats that have one, and is an error elsewhere.
- A negative number that rounds to zero becomes the float -0.
- Binary codes are the sign, and +1 for zero: sign(w) of XNOR-Net (Rastegari et al.,
  arXiv:1603.05279), whose scale is the mean magnitude (`binary_scale`).

Float formats: OCP 8-bit Floating Point Specification 1.0 (E4M3, E5M2) and OCP
Microscaling Formats 1.0 (E2M1, E2M3, E3M2); other widths by the same rules.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.values import FLOAT8_STORAGE, QFormat, Special

IntArray = npt.NDArray[np.int64]


def all_codes(fmt: QFormat) -> IntArray:
    """Every code, ascending; of float formats every bit pattern, specials included."""
    if fmt.is_float:
        return np.arange(1 << fmt.bits, dtype=np.int64)
    if fmt.is_binary:
        return np.array([-1, 1], np.int64)
    return np.arange(fmt.qmin, fmt.qmax + 1, dtype=np.int64)


def encode(values: npt.ArrayLike, fmt: QFormat) -> IntArray:
    """Nearest codes of real values, ties to even, saturating.

    Raises:
        ValueError: a NaN, where the format has none.
    """
    reals = np.asarray(values, np.float64)
    nan = np.isnan(reals)
    if nan.any() and fmt.special is Special.NONE:
        raise ValueError(f"{fmt.name} has no code for NaN")
    if fmt.is_binary:
        return np.where(reals >= 0, 1, -1).astype(np.int64)
    if not fmt.is_float:
        return np.clip(np.rint(reals), fmt.qmin, fmt.qmax).astype(np.int64)
    magnitude = np.minimum(np.abs(np.where(nan, 0.0, reals)), fmt.largest)
    lowest = _smallest_exponent(fmt)
    exponent = np.where(magnitude == 0, lowest, np.frexp(magnitude)[1].astype(np.int64) - 1)
    exponent = np.maximum(exponent, lowest)
    mantissa = np.rint(np.ldexp(magnitude, fmt.mantissa_bits - exponent)).astype(np.int64)
    # A mantissa that rounds up to the next power of two carries into the exponent.
    codes = ((exponent - lowest) << fmt.mantissa_bits) + mantissa
    codes = np.where(nan, (1 << (fmt.bits - 1)) - 1, codes)
    return np.asarray(codes | (np.signbit(reals).astype(np.int64) << (fmt.bits - 1)), np.int64)


def decode(codes: npt.ArrayLike, fmt: QFormat) -> npt.NDArray[np.float64]:
    """Real values of codes at scale 1.

    Raises:
        ValueError: a number that is no code of the format.
    """
    given = np.asarray(codes, np.int64)
    if fmt.is_float:
        if given.size and not (given.min() >= 0 and given.max() < 1 << fmt.bits):
            raise ValueError(f"{fmt.name} has the codes 0 to {(1 << fmt.bits) - 1}")
        return np.asarray(_table(fmt)[given], np.float64)
    if not np.isin(given, all_codes(fmt)).all() if fmt.bits <= 2 else _outside(given, fmt):
        raise ValueError(f"{fmt.name} has codes from {fmt.qmin} to {fmt.qmax}")
    return given.astype(np.float64)


def round_to(values: npt.ArrayLike, fmt: QFormat) -> npt.NDArray[np.float64]:
    """The nearest values of the format: `decode` of `encode`."""
    return decode(encode(values, fmt), fmt)


def stored_codes(values: npt.ArrayLike, fmt: QFormat) -> IntArray:
    """Nearest codes as files hold them: of a minifloat the bit patterns of its 8-bit container."""
    if not fmt.is_float:
        return encode(values, fmt)
    if fmt.is_float32:
        return np.asarray(values, np.float32).view(np.uint32).astype(np.int64)
    return encode(round_to(values, fmt), FLOAT8_STORAGE[fmt.storage])


def stored_values(codes: npt.ArrayLike, fmt: QFormat) -> npt.NDArray[np.float32]:
    """Values at scale 1 of codes as files hold them, float32, in which all are exact."""
    if not fmt.is_float:
        return np.asarray(codes, np.float32)
    if fmt.is_float32:
        bits = np.asarray(codes).astype(np.uint32)
        return np.asarray(bits.view(np.float32), np.float32)
    return np.asarray(decode(codes, FLOAT8_STORAGE[fmt.storage]), np.float32)


def power_of_two(scale: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """The smallest powers of two that are not below positive scales."""
    mantissa, exponent = np.frexp(scale)
    powers = np.ldexp(np.float32(1), np.where(mantissa == 0.5, exponent - 1, exponent))
    return np.asarray(powers, np.float32)


def binary_scale(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """XNOR-Net's scale of every row [n, elements]: the mean magnitude, which is of least error."""
    return np.asarray(np.abs(rows).mean(axis=1, dtype=np.float64), np.float64)


def _outside(codes: IntArray, fmt: QFormat) -> bool:
    return bool(codes.size) and not (codes.min() >= fmt.qmin and codes.max() <= fmt.qmax)


def _smallest_exponent(fmt: QFormat) -> int:
    """Exponent of the smallest normal number and of all subnormal ones."""
    return 2 - (1 << (fmt.exponent_bits - 1))


@cache
def _table(fmt: QFormat) -> npt.NDArray[np.float64]:
    """Bit pattern -> value."""
    patterns = all_codes(fmt)
    fields = patterns & ((1 << (fmt.bits - 1)) - 1)
    exponent, mantissa = fields >> fmt.mantissa_bits, fields & ((1 << fmt.mantissa_bits) - 1)
    normal = exponent > 0
    significand = mantissa + (normal.astype(np.int64) << fmt.mantissa_bits)
    power = np.maximum(exponent, 1) - 1 + _smallest_exponent(fmt) - fmt.mantissa_bits
    values = np.ldexp(significand.astype(np.float64), power)
    top = exponent == (1 << fmt.exponent_bits) - 1
    if fmt.special is Special.IEEE:
        values[top] = np.where(mantissa[top] == 0, np.inf, np.nan)
    elif fmt.special is Special.NAN:
        values[top & (mantissa == (1 << fmt.mantissa_bits) - 1)] = np.nan
    negative = patterns >> (fmt.bits - 1) == 1
    return np.asarray(np.where(negative, -values, values), np.float64)
