"""Layers of a sub-network whose weights and inputs are rounded as they run.

For training only: it teaches shared weights to bear every format. Scales are found anew in every
pass, per output channel of weights and from the least and the largest value of the batch for
inputs, since a sub-network of another width has other ranges. What a candidate is scored by are
the integers of `quantize`, not this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgesmith.nas.codes import Codes, Grid
from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.options import ACTIVATION_FORMATS, WEIGHT_FORMATS
from edgesmith.quantize.qat.rounding import fake_quantize, limits

_FEW_BITS = 4
_RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
_LEAST = 1e-12


@dataclass(frozen=True)
class LayerFormats:
    """Formats of one layer, by their names in specs; None leaves it in float.

    Args:
        reads: activation format of its input.
    """

    weight: str | None
    reads: str | None


Policy = Mapping[str, LayerFormats]
"""Path of a layer -> its formats; other layers run in float."""


def rounded_weight(weight: Tensor, name: str) -> Tensor:
    """A weight [O, ...] in a format, its gradient straight through."""
    fmt = WEIGHT_FORMATS[name]
    return fake_quantize(weight, _weight_scale(weight.detach(), fmt), None, fmt)


def rounded_input(x: Tensor, name: str, codes: Codes | None = None) -> Tensor:
    """An activation in a format, its gradient straight through where it is not clipped.

    Args:
        codes: is told what the values lie on.
    """
    fmt = ACTIVATION_FORMATS[name]
    if fmt.is_float32:
        return x
    low, high = (each.float() for each in x.detach().aminmax())
    zero_point = None
    if fmt.symmetric:
        scale = (torch.maximum(-low, high) / fmt.largest).clamp_min(_LEAST)
    else:
        low, high = low.clamp_max(0), high.clamp_min(0)
        scale = ((high - low) / (fmt.qmax - fmt.qmin)).clamp_min(_LEAST)
        zero_point = (fmt.qmin - low / scale).round()
    found = fake_quantize(x, scale, zero_point, fmt)
    if codes is not None and not fmt.is_float:
        codes.note(found, Grid(scale, *limits(fmt, zero_point)))
    return found


@torch.no_grad()
def _weight_scale(weight: Tensor, fmt: QFormat) -> Tensor:
    """[O, 1, ...]: of the largest magnitude; with few bits of least squared error."""
    axes = tuple(range(1, weight.ndim))
    if fmt.is_binary:
        return weight.abs().mean(axes, keepdim=True).clamp_min(_LEAST)
    whole = (weight.abs().amax(axes, keepdim=True) / fmt.largest).clamp_min(_LEAST)
    if fmt.is_float or fmt.bits > _FEW_BITS:
        return whole
    scales = torch.stack([whole * ratio for ratio in _RATIOS])
    codes = (weight / scales).round().clamp_(fmt.qmin, fmt.qmax)
    errors = (codes * scales - weight).square().sum([axis + 1 for axis in axes])
    return scales.gather(0, errors.argmin(0).view(1, *whole.shape)).squeeze(0)
