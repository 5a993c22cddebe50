"""Rounding to a number format, with a gradient for values, scale and zero point.

Learned step size quantization (LSQ): with v = x / s, rounded to the nearest code,

    y = s * round(clip(v))         dy/dx = 1 inside of the range, else 0
    dy/ds = round(v) - v inside, the clipped code outside = (y - [inside] x) / s

Sources: Esser et al., "Learned Step Size Quantization", arXiv:1902.08153; for a zero point z,
y = s * (clip(round(v) + z) - z) and dy/dz = -s where x is clipped: Bhalgat et al., "LSQ+",
arXiv:2004.09576.

The forward pass is `AffineQuantizer`'s arithmetic: division, rounding to the nearest with ties to
even, saturation, all in float32 whatever precision the layers around it are trained in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.fakequant import round_to_float

CLIP_BINARY = 3.0
"""In units of the scale: weights beyond have no gradient through the sign."""
_NATIVE = {"fp8-e4m3": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2}


def rounded(x: Tensor, scale: Tensor, zero_point: Tensor | None, fmt: QFormat) -> Tensor:
    """Codes minus zero point (of float formats values at scale 1), as new float32 memory."""
    if fmt.is_binary:
        return torch.where(x / scale >= 0, 1.0, -1.0)
    scaled = x / scale
    low, high = limits(fmt, zero_point)
    if not fmt.is_float:
        return scaled.round_().clamp_(low, high)
    clamped = scaled.clamp_(low, high)
    native = _NATIVE.get(fmt.name)
    return round_to_float(clamped, fmt) if native is None else clamped.to(native).float()


def limits(fmt: QFormat, zero_point: Tensor | None) -> tuple[float, float]:
    """What `rounded` lies between."""
    if fmt.is_float:
        return -fmt.largest, fmt.largest
    shift = 0.0 if zero_point is None else float(zero_point)
    return fmt.qmin - shift, fmt.qmax - shift


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, fmt: QFormat, damping: float = 1.0
) -> Tensor:
    """Quantized and dequantized x, float32.

    Args:
        x: [...].
        scale: one number, or shaped to broadcast against x with one per channel.
        zero_point: one whole number; None is 0.
        damping: factor of the gradients of scale and zero point; LSQ's is 1 / sqrt(N * qmax).
    """
    result: Tensor = _FakeQuantize.apply(x.float(), scale, zero_point, fmt, damping)  # type: ignore[no-untyped-call]
    return result


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, fmt: QFormat, damping: float
    ) -> Tensor:
        y = rounded(x, scale, zero_point, fmt).mul_(scale)
        ctx.save_for_backward(x, scale, zero_point, y if ctx.needs_input_grad[1] else None)
        ctx.format, ctx.damping = fmt, damping
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, zero_point, y = ctx.saved_tensors
        low, high = limits(ctx.format, zero_point)
        if ctx.format.is_binary:
            low, high = -CLIP_BINARY, CLIP_BINARY
        given = _laid_out_like(gradients[0], x)
        if scale.numel() == 1:
            factor = float(scale)
            inside = torch.ops.aten.hardtanh_backward(given, x, low * factor, high * factor)
        else:
            inside = given * ((x > low * scale) & (x < high * scale))
        to_scale = to_zero = None
        if ctx.needs_input_grad[1]:
            to_scale = _scale_gradient(given, inside, x, y, scale) * ctx.damping
        if zero_point is not None and ctx.needs_input_grad[2]:
            to_zero = (inside.sum() - given.sum()) * (float(scale) * ctx.damping)
        return inside, to_scale, to_zero, None, None


def _scale_gradient(given: Tensor, inside: Tensor, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Sum of given * (y - [inside] x) / s over what each scale covers."""
    if scale.numel() == 1:
        strides = x.stride()
        order = sorted(range(x.ndim), key=lambda axis: -strides[axis])
        rows = [each.permute(order).reshape(-1) for each in (given, y, inside, x)]
        total = torch.dot(rows[0], rows[1]) - torch.dot(rows[2], rows[3])
        return (total / scale.reshape(())).reshape(scale.shape)
    axes = [axis for axis, size in enumerate(scale.shape) if size == 1]
    return (given * y - inside * x).sum(axes, keepdim=True) / scale


def _laid_out_like(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient with the strides of x, so that both are read in the order of memory."""
    if gradient.stride() == x.stride():
        return gradient
    return torch.empty_like(x).copy_(gradient)


class _Exponential(torch.autograd.Function):
    """initial * e^logarithm; with `powers` the nearest power of two, straight through."""

    @staticmethod
    def forward(ctx: Any, logarithm: Tensor, initial: Tensor, powers: bool) -> Tensor:
        scale = initial * logarithm.exp()
        if powers:
            scale = nearest_power_of_two(scale)
        ctx.save_for_backward(scale)
        return scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return gradients[0] * scale, None, None


def exponential(logarithm: Tensor, initial: Tensor, *, powers: bool) -> Tensor:
    """A positive scale of a trained logarithm; exactly `initial` at 0 (a power of two, if so)."""
    result: Tensor = _Exponential.apply(logarithm, initial, powers)  # type: ignore[no-untyped-call]
    return result


def nearest_power_of_two(scale: Tensor) -> Tensor:
    """2^round(log2 s)."""
    return torch.ldexp(torch.ones_like(scale), torch.log2(scale).round().int())


class _RoundBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bias: Tensor, scale: Tensor, bits: int) -> Tensor:
        limit = 2.0 ** (bits - 1)
        top = limit - (1 if bits == 32 else 1024)
        codes = (bias.double() / scale.double()).round_().clamp_(-limit, top)
        return codes.float() * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


def round_bias(bias: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Dequantized bias codes of 32 or 64 bits, as `weights.bias_codes` rounds them."""
    result: Tensor = _RoundBias.apply(bias, scale.detach(), bits)  # type: ignore[no-untyped-call]
    return result
