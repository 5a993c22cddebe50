"""Bins for latency distributions: one set for all series, deterministic, honest about tails."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

_LEAST_ROOM = 1e-9  # of the largest: floats that are neighbours have bins between them
_LOGARITHMIC_FROM = 6.0  # largest over smallest value on the axis
_TAIL = 0.98


@dataclass(frozen=True)
class Histogram:
    """Shares in percent per bin and series. Values right of `high` are counted in `beyond`."""

    edges: tuple[float, ...]
    shares: tuple[tuple[float, ...], ...]
    logarithmic: bool
    low: float
    high: float
    beyond: int
    total: int
    largest: float

    def steps(self, series: int) -> tuple[list[float], list[float]]:
        """Corners of a step line over the bins, closed to zero on the right."""
        return list(self.edges), [*self.shares[series], 0.0]


def histogram(series: Sequence[Sequence[float]]) -> Histogram | None:
    """One set of bins over all series; None without positive finite samples.

    The axis ends a little past the highest 98th percentile of any series, so a
    few interrupted runs do not squeeze the rest into a line; the runs beyond are
    counted. It is logarithmic where the series lie far apart.
    """
    kept = [sorted(x for x in one if math.isfinite(x) and x > 0) for one in series]
    kept_all = sorted(x for one in kept for x in one)
    if not kept_all:
        return None
    low = kept_all[0]
    high = max(one[math.ceil(_TAIL * len(one)) - 1] for one in kept if one)
    logarithmic = high / low > _LOGARITHMIC_FROM
    low, high = _padded(low, high, logarithmic=logarithmic)
    edges = _edges(low, high, _bin_count(kept), logarithmic=logarithmic)
    return Histogram(
        edges=edges,
        shares=tuple(_shares(one, edges) for one in kept),
        logarithmic=logarithmic,
        low=low,
        high=high,
        beyond=sum(x > high for x in kept_all),
        total=len(kept_all),
        largest=kept_all[-1],
    )


def _padded(low: float, high: float, *, logarithmic: bool) -> tuple[float, float]:
    if logarithmic:
        factor = (high / low) ** 0.04
        return low / factor, high * factor
    room = max(0.04 * (high - low), _LEAST_ROOM * high) if high > low else 0.05 * high
    return max(0.0, low - room), high + room


def _bin_count(kept: Sequence[Sequence[float]]) -> int:
    """Rice's rule on the larger series, finer because each series covers a part of the axis."""
    largest = max(len(one) for one in kept)
    return min(120, max(24, math.ceil(8 * math.cbrt(largest))))


def _edges(low: float, high: float, bins: int, *, logarithmic: bool) -> tuple[float, ...]:
    if logarithmic:
        ratio = high / low
        return tuple(low * ratio ** (step / bins) for step in range(bins + 1))
    return tuple(low + (high - low) * step / bins for step in range(bins + 1))


def _shares(values: Sequence[float], edges: Sequence[float]) -> tuple[float, ...]:
    counts = [0] * (len(edges) - 1)
    for value in values:
        slot = bisect_right(edges, value) - 1
        if 0 <= slot < len(counts):
            counts[slot] += 1
    return tuple(100 * n / len(values) if values else 0.0 for n in counts)


def nice_ticks(low: float, high: float) -> list[float]:
    """Round values between two positive ends: 1, 2, 5 times powers of ten, finer where few fit."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 5:
            break
    return inside
