"""Constants of an integer graph: weights checked, biases and operands given their codes.

Biases: `int32` codes must have the scale input * weight (float32 product, to eight
units in the last place), which they are given exactly; float biases are rounded to
that scale, half to even. Next to int16 activations biases are int64. A float
constant of one element next to an activation becomes its largest code, with scale
|value| / largest code; all other constants must be quantized in the file.
"""

from __future__ import annotations

import numpy as np

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Op, Quantization, Tensor
from edgesmith.targets.graph.onnx_reader.values import Format

_CHANNEL_AXIS = {ir.Conv2D: 0, ir.DepthwiseConv2D: 3, ir.FullyConnected: 0}
_BIAS_TOLERANCE = 8 * float(np.finfo(np.float32).eps)


def scalar(tensor: Tensor, dtype: DType) -> Tensor:
    """A float constant of one element as its largest code."""
    assert tensor.data is not None
    if tensor.data.size != 1:
        raise UnsupportedError(
            f"constant {tensor.name!r} of shape {list(tensor.shape)} is not quantized",
            fix="quantize it in the model (integer codes and a DequantizeLinear)",
        )
    value = float(tensor.data.reshape(-1)[0])
    code = dtype.qmax if value > 0 else -dtype.qmax if value < 0 else 0
    scale = abs(value) / dtype.qmax if value else 1.0
    data = np.full(tensor.shape, code, dtype.numpy)
    return Tensor(tensor.name, tensor.shape, dtype, Quantization.per_tensor(scale), data)


def widened(tensor: Tensor, dtype: DType) -> Tensor:
    """Narrower codes next to wider activations: code - zero point, exactly."""
    if tensor.dtype.bits >= dtype.bits:
        return tensor
    scale, zero = tensor.q.scalar
    assert tensor.data is not None
    data = (tensor.data.astype(np.int64) - zero).astype(dtype.numpy)
    return Tensor(tensor.name, tensor.shape, dtype, Quantization.per_tensor(float(scale)), data)


def gain(tensor: Tensor) -> Tensor:
    """The gain of a normalization: int8 or int16 codes, symmetric; reals become int16.

    Codes may be stored wider than they are (`onnx_writer` keeps int16 ones as int32).
    """
    limit = DType.INT16.qmax
    if tensor.quantization is None:
        return _quantized(tensor, DType.INT16, limit)
    codes = _symmetric(tensor)
    largest = int(np.abs(codes).max())
    if largest > limit:
        raise UnsupportedError(
            f"the gain {tensor.name!r} of a normalization has codes beyond 16 bits",
            fix="quantize it to 16 bits, or leave it float32",
        )
    narrow = tensor.dtype is DType.INT8 and largest <= DType.INT8.qmax
    dtype = DType.INT8 if narrow else DType.INT16
    return _with_codes(tensor, dtype, codes)


def offset(tensor: Tensor) -> Tensor:
    """The offset of a normalization: int32 codes, symmetric; reals get 24 bits of them."""
    if tensor.quantization is None:
        return _quantized(tensor, DType.INT32, (1 << 23) - 1)
    return _with_codes(tensor, DType.INT32, _symmetric(tensor))


def _quantized(tensor: Tensor, dtype: DType, largest: int) -> Tensor:
    """Reals as codes of one scale, half to even."""
    assert tensor.data is not None
    limit = float(np.abs(tensor.data).max())
    scale = np.float32(limit / largest if limit else 1.0)
    codes = np.rint(tensor.data.astype(np.float64) / np.float64(scale))
    data = np.clip(codes, -largest, largest).astype(dtype.numpy)
    return Tensor(tensor.name, tensor.shape, dtype, Quantization.per_tensor(float(scale)), data)


def _symmetric(tensor: Tensor) -> np.ndarray:
    """Codes less their zero point, int64."""
    assert tensor.data is not None
    if tensor.q.axis is not None:
        raise UnsupportedError(
            f"the parameter {tensor.name!r} of a normalization has {tensor.q.scale.size} scales",
            fix="quantize it per tensor, or leave it float32",
        )
    codes: np.ndarray = tensor.data.astype(np.int64) - tensor.q.scalar[1]
    return codes


def _with_codes(tensor: Tensor, dtype: DType, codes: np.ndarray) -> Tensor:
    quantization = Quantization.per_tensor(float(tensor.q.scalar[0]))
    return Tensor(tensor.name, tensor.shape, dtype, quantization, codes.astype(dtype.numpy))


def check_weight(op: Op, weight: Tensor) -> None:
    if weight.data is None or weight.quantization is None:
        raise UnsupportedError(
            f"the weight {weight.name!r} of {op.kind} {op.name!r} is not quantized",
            fix="store it as integer codes with a DequantizeLinear",
        )
    if np.any(weight.quantization.zero_point):
        raise UnsupportedError(
            f"the weight {weight.name!r} of {op.kind} {op.name!r} is not symmetric (its zero "
            "point, taken as signed codes, is not 0)",
            fix="quantize weights symmetrically (WeightSymmetric in onnxruntime's quantize_static)",
        )
    if weight.dtype.bits > 8:
        raise UnsupportedError(
            f"the weight {weight.name!r} of {op.kind} {op.name!r} has {weight.dtype} codes",
            fix="quantize weights to 8 bits or fewer",
        )
    if weight.quantization.axis not in (None, _CHANNEL_AXIS[type(op)]):
        raise UnsupportedError(
            f"the weight {weight.name!r} of {op.kind} {op.name!r} is not quantized per output "
            "channel",
            fix="quantize it along its output channels, or per tensor",
        )


def bias_codes(op: Op, bias: Tensor, weight: Tensor, source: Format) -> Tensor:
    """The bias as codes of scale input * weight."""
    dtype = DType.INT64 if source.dtype is DType.INT16 else DType.INT32
    scale = np.asarray(np.float32(source.scale) * weight.q.scale, np.float32)
    axis = 0 if weight.q.axis is not None else None
    if not (scale > 0).all():
        raise UnsupportedError(
            f"{op.kind} {op.name!r}: input scale times weight scale is 0 in float32",
            fix="a weight channel is all but zero; prune it, or give it a larger scale",
        )
    assert bias.data is not None
    if bias.quantization is None:
        reals = bias.data.astype(np.float64)
        codes = np.rint(reals / scale.astype(np.float64))
        limit = 2.0 ** (min(dtype.bits, 53) - 1)
        if np.abs(codes).max(initial=0) >= limit:
            raise UnsupportedError(
                f"the bias {bias.name!r} of {op.kind} {op.name!r} does not fit {dtype} at scale "
                "input * weight",
                fix="a weight channel is all but zero; give it a larger scale",
            )
    else:
        _check_bias(op, bias, scale)
        codes = bias.data
    data = codes.astype(dtype.numpy)
    quantization = Quantization(scale, np.zeros(scale.shape, np.int64), axis)
    return Tensor(bias.name, bias.shape, dtype, quantization, data)


def _check_bias(op: Op, bias: Tensor, scale: np.ndarray) -> None:
    quantization = bias.q
    if bias.dtype.bits < 32 or np.any(quantization.zero_point):
        raise UnsupportedError(
            f"the bias {bias.name!r} of {op.kind} {op.name!r} has {bias.dtype} codes or a zero "
            "point",
            fix="store biases as int32 codes of scale input * weight, or as float32",
        )
    given = np.broadcast_to(
        quantization.scale, np.broadcast_shapes(scale.shape, quantization.scale.shape)
    )
    if not np.allclose(given, scale, rtol=_BIAS_TOLERANCE, atol=0.0):
        worst = int(np.argmax(np.abs(given / scale - 1)))
        expected = np.broadcast_to(scale, given.shape)[worst]
        raise UnsupportedError(
            f"the bias {bias.name!r} of {op.kind} {op.name!r} has scale {given[worst]!r}, "
            f"expected input * weight = {expected!r}",
            fix="export biases with the scale input * weight, or as float32",
        )
