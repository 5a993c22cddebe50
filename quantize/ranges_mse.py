"""The range of the least squared quantization error.

Own implementation: Brevitas searches scales of single tensors, not of histograms over a whole
calibration set.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.histogram import Histogram


def mse_range(histogram: Histogram, fmt: QFormat) -> tuple[float, float]:
    """The range with the least mean squared quantization error of the histogram.

    Coordinate descent: each end in turn is scanned over fractions of its extreme,
    coarse and then fine. Ties keep the wider range.
    """
    weights, centers = histogram.counts_without_zeros(), histogram.centers
    known: dict[Affine, float] = {}  # many ranges round to one scale and zero point
    lowest, highest = low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)

    def error(low: float, high: float) -> float:
        affine = Affine.of_range(low, high, fmt)
        if affine not in known:
            known[affine] = _error(centers, weights, affine)
        return known[affine]

    for fractions in (_COARSE, _COARSE, _FINE, _FINE):
        lows = [max(low * fraction, lowest) for fraction in fractions]
        low = min(lows, key=lambda tried: error(tried, high))
        highs = [min(high * fraction, highest) for fraction in fractions]
        high = min(highs, key=lambda tried: error(low, tried))
    return low, high


_COARSE: tuple[float, ...] = tuple(np.geomspace(1.0, 0.02, 64).tolist())
_FINE: tuple[float, ...] = tuple(np.linspace(1.08, 0.92, 33).tolist())


def _error(
    centers: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], affine: Affine
) -> float:
    rounded = affine.dequantize(affine.codes(centers)).astype(np.float64)
    return float(np.dot(weights, np.square(centers - rounded)))
