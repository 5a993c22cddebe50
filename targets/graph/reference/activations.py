"""Clamps, hard-swish, sigmoid and tanh."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, DType, Op, Tensor
from edgesmith.targets.graph.reference import fixedpoint
from edgesmith.targets.graph.reference.kernel import Call, activation_range, kernel, real_multiplier
from edgesmith.targets.graph.reference.profiles import Curve
from edgesmith.targets.graph.requantize import (
    Int64Array,
    Multiplier,
    high_mul,
    quantize_multiplier,
    requantize,
    rounding_divide_by_pot,
    saturate,
)

Float32Array = npt.NDArray[np.float32]


def map_codes(call: Call, function: Callable[[Int64Array], Int64Array]) -> Array:
    """Apply a function of one code to every element, through a table of all codes."""
    dtype = call.tensor(0).dtype
    codes = np.arange(dtype.qmin, dtype.qmax + 1, dtype=np.int64)
    table = function(codes).astype(call.output.dtype.numpy)
    unsigned = call.value(0).view(np.dtype(f"uint{dtype.bits}"))
    # Rotated so that a code's unsigned reading is its index.
    found: Array = np.roll(table, len(table) // 2)[unsigned]
    return found


@kernel(ir.Relu)
def relu(op: ir.Relu, call: Call) -> Array:
    """Requantize to the output's scale, then clamp."""
    call.integer_activations(0)
    scale, zero = call.scalar(call.tensor(0))
    output_scale, output_zero = call.scalar(call.output)
    precision = call.profile.scale_math_of(op.kind)
    real = real_multiplier(precision, scale, 1, output_scale)
    limits = activation_range(call, op.activation)
    same = (scale, zero) == (output_scale, output_zero)
    if op.activation not in call.profile.rescaling_clamps and not same:
        raise call.refuse(
            f"{op.activation} keeps scale and zero point in profile {call.profile.name!r}",
            "give input and output the same quantization",
        )

    def compute(codes: Int64Array) -> Int64Array:
        scaled = requantize(codes - zero, real, call.profile.rounding_of(op.kind))
        return saturate(scaled + output_zero, *limits)

    return map_codes(call, compute)


def clip_range(op: ir.Clip, call: Call) -> tuple[int, int]:
    """The codes nearest to the bounds."""
    call.integer_activations(0)
    scale, zero = call.scalar(call.output)
    if call.scalar(call.tensor(0)) != (scale, zero):
        raise call.refuse("input and output differ in scale or zero point", "legalize the graph")
    dtype = call.output.dtype
    low, high = (
        int(np.clip(np.rint(np.float64(real) / np.float64(scale)) + zero, dtype.qmin, dtype.qmax))
        for real in (op.low, op.high)
    )
    return low, high


@kernel(ir.Clip)
def clip(op: ir.Clip, call: Call) -> Array:
    """Clamp to the codes nearest to the bounds; scale and zero point stay."""
    low, high = clip_range(op, call)
    clamped = np.minimum(np.maximum(call.value(0), low), high)
    return clamped.astype(call.output.dtype.numpy)


def _saturate16(values: Int64Array) -> Int64Array:
    return saturate(values, -(1 << 15), (1 << 15) - 1)


def _high_mul16(values: Int64Array, factor: int) -> Int64Array:
    """SaturatingRoundingDoublingHighMul on int16."""
    return _saturate16((values * factor + (1 << 14)) >> 15)


def _multiplier16(real: np.float32) -> tuple[int, int]:
    """A multiplier of 16 bits and its exponent (DownScaleInt32ToInt16Multiplier)."""
    multiplier, exponent = quantize_multiplier(np.float64(real))
    whole = int(multiplier[0])
    if whole >= (1 << 31) - 1 - (1 << 15):
        return (1 << 15) - 1, int(exponent[0])
    return (whole + (1 << 15)) >> 16, int(exponent[0])


@kernel(ir.HardSwish)
def hard_swish(op: ir.HardSwish, call: Call) -> Array:
    """x * relu6(x + 3) / 6 in 16-bit fixed point, int8 only."""
    call.integer_activations(0)
    if call.output.dtype is not DType.INT8:
        raise call.refuse("hard-swish is defined for int8 only", "use int8 activations")
    scale, zero = call.scalar(call.tensor(0))
    output_scale, output_zero = call.scalar(call.output)
    fine = np.float32(1 / 128) * scale
    output_factor, output_exponent = _multiplier16(fine / output_scale)
    gate_factor, gate_exponent = _multiplier16(fine / np.float32(3 / 32768))
    if output_exponent > 0:
        raise call.refuse(
            f"input scale {scale} is more than 128 times the output scale {output_scale}",
            "calibrate the output range again",
        )

    def compute(codes: Int64Array) -> Int64Array:
        raised = ((codes - zero) << 7).astype(np.int16).astype(np.int64)
        on_output_scale = _high_mul16(raised, output_factor)
        gate = raised
        if gate_exponent > 0:
            gate = _saturate16(gate << (gate_exponent - 1))
        gate = _high_mul16(gate, gate_factor)
        if gate_exponent > 0:
            gate = _saturate16(gate << 1)
        if gate_exponent < 0:
            gate = rounding_divide_by_pot(gate, -gate_exponent)
        gate = (gate + (1 << 15)) >> 1
        product = gate * on_output_scale
        # Truncation towards zero; rounding here would add to the bias of the products above.
        high = np.sign(product) * (np.abs(product) >> 15)
        scaled = rounding_divide_by_pot(high, -output_exponent)
        return saturate(scaled + output_zero, -128, 127)

    return map_codes(call, compute)


def _sigmoid_table() -> Int64Array:
    """sigmoid(i / 24) in Q0.16 for i = 0 .. 255: equals TFLite's sigmoid_table_uint16.

    Each value is raised by half of the error that linear interpolation makes at the middle of
    its interval; the last one is the saturated end.
    """
    points = 65536 / (1 + np.exp(-np.arange(0, 512) / 48))
    samples, middles = points[0::2], points[1::2]
    interpolated = (samples + np.append(samples[1:], 65536.0)) / 2
    table: Int64Array = np.floor(samples + (middles - interpolated) / 2 + 0.5).astype(np.int64)
    table[-1] = 65535
    return table


SIGMOID_TABLE = _sigmoid_table()


def curve_factor16(call: Call, largest_power: int) -> tuple[int, int]:
    """Factor and right shift from int16 codes to positions in the sigmoid table.

    The table has 24 entries of 512 steps per unit. Scales within 0.1 % of a power of two use an
    exact shift, as TFLite's CheckedLog2 decides.
    """
    scale, zero = call.scalar(call.tensor(0))
    if zero or call.scalar(call.output)[1]:
        raise call.refuse("int16 tensors have a zero point", "use symmetric int16 activations")
    log2 = np.log(scale) * (np.float32(1) / np.log(np.float32(2)))
    nearest = np.floor(log2 + np.float32(0.5))
    shift = 12 + int(nearest)
    if abs(log2 - nearest) < 1e-3 and 0 <= shift <= largest_power:
        return 3 << shift, 0
    real, shift = np.float64(scale) * 4096.0 * 3.0, 0
    while real <= 32767.0 / 2.0 and shift <= 30:
        shift, real = shift + 1, real * 2.0
    return int(real), shift


def _curve_input16(call: Call, largest_power: int) -> Callable[[Int64Array], Int64Array]:
    """int16 codes to positions in the sigmoid table, rounded to nearest."""
    factor, shift = curve_factor16(call, largest_power)
    half = (1 << shift) >> 1
    return lambda codes: (codes * factor + half) >> shift


def _interpolate(magnitude: Int64Array, bits: int) -> Int64Array:
    """The sigmoid table at magnitude / 2**bits, with `bits` more fraction bits."""
    index = np.minimum(magnitude >> bits, 254)
    low: Int64Array = SIGMOID_TABLE[index]
    high: Int64Array = SIGMOID_TABLE[index + 1]
    return (low << bits) + (magnitude & ((1 << bits) - 1)) * (high - low)


def _logistic16(call: Call) -> Callable[[Int64Array], Int64Array]:
    to_steps = _curve_input16(call, 0)

    def compute(codes: Int64Array) -> Int64Array:
        steps = to_steps(codes)
        magnitude = np.abs(steps)
        value = np.where(magnitude >> 9 >= 255, 0x7FFF << 10, _interpolate(magnitude, 9))
        signed = np.where(steps >= 0, value + (1 << 9), (1 << 25) - value + (1 << 9) - 1)
        return signed >> 10

    return compute


def _tanh16(call: Call) -> Callable[[Int64Array], Int64Array]:
    to_steps = _curve_input16(call, 1)

    def compute(codes: Int64Array) -> Int64Array:
        steps = to_steps(codes)
        magnitude = np.abs(steps)
        value = np.where(magnitude >> 8 >= 255, 0xFFFF << 8, _interpolate(magnitude, 8))
        rounding = 1 << 7
        signed = np.where(
            steps >= 0, value - (1 << 23) + rounding, -value + (1 << 23) + rounding - 1
        )
        return signed >> 8

    return compute


def _fixed_point8(
    call: Call, function: Callable[[Int64Array, int], Int64Array], output_bits: int, offset: int
) -> Callable[[Int64Array], Int64Array]:
    """int8 codes through a gemmlowp function on Q4.27."""
    scale, zero = call.scalar(call.tensor(0))
    fraction, exponent = np.frexp(np.float64(scale) * (1 << 27))
    factor = np.floor(fraction * (1 << 31) + 0.5).astype(np.int64)
    by = Multiplier(np.array([factor]), np.array([int(exponent)]))
    radius = int(np.floor(15.0 * (1 << 27) / 2.0 ** int(exponent)))

    def compute(codes: Int64Array) -> Int64Array:
        values = codes - zero
        inside = saturate(values, -radius + 1, radius - 1) if radius else values * 0
        q4 = high_mul(inside << by.shift, by.multiplier)
        result = rounding_divide_by_pot(function(q4, 4), 31 - output_bits) + offset
        result = saturate(result, -128, 127)
        return np.where(values <= -radius, -128, np.where(values >= radius, 127, result))

    return compute


def float_table8(
    source: Tensor, output: Tensor, function: Callable[[Float32Array], Float32Array]
) -> Callable[[Int64Array], Int64Array]:
    """int8 codes through a float32 function, as TFLite's LUTPopulate rounds it."""
    scale, zero = source.q.scalar
    output_scale, output_zero = output.q.scalar

    def compute(codes: Int64Array) -> Int64Array:
        values = function(scale * (codes - zero).astype(np.float32))
        exact = (values * (np.float32(1) / output_scale)).astype(np.float64)
        rounded = np.trunc(exact + np.copysign(0.5, exact))
        return saturate(rounded.astype(np.int64) + output_zero, -128, 127)

    return compute


def _float_logistic(x: Float32Array) -> Float32Array:
    # Rounding exp from double precision gives the correctly rounded expf; infinity is fine.
    with np.errstate(over="ignore"):
        exp = np.exp(-x.astype(np.float64)).astype(np.float32)
    return np.float32(1) / (np.float32(1) + exp)


def float_tanh(x: Float32Array) -> Float32Array:
    return np.tanh(x.astype(np.float64)).astype(np.float32)


def require_fixed_output(op: Op, call: Call) -> None:
    """Refuse an output quantization other than the one that the arithmetic implies."""
    call.integer_activations(0)
    int8 = (1 / 128, 0) if isinstance(op, ir.Tanh) else (1 / 256, -128)
    wanted = int8 if call.output.dtype is DType.INT8 else (1 / 32768, 0)
    scale, zero = call.scalar(call.output)
    if (float(scale), zero) != wanted:
        raise call.refuse(
            f"output scale {scale} and zero point {zero}, not {wanted[0]} and {wanted[1]}",
            "legalize the graph, which requantizes afterwards",
        )


@kernel(ir.Logistic)
def logistic(op: Op, call: Call) -> Array:
    """Sigmoid; int16 interpolates a table of 256 values."""
    require_fixed_output(op, call)
    if call.output.dtype is DType.INT16:
        return map_codes(call, _logistic16(call))
    if call.profile.curve is Curve.FLOAT_TABLE:
        return map_codes(call, float_table8(call.tensor(0), call.output, _float_logistic))
    return map_codes(call, _fixed_point8(call, fixedpoint.logistic, 8, -128))


@kernel(ir.Tanh)
def tanh(op: Op, call: Call) -> Array:
    """Hyperbolic tangent; int16 uses the sigmoid table at twice the input."""
    require_fixed_output(op, call)
    if call.output.dtype is DType.INT16:
        return map_codes(call, _tanh16(call))
    if call.profile.curve is Curve.FLOAT_TABLE:
        return map_codes(call, float_table8(call.tensor(0), call.output, float_tanh))
    return map_codes(call, _fixed_point8(call, fixedpoint.tanh, 7, 0))
