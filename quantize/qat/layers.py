"""One trained layer: weights and bias that are rounded in every forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.formats import power_of_two
from edgesmith.quantize.ops import Conv, Linear
from edgesmith.quantize.qat.options import WeightQuantizerName
from edgesmith.quantize.qat.rounding import nearest_power_of_two, round_bias, rounded
from edgesmith.quantize.qat.weights import weight_quantizer
from edgesmith.quantize.weights import BIAS_LIMIT, WeightScales

FloatArray = npt.NDArray[np.float32]

_INSIDE = 0.45
"""How far from its code a weight starts at most, in steps; beyond 0.5 lies the next code."""


class TrainedLayer(nn.Module):
    """A convolution or linear layer.

    Args:
        weight: float [O, ...]; where rounding it would not give `codes`, it starts close to them.
        bias: float [O].
        codes: the quantized weights at scale 1.
        scale: their scales, [O] or [1].
        source: format of the layer's input, which decides the bias's.
        mask: [O, ...], True where a weight is trained; the others stay zero.
    """

    mask: Tensor | None
    weight_unit: Tensor
    bias_unit: Tensor

    def __init__(
        self,
        op: Conv | Linear,
        weight: Tensor,
        bias: Tensor,
        codes: Tensor,
        scales: WeightScales,
        source: QFormat,
        *,
        mask: Tensor | None,
        quantizer: WeightQuantizerName,
    ) -> None:
        super().__init__()
        self.op = op
        self.format = scales.format
        scale = torch.from_numpy(scales.scale.copy())
        near = _near(weight, codes, scale, self.format)
        if mask is not None:
            near = near * mask
        self.register_buffer("weight_unit", _unit(near, tuple(range(1, near.ndim))))
        self.register_buffer("bias_unit", _unit(bias, (0,)))
        self.weight = nn.Parameter(near / self.weight_unit)
        self.bias = nn.Parameter(bias / self.bias_unit)
        self.register_buffer("mask", mask)
        self.quantizer = weight_quantizer(quantizer, near.detach(), scale, self.format)
        # Beside floats biases are floats.
        self._bias_bits = (
            None if self.format.is_float or source.is_float else 64 if source.bits == 16 else 32
        )
        self._run = _function(op)

    def forward(self, x: Tensor, input_scale: Tensor | None) -> Tensor:
        """The layer on quantized inputs of this scale (None: floats)."""
        weight, scale = self.quantizer(self._masked(), self._least(input_scale))
        bias = self.real_bias()
        if self._bias_bits is not None and input_scale is not None:
            bias = round_bias(bias, (input_scale * scale).reshape(-1), self._bias_bits)
        result: Tensor = self._run(x, weight, bias)
        return result

    @torch.no_grad()
    def frozen(self, input_scale: Tensor | None) -> tuple[FloatArray, FloatArray]:
        """Codes (of float formats values at scale 1) [O, ...], and scales [O] or [1]."""
        codes, scale = self.quantizer.codes(self._masked(), self._least(input_scale))
        return codes.contiguous().numpy(), scale.reshape(-1).numpy()

    def real_bias(self) -> Tensor:
        """[O], not yet rounded."""
        return self.bias * self.bias_unit

    def _masked(self) -> Tensor:
        weight = self.weight * self.weight_unit
        return weight if self.mask is None else weight * self.mask

    @torch.no_grad()
    def _least(self, input_scale: Tensor | None) -> Tensor | None:
        """The scale below which a bias would not fit 32 bits, shaped as the scales."""
        if self._bias_bits is None or input_scale is None:
            return None
        shape = self.quantizer.initial.shape
        bias = self.real_bias().abs().double()
        needed = bias.reshape(shape) if shape.numel() > 1 else bias.max().reshape(shape)
        least = (needed / (float(input_scale) * BIAS_LIMIT)).float()
        if self.format.power_of_two_scale:
            above = torch.from_numpy(power_of_two(least.numpy()))
            least = torch.where(least > 0, above, least)
        return least


def _unit(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """A power of two near ten times the mean magnitude: what one unit of a parameter stands for.

    An optimizer like Adam moves every parameter equally far. Folded layers have weights of any
    size (of inputs from 0 to 255, very small ones), so that they are trained in a unit of theirs,
    in which they are as large as those of usual layers.
    """
    mean = values.abs().mean(axes, keepdim=True)
    return nearest_power_of_two(torch.where(mean > 0, 10 * mean, 1.0))


def _function(op: Conv | Linear) -> Any:
    if isinstance(op, Linear):
        return F.linear
    run = F.conv1d if len(op.kernel) == 1 else F.conv2d
    return lambda x, weight, bias: run(
        x, weight, bias, op.stride, op.padding, op.dilation, op.groups
    )


def _near(weight: Tensor, codes: Tensor, scale: Tensor, fmt: QFormat) -> Tensor:
    """The float weights where they round to the codes, else the closest that do."""
    scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
    close = weight
    if not (fmt.is_float or fmt.is_binary):
        close = torch.clamp(weight / scale, codes - _INSIDE, codes + _INSIDE) * scale

    def kept(tried: Tensor, other: Tensor) -> Tensor:
        return torch.where(rounded(tried, scale, None, fmt) == codes, tried, other)

    return kept(weight, kept(close, codes * scale))
