"""The range that all but a given share of the values lie in, on either side.

Own implementation, on a histogram of all calibration data.
"""

from __future__ import annotations

import numpy as np

from edgesmith.quantize.histogram import BINS, Histogram


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """The range that leaves (100 - percentile) % of the values on either side, at most."""
    share = (100.0 - percentile) / 100.0 * histogram.counts.sum()
    edges = histogram.low + np.arange(BINS + 1) * histogram.width
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    first = int(np.searchsorted(below, share, side="right")) - 1
    above = below[-1] - below
    last = int(np.nonzero(above <= share)[0][0])
    return float(edges[max(first, 0)]), float(edges[last])
