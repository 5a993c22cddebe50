"""Layer normalization in integers: one division-free reciprocal root per row.

A row of n codes q (scale s, any zero point: it cancels) has

    S1 = sum q    S2 = sum q^2    D = n S2 - S1^2 = n^2 variance / s^2    d_i = n q_i - S1

and (x_i - mean) / sqrt(variance + epsilon) = d_i / sqrt(D + n^2 epsilon / s^2). In integers:

    V   = max(D 2^k + E, 2^k)                       64 bits, below 2^62; k is even
    z   = leading zeros of V in 64 bits, rounded down to even
    m   = (V << z) >> 32                            32 bits, 2^30 <= m < 2^32
    y   = 2^29 / sqrt(m / 2^32)                     `reciprocal_root`, 2^29 <= y <= 2^30
    r   = 41 - (k + z) / 2                          10 <= r <= 41
    N_i = (d_i y + 2^(r-1)) >> r                    normalized, 20 fraction bits, |N_i| < 2^28
    v_i = ((N_i G_i + 2^31) >> 32) + B_i            32 bits, t fraction bits
    q'_i = clamp(v_i >> t)

All shifts are arithmetic, so every rounding is to the nearest, ties up. k, E, t, G (gamma in
output codes) and B (beta, the zero point and the rounding half) are made offline by
`plan_layer_norm`. Where r <= 32, N_i = (((d_i << (32 - r)) y) + 2^31) >> 32, whose shifted
d_i fits 32 bits: one high-word multiplication.

The error against real arithmetic on the same codes is at most 1/2 + 2^-t + 2^-21 |gamma| / so
output codes (so is the output scale) and 2^-26 of the value. int8: below 0.502 codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, DType, Quantization, Tensor
from edgesmith.targets.graph.reference.kernel import Call, clamp, kernel, sample_blocks
from edgesmith.targets.graph.requantize import Int64Array

NORMAL_BITS = 20  # fraction bits of N
ROOT_BITS = 29  # fraction bits of y
MAX_SIZE = 1 << 15  # so that D of int16 codes fits, and N has 28 bits
GAMMA_TYPES = (DType.INT8, DType.INT16)

_TOTAL_BITS = 62  # V stays below 2 to this power
_MOST_EXTRA_BITS = 40
_MOST_SHIFT = 24
# The line a - b x that is nearest to 1 / sqrt(x) on [1/4, 1]: relative error 0.087, which four
# Newton steps (error -> 1.5 error^2) bring below 2^-40.
_LINE = (2.13, 1.215)
_STEPS = 4

UInt64Array = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class LayerNormPlan:
    """The constants of one layer normalization; names as in the module's docstring.

    Attributes:
        size: n, elements of a row.
        extra_bits: k.
        epsilon: E, below 2^62.
        gain: G, int32 values [n].
        offset: B, int32 values [n].
        shift: t, 1 to 24.
    """

    size: int
    extra_bits: int
    epsilon: int
    gain: Int64Array
    offset: Int64Array
    shift: int


def plan_layer_norm(
    source: Tensor, gamma: Tensor, beta: Tensor | None, output: Tensor, epsilon: float
) -> LayerNormPlan:
    """Everything that a kernel needs besides its rows.

    Args:
        source, output: int8 or int16, quantized per tensor.
        gamma: int8 or int16 codes [n]; beta: int32 codes [n] or None.
        epsilon: as a real number, taken in float32.

    Raises:
        ValueError: says which number does not fit.
    """
    size = source.shape[-1]
    if size > MAX_SIZE:
        raise ValueError(f"rows of {size} elements; at most {MAX_SIZE} fit 64-bit sums")
    extra_bits, scaled_epsilon = _epsilon(source.dtype, source.q, size, epsilon)
    output_scale, zero = output.q.scalar
    gains = _reals(gamma) / np.float64(output_scale)
    offsets = np.zeros(size) if beta is None else _reals(beta) / np.float64(output_scale)
    shift = _shift(gains, offsets + zero, size)
    gain = np.rint(gains * 2.0 ** (shift + 32 - NORMAL_BITS)).astype(np.int64)
    offset = np.rint((offsets + zero) * 2.0**shift).astype(np.int64) + (1 << (shift - 1))
    return LayerNormPlan(size, extra_bits, scaled_epsilon, gain, offset, shift)


def _reals(tensor: Tensor) -> npt.NDArray[np.float64]:
    """Real values in float64 of constant codes without a zero point."""
    if tensor.data is None or tensor.q.scale.size != 1 or tensor.q.zero_point.any():
        raise ValueError(f"{tensor.name!r} is not a symmetric constant of one scale")
    reals: npt.NDArray[np.float64] = tensor.data.astype(np.float64)
    reals *= np.float64(tensor.q.scale[0])
    return reals


def _epsilon(
    dtype: DType, quantization: Quantization, size: int, epsilon: float
) -> tuple[int, int]:
    """k and E: as many fraction bits for V as its largest value leaves."""
    scale, _ = quantization.scalar
    if not epsilon >= 0:
        raise ValueError(f"epsilon {epsilon}")
    whole = np.float64(np.float32(epsilon)) * size * size / np.float64(scale) ** 2
    largest = size * size << (2 * (dtype.bits - 1))
    for bits in range(_MOST_EXTRA_BITS, -1, -2):
        scaled = float(np.rint(whole * 2.0**bits))
        if (largest << bits) + scaled < 1 << _TOTAL_BITS:
            return bits, int(scaled)
    raise ValueError(f"epsilon {epsilon} is beyond 64 bits at input scale {scale}")


def _shift(gains: npt.NDArray[np.float64], offsets: npt.NDArray[np.float64], size: int) -> int:
    """t: the most fraction bits with which every v fits 32 bits, and every G."""
    highest = float(np.max(math.sqrt(size) * np.abs(gains) + np.abs(offsets) + 2))
    widest = float(np.abs(gains).max()) * 2.0 ** (32 - NORMAL_BITS)
    limit = 2.0**31 - 2.0**12
    shift = _MOST_SHIFT
    while max(highest, widest) * 2.0**shift > limit:
        shift -= 1
        if shift < 1:
            raise ValueError("gamma or beta is too large for the output scale")
    return shift


def _leading_zeros64(values: UInt64Array) -> Int64Array:
    """Leading zeros of positive 64-bit values."""
    high = (values >> np.uint64(32)).astype(np.float64)
    low = (values & np.uint64(0xFFFFFFFF)).astype(np.float64)
    # Halves have 32 bits, so float64 holds them exactly and its exponent is the bit length.
    _, exponent = np.frexp(np.where(high > 0, high, low))
    found: Int64Array = np.where(high > 0, 32, 64) - exponent.astype(np.int64)
    return found


def reciprocal_root(mantissa: UInt64Array) -> UInt64Array:
    """2^29 / sqrt(m / 2^32) for 2^30 <= m < 2^32, to within 2 units.

    y = A - (m B >> 32), then four times y = (y (3 2^29 - (m (y^2 >> 29) >> 32))) >> 30;
    products are unsigned and below 2^64, everything else below 2^32.
    """
    one = np.uint64(1 << ROOT_BITS)
    start, slope = (np.uint64(round(value * (1 << ROOT_BITS))) for value in _LINE)
    y: UInt64Array = start - ((mantissa * slope) >> np.uint64(32))
    for _ in range(_STEPS):
        square = (y * y) >> np.uint64(ROOT_BITS)
        ratio = (mantissa * square) >> np.uint64(32)
        y = (y * (np.uint64(3) * one - ratio)) >> np.uint64(ROOT_BITS + 1)
    return y


def normalize_rows(codes: Int64Array, plan: LayerNormPlan) -> Int64Array:
    """Output codes before clamping, of input codes [..., n]."""
    total = codes.sum(axis=-1, keepdims=True)
    squares = np.square(codes).sum(axis=-1, keepdims=True)
    spread = plan.size * squares - np.square(total)
    value = np.maximum((spread << plan.extra_bits) + plan.epsilon, 1 << plan.extra_bits)
    unsigned = value.astype(np.uint64)
    zeros = _leading_zeros64(unsigned) & ~1
    mantissa = (unsigned << zeros.astype(np.uint64)) >> np.uint64(32)
    root = reciprocal_root(mantissa).astype(np.int64)
    right = ROOT_BITS + 32 - NORMAL_BITS - (plan.extra_bits + zeros) // 2
    normal = ((plan.size * codes - total) * root + (np.int64(1) << (right - 1))) >> right
    scaled = ((normal * plan.gain + (1 << 31)) >> 32) + plan.offset
    result: Int64Array = scaled >> plan.shift
    return result


def checked_plan(op: ir.LayerNorm, call: Call) -> LayerNormPlan:
    """The plan of an operator.

    Raises:
        UnsupportedError: formats or numbers that no plan exists for.
    """
    call.integer_activations(0)
    call.scalar(call.tensor(0))
    call.scalar(call.output)
    gamma, beta = call.tensor(1), call.optional(2)
    if gamma.dtype not in GAMMA_TYPES or (beta is not None and beta.dtype is not DType.INT32):
        raise call.refuse(
            f"gamma {gamma.name!r} is {gamma.dtype}" + (f", beta {beta.dtype}" if beta else ""),
            "use int8 or int16 codes for gamma and int32 codes for beta",
        )
    try:
        return plan_layer_norm(call.tensor(0), gamma, beta, call.output, op.epsilon)
    except ValueError as error:
        raise call.refuse(str(error), "calibrate the ranges again, or change the layer") from error


@kernel(ir.LayerNorm)
def layer_norm(op: ir.LayerNorm, call: Call) -> Array:
    """Every row of the last axis normalized, then scaled and moved per element."""
    plan = checked_plan(op, call)
    x, dtype = call.value(0), call.output.dtype
    result = np.empty((len(x), *call.output.shape), dtype.numpy)
    for block in sample_blocks(len(x), call.output.elements):
        codes = normalize_rows(x[block].astype(np.int64), plan)
        result[block] = clamp(codes, (dtype.qmin, dtype.qmax), dtype)
    return result
