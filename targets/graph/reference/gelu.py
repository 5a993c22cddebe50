"""GELU by tables that are made offline: 256 codes for int8, 513 interpolated ones for int16.

The int8 table is TFLite's (`activations.cc`, GeluPrepare), so its runtimes agree in every bit.
No runtime runs int16; its table is that of TFLite's int16 lookups (`LUTPopulate`, `LUTLookup`)
over the codes instead of over a fixed range:

    q' = T[i] + (((T[i + 1] - T[i]) * (q & 127) + 64) >> 7),   i = 256 + (q >> 7)

with T[i] the value at code 128 (i - 256). Interpolation errs by less than r / 40 codes where
the input covers [-r, r] and the output scale equals the input's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, DType, Tensor
from edgesmith.targets.graph.reference.activations import (
    Float32Array,
    float_table8,
    float_tanh,
    map_codes,
)
from edgesmith.targets.graph.reference.kernel import Call, kernel
from edgesmith.targets.graph.reference.softmax import lookup16
from edgesmith.targets.graph.requantize import (
    Float64Array,
    Int64Array,
    round_half_away,
    saturate,
)


def gelu_table8(source: Tensor, output: Tensor, *, approximate: bool) -> Int64Array:
    """Output codes of input codes -128 .. 127 in order, as TFLite's GELU fills its table."""
    return float_table8(source, output, _float_gelu(approximate))(
        np.arange(-128, 128, dtype=np.int64)
    )


def gelu_table16(source: Tensor, output: Tensor, *, approximate: bool) -> Int64Array:
    """Output codes at input codes -32768, -32640, ... 32768: 513 int16 values.

    Computed in float64. Each sample but the last is lowered by half of the error that
    interpolation makes in the middle of its interval, as the softmax tables have it.
    """
    function = _gelu_tanh if approximate else _gelu_erf
    scale, output_scale = (np.float64(tensor.q.scalar[0]) for tensor in (source, output))

    def at(codes: Int64Array) -> Float64Array:
        reals = [function(float(scale * code)) for code in codes]
        return np.asarray(reals, np.float64) / output_scale

    codes = np.arange(-32768, 32768 + 1, 128, dtype=np.int64)
    samples, middles = at(codes), at(codes[:-1] + 64)
    interpolated = (samples[1:] + samples[:-1]) / 2
    samples[:-1] -= (interpolated - middles) / 2
    return saturate(round_half_away(samples).astype(np.int64), -32768, 32767)


def _gelu_erf(x: float) -> float:
    return 0.5 * x * math.erfc(-x * math.sqrt(0.5))


def _gelu_tanh(x: float) -> float:
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _float_gelu(approximate: bool) -> Callable[[Float32Array], Float32Array]:
    """GELU in float32, step by step as TFLite's GeluTransform and GeluTransformApproximate."""
    half, one, root_half = np.float32(0.5), np.float32(1), np.float32(-math.sqrt(0.5))
    slope, cubic = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)

    def exact(x: Float32Array) -> Float32Array:
        erfc = [math.erfc(value) for value in (x * root_half).tolist()]
        return half * x * np.asarray(erfc, np.float64).astype(np.float32)

    def by_tanh(x: Float32Array) -> Float32Array:
        return half * x * (one + float_tanh(slope * (x + cubic * x * x * x)))

    return by_tanh if approximate else exact


@kernel(ir.Gelu)
def gelu(op: ir.Gelu, call: Call) -> Array:
    """int8 by a table of 256 codes; int16 interpolates one of 513."""
    call.integer_activations(0)
    source, output = call.tensor(0), call.output
    zeros = [call.scalar(tensor)[1] for tensor in (source, output)]
    if output.dtype is DType.INT8:
        table = gelu_table8(source, output, approximate=op.approximate)
        return map_codes(call, lambda codes: table[codes + 128])
    if any(zeros):
        raise call.refuse("int16 tensors have a zero point", "use symmetric int16 activations")
    table = gelu_table16(source, output, approximate=op.approximate)
    return map_codes(call, lambda codes: lookup16(codes, table))
