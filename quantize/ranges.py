"""Activation ranges from calibration data: min-max, percentile or least squared error.

Two passes over the data: extremes first, then one histogram per quantizer
between them. Zero is inside every range and exactly a code. Own implementation:
Brevitas averages statistics over batches, which depends on how data is batched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.pipeline.values import QFormat
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.placement import Placement

BINS = 4096


@dataclass
class Histogram:
    """Counts of the values of one tied set, in `BINS` equal bins of [low, high].

    `zeros` of them are exactly 0 and cost no error whatever the scale.
    """

    low: float
    high: float
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    zeros: int = 0

    def add(self, values: Tensor) -> None:
        counted = torch.histc(values.flatten(), BINS, self.low, self.high)
        self.counts += counted.numpy().astype(np.int64)
        self.zeros += int((values == 0).sum())

    @property
    def width(self) -> float:
        return (self.high - self.low) / BINS

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        return np.asarray(self.low + (np.arange(BINS) + 0.5) * self.width, np.float64)


@torch.no_grad()
def find_ranges(
    network: Network,
    placement: Placement,
    batches: Callable[[], Iterable[Tensor]],
    options: PTQOptions,
) -> dict[str, Affine]:
    """Scale and zero point of every quantizer.

    Args:
        network: the float network with the placement's steps.
        batches: starts a pass over the calibration data, [n, *sample shape] each.

    Raises:
        QuantizationError: a tensor has NaN or infinite values on the calibration data.
    """
    affines = {
        name: Affine(np.float32(scale), zero_point, placement.formats[name])
        for name, (scale, zero_point) in placement.fixed.items()
    }
    extremes: dict[str, tuple[float, float]] = {}

    def note(quantizer: str, name: str, values: Tensor) -> None:
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low + high):
            raise QuantizationError(
                f"tensor {name!r} has NaN or infinite values on the calibration data",
                fix="check the calibration data and its normalization",
            )
        old = extremes.get(quantizer, (low, high))
        extremes[quantizer] = (min(old[0], low), max(old[1], high))

    _pass(network, placement, batches, note)
    if options.ranges == "min-max":
        chosen: Mapping[str, tuple[float, float]] = extremes
    else:
        chosen = _from_histograms(network, placement, batches, options, extremes)
    for name, (low, high) in chosen.items():
        affines[name] = Affine.of_range(low, high, placement.formats[name])
    return affines


def _from_histograms(
    network: Network,
    placement: Placement,
    batches: Callable[[], Iterable[Tensor]],
    options: PTQOptions,
    extremes: Mapping[str, tuple[float, float]],
) -> dict[str, tuple[float, float]]:
    histograms = {
        name: Histogram(*pair)
        for name, pair in extremes.items()
        if pair[0] < pair[1] and name not in placement.parameters
    }

    def count(quantizer: str, name: str, values: Tensor) -> None:
        if quantizer in histograms:
            histograms[quantizer].add(values)

    _pass(network, placement, batches, count)
    chosen = dict(extremes)
    for name, histogram in histograms.items():
        if options.ranges == "percentile":
            chosen[name] = percentile_range(histogram, options.percentile)
        else:
            chosen[name] = mse_range(histogram, placement.formats[name])
    return chosen


def _pass(
    network: Network,
    placement: Placement,
    batches: Callable[[], Iterable[Tensor]],
    see: Callable[[str, str, Tensor], None],
) -> None:
    """Show every observed tensor, with its quantizer, once per batch; constants once."""
    watched = {name: root for root, names in placement.observed.items() for name in names}

    def visit(name: str, value: Tensor) -> None:
        if name in watched:
            see(watched[name], name, value)

    for name, value in network.constants().items():
        visit(name, value)
    for batch in batches():
        network(batch, visit)


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """The range that leaves (100 - percentile) % of the values on either side, at most."""
    share = (100.0 - percentile) / 100.0 * histogram.counts.sum()
    edges = histogram.low + np.arange(BINS + 1) * histogram.width
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    first = int(np.searchsorted(below, share, side="right")) - 1
    above = below[-1] - below
    last = int(np.nonzero(above <= share)[0][0])
    return float(edges[max(first, 0)]), float(edges[last])


def mse_range(histogram: Histogram, fmt: QFormat) -> tuple[float, float]:
    """The range with the least mean squared quantization error of the histogram.

    Coordinate descent: each end in turn is scanned over fractions of its extreme,
    coarse and then fine. Ties keep the wider range.
    """
    weights = histogram.counts.astype(np.float64)
    zero_bin = int(np.clip((0.0 - histogram.low) / histogram.width, 0, BINS - 1))
    weights[zero_bin] = max(weights[zero_bin] - histogram.zeros, 0.0)
    lowest, highest = low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)

    def error(low: float, high: float) -> float:
        return _error(histogram.centers, weights, Affine.of_range(low, high, fmt))

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
