"""Mean over axes, with 1 / count folded into the multiplier."""

from __future__ import annotations

import math

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array
from edgesmith.targets.graph.reference.kernel import Call, clamp, kernel
from edgesmith.targets.graph.requantize import (
    Multiplier,
    multiply_double_rounding,
    quantize_multiplier,
)


def mean_multiplier(input_scale: np.float32, output_scale: np.float32, count: int) -> Multiplier:
    """input scale / output scale / count as TFLite's QuantizedMeanOrSum forms it.

    The quantized multiplier is shifted up as far as the count has bits, then divided, rounding
    down, so that the low bits of the multiplier are kept.
    """
    whole = quantize_multiplier(np.float64(input_scale) / np.float64(output_scale))
    multiplier, exponent = int(whole.multiplier[0]), int(whole.shift[0])
    shift = min(count.bit_length() - 1, 32, 31 + exponent)
    divided = (multiplier << shift) // count
    return Multiplier(np.array([divided]), np.array([exponent - shift]))


@kernel(ir.Mean)
def mean(op: ir.Mean, call: Call) -> Array:
    """Sum of the codes less the zero points, requantized with two roundings."""
    call.integer_activations(0)
    scale, zero = call.scalar(call.tensor(0))
    output_scale, output_zero = call.scalar(call.output)
    count = math.prod(call.tensor(0).shape[axis] for axis in op.axes)
    x = call.value(0)
    total = x.sum(axis=tuple(axis + 1 for axis in op.axes), dtype=np.int64) - zero * count
    scaled = multiply_double_rounding(total, mean_multiplier(scale, output_scale, count))
    scaled += output_zero
    dtype = call.output.dtype
    return clamp(scaled, (dtype.qmin, dtype.qmax), dtype).reshape(len(x), *call.output.shape)
