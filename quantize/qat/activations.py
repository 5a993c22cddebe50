"""Quantizers of activations: a trained scale, and a zero point that stays or is trained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgesmith.quantize.affine import Affine
from edgesmith.quantize.qat.rounding import exponential, fake_quantize


class ActivationQuantizer(nn.Module):
    """One tied set's.

    Args:
        start: scale and zero point where training starts.
        moves_zero_point: it is trained, if the range has values on both sides of 0.
    """

    initial: Tensor

    def __init__(self, start: Affine, *, moves_zero_point: bool = False) -> None:
        super().__init__()
        self.start = start
        fmt = start.format
        self.register_buffer("initial", torch.tensor(start.scale))
        self.register_buffer("fixed", torch.tensor(float(start.zero_point)))
        self.logarithm = nn.Parameter(torch.zeros(()))
        asymmetric = not fmt.is_float and not fmt.symmetric
        both = asymmetric and fmt.qmin < start.zero_point < fmt.qmax
        # In units of the whole range, so that one step moves it about as far as the scale does.
        self.offset = nn.Parameter(torch.zeros(())) if both and moves_zero_point else None

    @property
    def clips_negative(self) -> bool:
        """Whether its codes begin at 0, so that a ReLU in front of it changes nothing."""
        fmt = self.start.format
        return not fmt.is_float and self.offset is None and self.start.zero_point == fmt.qmin

    def scale(self) -> Tensor:
        """One number."""
        powers = self.start.format.power_of_two_scale
        return exponential(self.logarithm, self.initial, powers=powers)

    def zero_point(self) -> Tensor:
        """A whole number, as a float."""
        if self.offset is None:
            return self.get_buffer("fixed")
        moved: Tensor = _ZeroPoint.apply(self.offset, self.start)  # type: ignore[no-untyped-call]
        return moved

    def affine(self) -> Affine:
        """The same as values."""
        scale = np.float32(self.scale().detach().numpy())
        return Affine(scale, int(self.zero_point()), self.start.format)

    def forward(self, x: Tensor) -> Tensor:
        fmt = self.start.format
        features = x.numel() / max(len(x), 1)
        damping = 1 / math.sqrt(max(features, 1) * fmt.largest)
        zero_point = None if fmt.is_float else self.zero_point()
        return fake_quantize(x, self.scale(), zero_point, fmt, damping)


class _ZeroPoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, offset: Tensor, start: Affine) -> Tensor:
        fmt = start.format
        ctx.range = fmt.qmax - fmt.qmin
        moved = torch.round(start.zero_point + ctx.range * offset)
        return moved.clamp(fmt.qmin, fmt.qmax)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.range, None
