"""Weight and bias codes: symmetric scales per channel, biases at input scale * weight scale.

Where weights or inputs are floats, biases are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.values import Granularity, QFormat
from edgesmith.quantize.formats import binary_scale, power_of_two, stored_codes, stored_values

FloatArray = npt.NDArray[np.float32]

# A bias code keeps this far from the int32 limits, so that bias correction still fits.
BIAS_LIMIT = 2.0**30
_RATIOS = np.linspace(1.0, 0.3, 71)
_POWERS = np.array([1.0, 0.5, 0.25])


@dataclass(frozen=True, eq=False)
class WeightScales:
    """Scales [output channels], or [1] per tensor."""

    scale: FloatArray
    format: QFormat

    def like(self, weight: npt.NDArray[np.generic]) -> FloatArray:
        """The scales, shaped to broadcast against a weight [O, ...]."""
        return self.scale.reshape(-1, *[1] * (weight.ndim - 1))

    def codes(self, weight: FloatArray) -> npt.NDArray[np.int64]:
        """Nearest codes as files hold them, ties to even, saturating."""
        return stored_codes(weight / self.like(weight), self.format)

    def dequantize(self, codes: npt.NDArray[np.integer]) -> FloatArray:
        return stored_values(codes, self.format) * self.like(codes)

    def bias(self, input_scale: np.float32) -> FloatArray:
        """Scales of the bias, float32 products."""
        return (input_scale * self.scale).astype(np.float32)


def find_scales(
    weight: FloatArray, bias: FloatArray, input_scale: np.float32, fmt: QFormat, *, search: bool
) -> WeightScales:
    """Scales for a weight [O, ...]: of the largest magnitude, or with `search` of least error.

    Binary weights have the mean magnitude as scale (XNOR-Net). A channel whose weights
    are so small that its bias would not fit 32 bits gets a larger scale; a channel of
    zeros that of the layer's largest weight.
    """
    rows = weight.reshape(weight.shape[0], -1)
    per_tensor = fmt.granularity is Granularity.PER_TENSOR
    if per_tensor:
        rows = rows.reshape(1, -1)
        bias = np.abs(bias).max(keepdims=True)
    largest = binary_scale(rows) if fmt.is_binary else np.abs(rows).max(axis=1)
    largest = np.where(largest > 0, largest, largest.max() or 1.0)
    scale = (largest / fmt.largest).astype(np.float32)
    if fmt.power_of_two_scale:
        scale = power_of_two(scale)
    if search and (fmt.power_of_two_scale or not fmt.is_binary):
        scale = _least_squares(rows, scale, fmt)
    if not fmt.is_float:
        needed = np.abs(bias.astype(np.float64)) / (float(input_scale) * BIAS_LIMIT)
        scale = np.maximum(scale, needed.astype(np.float32))
    return WeightScales(power_of_two(scale) if fmt.power_of_two_scale else scale, fmt)


def _least_squares(rows: FloatArray, scale: FloatArray, fmt: QFormat) -> FloatArray:
    best = np.full(scale.shape, np.inf)
    chosen = scale
    for ratio in _POWERS if fmt.power_of_two_scale else _RATIOS:
        tried = WeightScales((scale * np.float32(ratio)).astype(np.float32), fmt)
        error = np.square(rows - tried.dequantize(tried.codes(rows))).sum(axis=1, dtype=np.float64)
        chosen = np.where(error < best, tried.scale, chosen)
        best = np.minimum(error, best)
    return chosen.astype(np.float32)


def bias_codes(
    bias: FloatArray, scales: WeightScales, input_scale: np.float32, bits: int
) -> npt.NDArray[np.int64]:
    """Bias codes of `bits` (32 or 64), nearest, computed in float64."""
    rounded = np.rint(bias.astype(np.float64) / scales.bias(input_scale).astype(np.float64))
    limit = 2 ** (bits - 1)
    # float64 cannot hold 2**63 - 1.
    top = limit - 1 if bits == 32 else limit - 1024
    return np.clip(rounded, -limit, top).astype(np.int64)
