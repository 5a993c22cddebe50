"""Figures: a measurement as text with its kind, and how it compares to its float counterpart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgesmith.pipeline.values import Interval, Measurement
from edgesmith.reports.text import count, exact, label, quantity, visible

KINDS_DIFFER = "not compared with float: the kinds differ"


@dataclass(frozen=True)
class Number:
    """One figure with its kind. `exact` holds all digits, `note` the rest of the fine print."""

    text: str
    kind: str
    exact: str
    interval: str = ""
    samples: str = ""
    note: str = ""


@dataclass(frozen=True)
class Named:
    """A figure under a name, with how it compares to float (empty where it cannot).

    `lead` marks the figure of the deployed model among its peers.
    """

    name: str
    number: Number
    compared: str = ""
    lead: bool = False


def number(found: Measurement) -> Number:
    """A measurement as a report shows it."""
    unit = visible(found.unit)
    return Number(
        text=quantity(found.value, unit),
        kind=found.kind.value,
        exact=exact(found.value, unit),
        interval=_interval(found.interval, unit) if found.interval else "",
        samples=f"n = {count(found.samples)}",
        note=conditions_of(found),
    )


def conditions_of(found: Measurement, said: Sequence[str] = ()) -> str:
    """The conditions of a measurement, without those that stand elsewhere."""
    return ", ".join(
        f"{visible(name)} {visible(value)}"
        for name, value in sorted(found.conditions.items())
        if name not in said
    )


def _interval(interval: Interval, unit: str) -> str:
    low, high = quantity(interval.low, unit), quantity(interval.high, unit)
    # One unit is enough where both ends are shown in the same one.
    if " " in low and low.split(" ", 1)[1] == high.split(" ", 1)[-1]:
        low = low.split(" ", 1)[0]
    return f"{low} to {high}"


def points_from(found: Measurement, baseline: Measurement | None) -> str:
    """How far an accuracy in percent lies from float's, in words."""
    if baseline is None or found is baseline:
        return ""
    if found.kind is not baseline.kind:
        return KINDS_DIFFER
    points = found.value - baseline.value
    if points == 0:
        return "same as float"
    return f"{'+' if points > 0 else '−'}{abs(points):.2f} points from float"


def against_float(found: Sequence[Measurement]) -> tuple[Named, ...]:
    """Figures with their ratio to the float counterpart.

    The counterpart is the figure whose metric reads the same once the words
    `float`, `deployed` and the unit are taken away: `deployed file` has `float
    file`. A ratio needs both of one unit and one kind.
    """
    floats = {_subject(one): one for one in found if _is_float(one)}
    return tuple(
        Named(
            name=label(one.metric, one.unit),
            number=number(one),
            compared=ratio_to(one, floats.get(_subject(one))),
            lead="deployed" in _words(one),
        )
        for one in found
    )


def _words(found: Measurement) -> list[str]:
    return re.split(r"[\s_.-]+", found.metric.lower())


def _is_float(found: Measurement) -> bool:
    return "float" in _words(found)


def _subject(found: Measurement) -> tuple[str, ...]:
    dropped = {"float", "deployed", found.unit.lower()}
    return tuple(word for word in _words(found) if word not in dropped)


def ratio_to(found: Measurement, baseline: Measurement | None) -> str:
    """`3.75× smaller than float`, or empty where there is nothing to compare with."""
    if baseline is None or _is_float(found) or found.unit != baseline.unit:
        return ""
    if found.kind is not baseline.kind:
        return KINDS_DIFFER
    if found.value <= 0 or baseline.value <= 0:
        return ""
    ratio = baseline.value / found.value
    if ratio >= 1:
        return f"{ratio:.2f}× smaller than float"
    return f"{1 / ratio:.2f}× larger than float"
