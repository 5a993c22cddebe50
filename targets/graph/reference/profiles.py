"""Named rounding profiles: which arithmetic each operator of a runtime uses, as values.

A profile is bit-exact with one runtime; the runtime's binary decides, its sources only
explain. Kernels read a profile's fields and never ask for its name, so a runtime with other
choices is another `Profile`.

What a runtime does not run, no profile can be compared with; the kernels then follow the
arithmetic that the same runtime uses for the neighbouring formats. Where a runtime runs a
format but computes something else than the operator, the profile refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edgesmith.targets.graph.ir import Activation
from edgesmith.targets.graph.requantize import Rounding


class ScaleMath(StrEnum):
    """Precision of arithmetic on scales, as in input scale * weight scale / output scale."""

    FLOAT64 = "float64"
    FLOAT32_PRODUCT = "float32-product"  # the product in float32, the quotient in float64
    FLOAT32 = "float32"


class Curve(StrEnum):
    """How int8 sigmoid and tanh are computed."""

    FIXED_POINT = "fixed-point"  # gemmlowp polynomials on Q4.27
    FLOAT_TABLE = "float-table"  # 256 float32 values, rounded


@dataclass(frozen=True)
class Profile:
    """The arithmetic choices of one runtime.

    Attributes:
        name: what specs and targets call it.
        rounding: operator kind -> rounding; double where not listed.
        scale_math: operator kind -> precision of its multiplier; float64 where not listed.
        curve: int8 sigmoid and tanh.
        softmax16_tables: precision in which the int16 softmax tables are made.
        rescaling_clamps: stand-alone clamps that may change scale and zero point.
        int32_bias_with_int16: operator kinds that read an int32 bias beside int16
            activations; int64 is read everywhere.
    """

    name: str
    rounding: Mapping[str, Rounding] = field(default_factory=dict)
    scale_math: Mapping[str, ScaleMath] = field(default_factory=dict)
    curve: Curve = Curve.FIXED_POINT
    softmax16_tables: ScaleMath = ScaleMath.FLOAT64
    rescaling_clamps: frozenset[Activation] = frozenset(Activation)
    int32_bias_with_int16: frozenset[str] = frozenset()

    def rounding_of(self, kind: str) -> Rounding:
        """How an operator kind applies its multiplier."""
        return self.rounding.get(kind, Rounding.DOUBLE)

    def scale_math_of(self, kind: str) -> ScaleMath:
        """In which precision an operator kind forms its multiplier."""
        return self.scale_math.get(kind, ScaleMath.FLOAT64)


TFLITE_MICRO = Profile(
    name="tflite-micro",
    softmax16_tables=ScaleMath.FLOAT32,
    rescaling_clamps=frozenset({Activation.RELU}),
    int32_bias_with_int16=frozenset({"Conv2D", "FullyConnected"}),
)
"""TFLite Micro's reference kernels on the host (package tflite_micro, 2026-10-23).

Not run there: int4 weights with int16 activations; int4 FullyConnected with more than one
scale; RELU_N1_TO_1; int16 RESIZE_BILINEAR. RELU6 clamps without rescaling, and
DepthwiseConv2D reads an int32 bias beside int16 activations as int64: both are refused.
"""

LITERT_REFERENCE = Profile(
    name="litert-reference",
    rounding={"FullyConnected": Rounding.FLOAT64},
    scale_math={
        "BatchMatMul": ScaleMath.FLOAT32_PRODUCT,
        "Mul": ScaleMath.FLOAT32,
        "Relu": ScaleMath.FLOAT32,
    },
    curve=Curve.FLOAT_TABLE,
)
"""LiteRT's built-in reference kernels (ai-edge-litert 2.3.0, OpResolverType.BUILTIN_REF).

Not run there: CONV_2D without a bias (the TFLite writer adds zeros); int4 DepthwiseConv2D;
int16 RELU_N1_TO_1; codes to int32 by QUANTIZE other than from int16. An int32 bias beside int16
activations is read as int64 by CONV_2D and FULLY_CONNECTED and rejected by DEPTHWISE_CONV_2D:
refused. The int8 sigmoid and tanh tables come from the C library's expf and tanhf, which are
taken as correctly rounded.
FULLY_CONNECTED converts products beyond int32 by an undefined cast; here they saturate.
"""

PROFILES: Mapping[str, Profile] = {
    profile.name: profile for profile in (TFLITE_MICRO, LITERT_REFERENCE)
}
