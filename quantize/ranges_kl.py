"""The range whose quantized histogram diverges least from the whole one (Kullback-Leibler).

Each threshold T on magnitudes is tried: the reference P has what lies beyond T in its last
bin, the candidate Q has the bins below T merged into as many groups as the format has codes,
each group's count spread evenly over its bins that are not empty. The T of the least KL(P, Q)
is kept.

Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017. That is for signed symmetric
codes; here a range on both sides of zero has half the codes for magnitudes, one on a single
side has all of them. Own implementation: Brevitas has none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.histogram import BINS, Histogram

MAGNITUDES = 2048
"""Bins of magnitudes; formats with as many codes or more, such as int16, keep the whole range."""

Counts = npt.NDArray[np.float64]


def kl_range(histogram: Histogram, fmt: QFormat) -> tuple[float, float]:
    """The range [max(low, -T), min(high, T)] of the threshold T with the least divergence.

    Exact zeros are not counted: they cost nothing whatever the scale. Ties keep the wider range.

    Args:
        fmt: an integer format.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    codes = fmt.qmax - fmt.qmin + 1
    levels = codes // 2 if low < 0.0 < high else codes
    top = max(-low, high)
    counts = _magnitudes(histogram, top)
    if levels >= MAGNITUDES or not counts.any():
        return low, high
    tried = range(MAGNITUDES, levels - 1, -1)
    kept = min(tried, key=lambda bins: divergence(counts, bins, levels))
    threshold = kept / MAGNITUDES * top
    return max(low, -threshold), min(high, threshold)


def _magnitudes(histogram: Histogram, top: float) -> Counts:
    """Counts of magnitudes up to `top`, spread evenly inside the histogram's bins."""
    edges = histogram.low + np.arange(BINS + 1) * histogram.width
    below = np.concatenate([[0.0], np.cumsum(histogram.counts_without_zeros())])
    ends = np.linspace(0.0, top, MAGNITUDES + 1)
    within = np.interp(ends, edges, below) - np.interp(-ends, edges, below)
    return np.diff(within)


def divergence(counts: Counts, bins: int, levels: int) -> float:
    """KL(P, Q) in nats when the first `bins` bins are kept and merged into `levels` groups.

    Infinite where Q has no count in a bin of P: values beyond the threshold in a last bin
    that is empty itself.
    """
    kept = counts[:bins]
    reference = kept.copy()
    reference[-1] += counts[bins:].sum()
    group = np.arange(bins) * levels // bins
    filled = kept > 0
    sums = np.bincount(group, kept, levels)
    sizes = np.maximum(np.bincount(group, filled, levels), 1)
    candidate = np.where(filled, (sums / sizes)[group], 0.0)
    seen = reference > 0
    if not filled[seen].all():
        return float("inf")
    p = reference[seen] / reference.sum()
    q = candidate[seen] / candidate.sum()
    return float(np.sum(p * np.log(p / q)))
