"""Softmax over the last axis in fixed point."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, DType, FloatArray
from edgesmith.targets.graph.reference.fixedpoint import exp_on_negative_values, one_over_one_plus_x
from edgesmith.targets.graph.reference.kernel import Call, kernel, sample_blocks
from edgesmith.targets.graph.reference.profiles import ScaleMath
from edgesmith.targets.graph.requantize import (
    Float64Array,
    Int64Array,
    high_mul,
    multiply_double_rounding,
    quantize_multiplier,
    round_half_away,
    rounding_divide_by_pot,
    saturate,
    wrap_int32,
)

DIFFERENCE_BITS = 5  # integer bits of an input difference before exp
SUM_BITS = 12  # integer bits of the sum of exponentials


def require_fixed_output(call: Call) -> None:
    """Refuse an output quantization other than the one that the arithmetic implies."""
    call.integer_activations(0)
    dtype = call.output.dtype
    wanted = (1 / 256, -128) if dtype is DType.INT8 else (1 / 32768, 0)
    scale, zero = call.scalar(call.output)
    if (float(scale), zero) != wanted:
        raise call.refuse(
            f"output scale {scale} and zero point {zero}, not {wanted[0]} and {wanted[1]}",
            "legalize the graph, which requantizes afterwards",
        )


@kernel(ir.Softmax)
def softmax(op: ir.Softmax, call: Call) -> Array:
    """exp(beta * (x - max)) / sum; int8 on gemmlowp's exp, int16 on interpolated tables."""
    require_fixed_output(call)
    dtype = call.output.dtype
    input_scale, _ = call.scalar(call.tensor(0))
    real, beta = np.float64(input_scale), np.float64(np.float32(op.beta))
    if dtype is DType.INT8:
        compute = _softmax8(real, beta)
    else:
        compute = _softmax16(real, beta, call.profile.softmax16_tables)
    x = call.value(0)
    result = np.empty((len(x), *call.output.shape), dtype.numpy)
    for block in sample_blocks(len(x), call.output.elements):
        codes = x[block].astype(np.int64)
        result[block] = compute(codes - codes.max(axis=-1, keepdims=True))
    return result


def leading_zeros(values: Int64Array) -> Int64Array:
    """Leading zeros of positive 32-bit values."""
    _, exponent = np.frexp(values.astype(np.float64))
    return 32 - exponent.astype(np.int64)


def exponential8(scale: np.float64, beta: np.float64) -> Callable[[Int64Array], Int64Array]:
    """exp in Q0.31 from differences of int8 codes, zero where they are too far apart."""
    real = min(float(beta * scale) * (1 << (31 - DIFFERENCE_BITS)), (1 << 31) - 1.0)
    by = quantize_multiplier(real)
    shift = int(by.shift[0])
    # Smaller differences would leave the fixed-point range; their exponential counts as zero.
    radius = int(np.floor(31.0 * (1 << 26) / 2.0**shift))

    def compute(differences: Int64Array) -> Int64Array:
        counts = differences >= -radius
        inside = np.where(counts, differences, 0)
        scaled = high_mul(wrap_int32(inside << shift), by.multiplier)
        return np.where(counts, exp_on_negative_values(scaled, DIFFERENCE_BITS), 0)

    return compute


def _softmax8(scale: np.float64, beta: np.float64) -> Callable[[Int64Array], Int64Array]:
    """int8 rows: codes from differences to the row's maximum."""
    exponential = exponential8(scale, beta)

    def compute(differences: Int64Array) -> Int64Array:
        exp = exponential(differences)
        total = rounding_divide_by_pot(exp, SUM_BITS).sum(axis=-1, keepdims=True)
        headroom = leading_zeros(total)
        fraction = (total << headroom) - (1 << 31)
        reciprocal = one_over_one_plus_x(fraction)
        exponent = SUM_BITS - headroom + 31 - 8
        codes = rounding_divide_by_pot(high_mul(exp, reciprocal), exponent) - 128
        return saturate(codes, -128, 127)

    return compute


def _table16(
    function: Callable[[Float64Array], Float64Array],
    low: float,
    high: float,
    real: np.dtype[np.floating],
) -> Int64Array:
    """513 int16 samples of a function over [low, high] for outputs in [-1, 1] (LUTPopulate).

    Each sample is moved by half of the interpolation error at the middle of its interval. `real`
    is the float type of all arithmetic; the function itself is correctly rounded.
    """
    step, gain, two = (np.array(value, real) for value in ((high - low) / 512, 65536 / 2, 2))
    start = np.array(low, real) + np.arange(513).astype(real) * step

    def at(points: FloatArray) -> FloatArray:
        return np.asarray(function(points.astype(np.float64)).astype(real) * gain)

    values, middles = at(start), round_half_away(at(start[:-1] + step / two))
    samples = round_half_away(values)
    interpolated = round_half_away((values[1:] + samples[:-1]) / two)
    samples[:-1] -= round_half_away((interpolated - middles) / two)
    return saturate(samples.astype(np.int64), -32768, 32767)


@cache
def tables16(real: np.dtype[np.floating]) -> tuple[Int64Array, Int64Array]:
    """exp over [-10, 0] and 1 / (1 + x) over [0, 1]."""
    reciprocal = _table16(lambda x: 1.0 / (1.0 + x), 0.0, 1.0, real)
    return _table16(np.exp, -10.0, 0.0, real), reciprocal


def lookup16(values: Int64Array, table: Int64Array) -> Int64Array:
    """A table of 513 samples, one per 128 codes, interpolated at int16 codes (LUTLookup)."""
    index = 256 + (values >> 7)
    base: Int64Array = table[index]
    slope: Int64Array = table[index + 1] - base
    return base + ((slope * (values & 0x7F) + 64) >> 7)


def _softmax16(
    scale: np.float64, beta: np.float64, math: ScaleMath
) -> Callable[[Int64Array], Int64Array]:
    """int16 rows: codes from differences to the row's maximum."""
    exp_table, reciprocal_table = tables16(
        np.dtype(np.float64 if math is ScaleMath.FLOAT64 else np.float32)
    )
    by = quantize_multiplier(scale * beta / (10.0 / 65535.0))

    def compute(differences: Int64Array) -> Int64Array:
        scaled = multiply_double_rounding(differences, by) + 32767
        exp = lookup16(saturate(scaled, -32768, 32767), exp_table)
        total = exp.sum(axis=-1, keepdims=True)
        headroom = leading_zeros(total)
        shifted = ((total << (headroom - 1)) + (1 << 13)) >> 14
        centred = saturate(shifted - ((1 << 15) + (1 << 16)), -32768, 32767)
        reciprocal = lookup16(centred, reciprocal_table)
        right = 31 - headroom
        codes = (exp * reciprocal + (np.int64(1) << (right - 1))) >> right
        return saturate(codes, 0, 32767)

    return compute
