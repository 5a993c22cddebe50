"""Timed runs as measurements: percentiles with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgesmith.pipeline.results import LatencySeries
from edgesmith.pipeline.values import Interval, Kind, Measurement

_RESAMPLES = 1000


def _percentile(
    samples: Sequence[float], percent: float, metric: str, target: str, conditions: dict[str, str]
) -> Measurement:
    values = np.asarray(samples, np.float64)
    # The named seed makes the interval a function of the samples alone.
    chosen = np.random.default_rng(0).integers(0, values.size, (_RESAMPLES, values.size))
    resampled = np.percentile(values[chosen], percent, axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Measurement(
        metric=metric,
        value=float(np.percentile(values, percent)),
        unit="ms",
        kind=Kind.MEASURED,
        target=target,
        samples=values.size,
        interval=Interval(float(low), float(high)),
        conditions=conditions,
    )


def latency_series(
    form: str, samples: Sequence[float], target: str, conditions: dict[str, str]
) -> LatencySeries:
    """Median, p90 and p99 of timed runs (ms), each with a 95 % bootstrap interval.

    Source of the interval: the percentile bootstrap of Efron and Tibshirani, 1000 resamples.
    """
    median, p90, p99 = (
        _percentile(samples, percent, metric, target, conditions)
        for percent, metric in ((50, "latency median"), (90, "latency p90"), (99, "latency p99"))
    )
    return LatencySeries(form, median, p90, p99, tuple(samples))
