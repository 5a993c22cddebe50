"""Add, sub and mul with broadcasting, in the fixed-point form of TFLite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, Array, DType
from edgesmith.targets.graph.reference.kernel import (
    Call,
    activation_range,
    align,
    clamp,
    kernel,
    real_multiplier,
    sample_blocks,
)
from edgesmith.targets.graph.reference.profiles import ScaleMath
from edgesmith.targets.graph.requantize import Float64Array, Int64Array, requantize

Compute = Callable[[Int64Array, Int64Array], Int64Array]


def _by_blocks(call: Call, activation: Activation, compute: Compute) -> Array:
    """Apply `compute` to the offset-free operands, then add the zero point and clamp."""
    _, zero = call.scalar(call.output)
    limits = activation_range(call, activation)
    zeros = [call.scalar(call.tensor(position))[1] for position in (0, 1)]
    operands = [align(call, position) for position in (0, 1)]
    samples = max(len(operand) for operand in operands)
    result = np.empty((samples, *call.output.shape), call.output.dtype.numpy)
    for block in sample_blocks(samples, call.output.elements):
        first, second = (
            (operand if len(operand) == 1 else operand[block]).astype(np.int64) - offset
            for operand, offset in zip(operands, zeros, strict=True)
        )
        scaled = compute(first, second)
        scaled += zero
        result[block] = clamp(scaled, limits, call.output.dtype)
    return result


def sum_multipliers(call: Call) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Multipliers of both operands and of the sum, and their precision by profile."""
    double = call.profile.scale_math_of(call.op.kind) is ScaleMath.FLOAT64
    real = np.float64 if double else np.float32
    first, second, output = (
        real(call.scalar(tensor)[0]) for tensor in (call.tensor(0), call.tensor(1), call.output)
    )
    twice = real(2) * max(first, second)
    steps = real(1 << headroom_bits(call))
    values = (first / twice, second / twice, twice / (steps * output))
    as_arrays = [np.asarray([value], np.float64) for value in values]
    return as_arrays[0], as_arrays[1], as_arrays[2]


def headroom_bits(call: Call) -> int:
    """Bits of headroom that operands are raised by, so that they stay within int32."""
    return 15 if call.output.dtype is DType.INT16 else 20


def _add_or_sub(call: Call, activation: Activation, sign: int) -> Array:
    call.integer_activations(0, 1)
    shift, rounding = headroom_bits(call), call.profile.rounding_of(call.op.kind)
    first_real, second_real, sum_real = sum_multipliers(call)

    def compute(first: Int64Array, second: Int64Array) -> Int64Array:
        left = requantize(first << shift, first_real, rounding)
        right = requantize(second << shift, second_real, rounding)
        return requantize(left + sign * right, sum_real, rounding)

    return _by_blocks(call, activation, compute)


@kernel(ir.Add)
def add(op: ir.Add, call: Call) -> Array:
    """Both operands to a common scale of twice the larger one, summed, then to the output's."""
    return _add_or_sub(call, op.activation, 1)


@kernel(ir.Sub)
def sub(op: ir.Sub, call: Call) -> Array:
    """As add, with the second operand negated after scaling."""
    return _add_or_sub(call, op.activation, -1)


@kernel(ir.Mul)
def mul(op: ir.Mul, call: Call) -> Array:
    """The product of the operands, at most 31 bits, requantized once."""
    call.integer_activations(0, 1)
    math, rounding = call.profile.scale_math_of(op.kind), call.profile.rounding_of(op.kind)
    scales = [call.scalar(t)[0] for t in (call.tensor(0), call.tensor(1), call.output)]
    real = real_multiplier(math, *scales)

    def compute(first: Int64Array, second: Int64Array) -> Int64Array:
        return requantize(first * second, real, rounding)

    return _by_blocks(call, op.activation, compute)
