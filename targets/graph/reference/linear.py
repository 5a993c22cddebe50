"""What convolutions and matrix products share: exact products and the requantizing tail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgesmith.targets.graph.ir import Activation, Array, DType, Tensor
from edgesmith.targets.graph.reference.kernel import Call, activation_range, clamp, real_multiplier
from edgesmith.targets.graph.requantize import (
    Float64Array,
    Int64Array,
    Rounding,
    requantize,
    wrap_int32,
)

WEIGHT_TYPES = (DType.INT8, DType.INT4, DType.INT2)
BIAS_TYPES = (DType.INT32, DType.INT64)


def largest_offset_code(dtype: DType, zero: int) -> int:
    """The largest |code - zero point| of a type."""
    return max(dtype.qmax - zero, zero - dtype.qmin)


def product_type(bound: int) -> np.dtype[np.generic]:
    """The fastest type in which sums of products up to `bound` in magnitude are exact.

    Floats hold every integer up to 2**24 or 2**53, and any partial sum is within the
    bound, so BLAS may add in any order.
    """
    if bound < 1 << 24:
        return np.dtype(np.float32)
    if bound < 1 << 53:
        return np.dtype(np.float64)
    if bound < 1 << 63:
        return np.dtype(np.int64)
    raise OverflowError(f"a sum of products up to {bound} does not fit 64 bits")


@dataclass(frozen=True, eq=False)
class Tail:
    """Bias, requantization, offset and clamp of a linear operator.

    `wide` accumulators have 64 bits, others wrap at 32. Arrays are per output
    channel or of one element.
    """

    bias: Int64Array
    real: Float64Array
    rounding: Rounding
    wide: bool
    zero: int
    limits: tuple[int, int]
    dtype: DType

    def apply(self, accumulators: npt.NDArray[np.generic]) -> Array:
        """Output codes from sums of products, channels last."""
        values = accumulators.astype(np.int64)
        values += self.bias
        if not self.wide:
            values = wrap_int32(values)
        scaled = requantize(values, self.real, self.rounding, wide=self.wide)
        scaled += self.zero
        return clamp(scaled, self.limits, self.dtype)


def weight_scales(call: Call, weight: Tensor, channels: int) -> npt.NDArray[np.float32]:
    """One scale, or one per output channel.

    Raises:
        UnsupportedError: the weight is not a quantized constant in a known format.
    """
    if weight.dtype not in WEIGHT_TYPES:
        raise call.refuse(
            f"weight {weight.name!r} is {weight.dtype}", "use int8, int4 or int2 weights"
        )
    if weight.quantization is None or weight.quantization.scale.size not in (1, channels):
        raise call.refuse(
            f"weight {weight.name!r} has no scale or neither 1 nor {channels} scales",
            "quantize it per tensor or per output channel",
        )
    return weight.quantization.scale.astype(np.float32)


def require_symmetric(call: Call, weight: Tensor) -> None:
    if weight.q.zero_point.any():
        raise call.refuse(
            f"weight {weight.name!r} has a zero point other than 0", "use symmetric weights"
        )


def bias_codes(call: Call, position: int, channels: int) -> Int64Array:
    """Bias codes as int64 [channels]; zeros where the operator has none."""
    bias = call.optional(position)
    if bias is None:
        return np.zeros(channels, np.int64)
    if bias.dtype not in BIAS_TYPES:
        raise call.refuse(f"bias {bias.name!r} is {bias.dtype}", "use int32 or int64 biases")
    wide = call.tensor(0).dtype is DType.INT16
    narrow_ok = call.op.kind in call.profile.int32_bias_with_int16
    if wide and bias.dtype is DType.INT32 and not narrow_ok:
        raise call.refuse(
            f"int32 bias {bias.name!r} beside int16 activations, which profile "
            f"{call.profile.name!r} does not define",
            "make the bias int64",
        )
    return call.constant(position).astype(np.int64).reshape(-1)


def make_tail(
    call: Call, activation: Activation, scales: npt.NDArray[np.float32], channels: int
) -> Tail:
    """The tail of an operator with inputs x, weight, bias."""
    input_scale, _ = call.scalar(call.tensor(0))
    output_scale, zero = call.scalar(call.output)
    profile, kind = call.profile, call.op.kind
    bias = call.optional(2)
    int16 = call.tensor(0).dtype is DType.INT16
    return Tail(
        bias=bias_codes(call, 2, channels),
        real=real_multiplier(profile.scale_math_of(kind), input_scale, scales, output_scale),
        rounding=profile.rounding_of(kind),
        wide=int16 and (bias is None or bias.dtype is DType.INT64),
        zero=zero,
        limits=activation_range(call, activation),
        dtype=call.output.dtype,
    )
