"""Metrics of a search: which there are, and how a report names and writes them."""

from __future__ import annotations

from collections.abc import Iterator

from edgesmith.nas.values import ACCURACY, ON, Constraint, SearchResult
from edgesmith.pipeline.values import Measurement
from edgesmith.reports.allocation import title_of as words
from edgesmith.reports.text import compact, quantity, visible

_TITLES = {"macs": "MACs"}


def cost_of(found: SearchResult) -> str | None:
    """The first metric that is to become small; None where only accuracy was searched for."""
    return next((each.metric for each in found.objectives if each.is_cost), None)


def metrics_of(found: SearchResult) -> list[str]:
    """Every metric: accuracy and objectives first, then what is limited, then the others."""
    objectives, limits = (each.metric for each in found.objectives), found.constraints
    asked = (ACCURACY, *objectives, *(each.metric for each in limits))
    return [name for name in dict.fromkeys((*asked, *found.units)) if name in found.units]


def title_of(metric: str) -> str:
    """`weight-bytes` as `Weight bytes`, `flash on cortex-m7` as `Flash on cortex-m7`."""
    own, on, target = metric.partition(ON)
    return (_TITLES.get(own) or words(own)) + on + visible(target)


def name_of(metric: str) -> str:
    """The title within a sentence."""
    return title_of(metric) if metric in _TITLES else title_of(metric).lower()


def titled(found: SearchResult, metric: str) -> str:
    """`Flash, bytes`; a unit that the metric's name holds already is not said again."""
    title, unit = title_of(metric), visible(found.units[metric])
    said = metric in _TITLES or unit in title.lower()
    return title if said else f"{title}, {unit}"


def amount(found: SearchResult, metric: str, value: float) -> str:
    """A figure with its unit, unless that is the metric's name."""
    unit = visible(found.units.get(metric, ""))
    return quantity(value, unit) if unit in ("bytes", "ms", "%") else compact(value)


def limit_of(found: SearchResult, limit: Constraint) -> str:
    """`flash at most 2.10 MB`."""
    held = amount(found, limit.metric, limit.limit)
    return f"{name_of(limit.metric)} at {limit.bound} {held}"


def differences(found: SearchResult) -> Iterator[tuple[int, str, float, Measurement]]:
    """Member, metric, the cost model's figure and the re-measured one, where there are both."""
    for number, again in sorted(found.remeasured.items(), key=lambda each: each[0]):
        before = found.trials[number].metrics
        for name in metrics_of(found):
            if name in again and name in before:
                yield number, name, before[name], again[name]
