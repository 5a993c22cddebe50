"""Quantizers of weights: how scale and codes follow from the weights that are trained.

| quantizer | scale | codes |
|---|---|---|
| `lsq` | trained | nearest to w / s |
| `xnor` | mean magnitude of the channel, of every step's weights | sign of w |
| `dorefa` | trained; with 1 bit mean magnitude of the layer | nearest to n tanh(w / u) / max tanh |

Sources: LSQ, Esser et al., arXiv:1902.08153. XNOR-Net, Rastegari et al., arXiv:1603.05279: the
gradient passes the sign where |w| is below a bound, 1 there; folded weights have any unit, so here
it is `rounding.CLIP_BINARY` times the scale. DoReFa-Net, Zhou et al., arXiv:1606.06160: its 2^k
levels from -1 to 1 have no zero and no scale, since batch norm follows there; ours are the 2n + 1
levels of the narrow integer format (n = qmax) times a scale, and w is measured in u, twice the
channel's mean magnitude at the start.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from edgesmith.pipeline.values import Granularity, QFormat
from edgesmith.quantize.qat.options import WeightQuantizerName
from edgesmith.quantize.qat.rounding import (
    CLIP_BINARY,
    exponential,
    fake_quantize,
    nearest_power_of_two,
    rounded,
)


class WeightQuantizer(nn.Module):
    """Base of all; a subclass says what its scale is, and what is rounded.

    Args:
        scale: [O, 1, ...], or [1, 1, ...] per tensor: where training starts.
    """

    initial: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, fmt: QFormat) -> None:
        super().__init__()
        self.format = fmt
        self.register_buffer("initial", scale)
        self._damping = 1 / math.sqrt(weight.numel() / scale.numel() * fmt.largest)

    def scale(self, weight: Tensor) -> Tensor:
        """The scale that these weights have, before it has to be legal."""
        raise NotImplementedError

    def latent(self, weight: Tensor, scale: Tensor) -> Tensor:
        """What is divided by the scale and rounded."""
        return weight

    def forward(self, weight: Tensor, least: Tensor | None) -> tuple[Tensor, Tensor]:
        """Quantized weights and their scale; `least` is the smallest legal scale."""
        scale = self._legal(weight, least)
        return self.quantized(self.latent(weight, scale), scale), scale

    def quantized(self, latent: Tensor, scale: Tensor) -> Tensor:
        """Rounded and dequantized."""
        return fake_quantize(latent, scale, None, self.format, self._damping)

    @torch.no_grad()
    def codes(self, weight: Tensor, least: Tensor | None) -> tuple[Tensor, Tensor]:
        """Values at scale 1 and scale, by the arithmetic of `forward`."""
        scale = self._legal(weight, least)
        return rounded(self.latent(weight, scale), scale, None, self.format), scale

    def _legal(self, weight: Tensor, least: Tensor | None) -> Tensor:
        scale = self.scale(weight)
        return scale if least is None else torch.maximum(scale, least)


class LSQ(WeightQuantizer):
    """A trained scale, by its logarithm: relative steps, whatever the unit of a layer is."""

    def __init__(self, weight: Tensor, scale: Tensor, fmt: QFormat) -> None:
        super().__init__(weight, scale, fmt)
        self.logarithm = nn.Parameter(torch.zeros_like(scale))

    def scale(self, weight: Tensor) -> Tensor:
        return exponential(self.logarithm, self.initial, powers=self.format.power_of_two_scale)


class DoReFa(LSQ):
    """Weights squashed by tanh, so that large ones do not decide where the levels lie."""

    unit: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, fmt: QFormat) -> None:
        super().__init__(weight, scale, fmt)
        axes = _axes(scale)
        unit = 2 * weight.abs().mean(axes, keepdim=True)
        self.register_buffer("unit", torch.where(unit > 0, unit, 1.0))
        with torch.no_grad():
            codes = rounded(self.latent(weight, scale), scale, None, fmt)
            # The scale of least squared error for these codes.
            products = (codes * weight).sum(axes, keepdim=True)
            best = products / codes.square().sum(axes, keepdim=True).clamp_min(1)
            best = torch.where(best > 0, best, scale)
            self.initial = nearest_power_of_two(best) if fmt.power_of_two_scale else best

    def latent(self, weight: Tensor, scale: Tensor) -> Tensor:
        squashed = torch.tanh(weight / self.unit)
        largest = squashed.detach().abs().amax(_axes(self.initial), keepdim=True)
        return squashed * (scale * self.format.qmax / largest.clamp_min(1e-12))


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bound: Tensor) -> Tensor:
        ctx.save_for_backward(weight.abs() <= bound)
        return torch.where(weight >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None


class XNOR(WeightQuantizer):
    """Sign times mean magnitude, which is the binary approximation of least error.

    Args:
        whole_layer: the mean is that of the layer (DoReFa's binary weights).
    """

    def __init__(
        self, weight: Tensor, scale: Tensor, fmt: QFormat, *, whole_layer: bool = False
    ) -> None:
        super().__init__(weight, scale, fmt)
        self._whole = whole_layer

    def scale(self, weight: Tensor) -> Tensor:
        axes = tuple(range(weight.ndim)) if self._whole else _axes(self.initial)
        mean = weight.double().abs().mean(axes, keepdim=True).float().expand(self.initial.shape)
        mean = torch.where(mean > 0, mean, self.initial)
        return nearest_power_of_two(mean.detach()) if self.format.power_of_two_scale else mean

    def quantized(self, latent: Tensor, scale: Tensor) -> Tensor:
        sign: Tensor = _Sign.apply(latent, CLIP_BINARY * scale.detach())  # type: ignore[no-untyped-call]
        return sign * scale


def weight_quantizer(
    name: WeightQuantizerName, weight: Tensor, scale: Tensor, fmt: QFormat
) -> WeightQuantizer:
    """The quantizer for a layer's weights.

    Args:
        weight: [O, ...].
        scale: [O] or [1], where training starts.
    """
    shaped = scale.reshape(-1, *[1] * (weight.ndim - 1)).clone()
    assert (len(scale) > 1) <= (fmt.granularity is Granularity.PER_CHANNEL)
    if fmt.is_binary and name in ("auto", "xnor", "dorefa"):
        return XNOR(weight, shaped, fmt, whole_layer=name == "dorefa")
    if not fmt.is_float and fmt.bits == 2 and name == "dorefa":
        return DoReFa(weight, shaped, fmt)
    return LSQ(weight, shaped, fmt)


def _axes(scale: Tensor) -> tuple[int, ...]:
    """The axes that one scale covers."""
    return tuple(axis for axis, size in enumerate(scale.shape) if size == 1)
