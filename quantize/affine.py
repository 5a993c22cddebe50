"""Affine quantization of one activation tensor: real = scale * (code - zero point).

Codes are as files hold them: of float formats bit patterns, whose zero point is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.formats import power_of_two, stored_codes, stored_values


@dataclass(frozen=True)
class Affine:
    """Scale (float32) and zero point of a per-tensor format."""

    scale: np.float32
    zero_point: int
    format: QFormat

    @classmethod
    def of_range(cls, low: float, high: float, fmt: QFormat) -> Affine:
        """The narrowest quantization that covers [low, high] and 0, which is exactly a code.

        A range that is the single point 0 gets the scale of [0, 1].
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if low == high:
            high = 1.0
        if fmt.symmetric:
            # TFLite's int16 is symmetric around code 0, so -2**15 is never needed.
            return cls(_scale(max(-low, high) / fmt.largest, fmt), 0, fmt)
        scale = _scale((high - low) / (fmt.qmax - fmt.qmin), fmt)
        zero_point = int(np.clip(np.rint(fmt.qmin - low / scale), fmt.qmin, fmt.qmax))
        return cls(scale, zero_point, fmt)

    def codes(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """Nearest codes, ties to even, saturating; in float32 as runtimes compute it."""
        if self.format.is_float:
            return stored_codes(np.asarray(values, np.float32) / self.scale, self.format)
        scaled = np.rint(np.asarray(values, np.float32) / self.scale)
        shifted = scaled.astype(np.float64) + self.zero_point
        return np.asarray(np.clip(shifted, self.format.qmin, self.format.qmax), np.int64)

    def dequantize(self, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Real values of codes, in float32."""
        return stored_values(codes - self.zero_point, self.format) * self.scale


def _scale(exact: float, fmt: QFormat) -> np.float32:
    scale = max(np.float32(exact), _SMALLEST)
    if not fmt.power_of_two_scale:
        return scale
    return np.float32(power_of_two(np.asarray(scale)))


# Below this, x / scale overflows float32 for ordinary x.
_SMALLEST = np.float32(1e-30)
