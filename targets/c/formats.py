"""Which operators and formats the C kernels take: the same for every core.

Special kernels of a core make some of them faster; portable ones cover all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgesmith.targets.base import OpFormat

_WEIGHTED = tuple(
    OpFormat(activation, weight, bias, per_channel=per_channel)
    for activation, bias in (("int8", "int32"), ("int16", "int64"))
    for weight in ("int8", "int4", "int2")
    for per_channel in (True, False)
)
_BOTH = (OpFormat("int8"), OpFormat("int16"))

C_OPS: Mapping[str, tuple[OpFormat, ...]] = {
    **dict.fromkeys(("Conv2D", "DepthwiseConv2D", "FullyConnected"), _WEIGHTED),
    **dict.fromkeys(
        (
            "BatchMatMul",
            "Add",
            "Sub",
            "Mul",
            "AveragePool2D",
            "MaxPool2D",
            "Mean",
            "Relu",
            "Clip",
            "Logistic",
            "Tanh",
            "Gelu",
            "Softmax",
            "LayerNorm",
            "Concat",
            "Reshape",
            "Transpose",
            "Pad",
            "StridedSlice",
            "ResizeNearest",
            "ResizeBilinear",
        ),
        _BOTH,
    ),
    "HardSwish": (OpFormat("int8"),),
    "Quantize": tuple(
        OpFormat(source, output=output)
        for source in ("int8", "int16")
        for output in ("int8", "int16")
    ),
}
