"""Between codes and real values, and between codes of different scales."""

from __future__ import annotations

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, DType, FloatArray
from edgesmith.targets.graph.reference.kernel import Call, kernel, real_multiplier
from edgesmith.targets.graph.requantize import requantize, saturate, wrap_int32


@kernel(ir.Quantize)
def quantize(op: ir.Quantize, call: Call) -> Array:
    """float32 to codes (quotient in float32, half away from zero), or codes to other codes."""
    source, dtype = call.tensor(0), call.output.dtype
    if dtype is DType.FLOAT32:
        raise call.refuse("the output is float32", "use Dequantize")
    scale, zero = call.scalar(call.output)
    x = call.value(0)
    if source.dtype is DType.FLOAT32:
        quotient = (x.astype(np.float32) / scale).astype(np.float64)
        rounded = np.trunc(quotient + np.copysign(0.5, quotient))
        # Saturated as floats, since infinities have no int64.
        inside: FloatArray = np.minimum(np.maximum(rounded + zero, dtype.qmin), dtype.qmax)
        return inside.astype(dtype.numpy)
    source_scale, source_zero = call.scalar(source)
    math, rounding = call.profile.scale_math_of(op.kind), call.profile.rounding_of(op.kind)
    real = real_multiplier(math, source_scale, 1, scale)
    values = wrap_int32(x.astype(np.int64) - source_zero)
    scaled = requantize(values, real, rounding) + zero
    return saturate(scaled, dtype.qmin, dtype.qmax).astype(dtype.numpy)


@kernel(ir.Dequantize)
def dequantize(op: ir.Dequantize, call: Call) -> Array:
    """scale * (code - zero point), rounded to float32 once."""
    if call.output.dtype is not DType.FLOAT32 or call.tensor(0).dtype is DType.FLOAT32:
        raise call.refuse("it does not turn codes into float32", "check the graph")
    scale, zero = call.scalar(call.tensor(0))
    return ((call.value(0).astype(np.int64) - zero) * np.float64(scale)).astype(np.float32)
