"""View model of quantization-aware training: what it brought, and whether it was stopped."""

from __future__ import annotations

from dataclasses import dataclass

from edgesmith.pipeline.values import Kind
from edgesmith.quantize.qat.values import QATResult
from edgesmith.reports.numbers import Named, Number
from edgesmith.reports.text import count


@dataclass(frozen=True)
class TrainingView:
    """What a report says about it; `good` where the trained integers were kept."""

    lead: str
    good: bool
    outcome: str
    cards: tuple[Named, ...]


def training_view(found: QATResult) -> TrainingView:
    """The view model of quantization-aware training."""
    return TrainingView(
        lead=f"{count(found.epochs)} epochs on integers that are rounded in every step; accuracy"
        " on the selection split, which chose the epoch.",
        good=found.improved and not found.diverged,
        outcome=_outcome(found),
        cards=(
            Named("Float", _percent(found.floating, found.samples)),
            Named("Before training", _percent(found.before, found.samples), "post-training"),
            Named(
                "After training",
                _percent(found.after, found.samples),
                _points(found.after - found.before),
                lead=True,
            ),
        ),
    )


def _outcome(found: QATResult) -> str:
    if found.diverged:
        return "diverged and stopped, the best kept"
    return "kept" if found.improved else "no epoch was better, not kept"


def _percent(value: float, samples: int) -> Number:
    kind = Kind.MEASURED.value
    return Number(f"{value:.2f} %", kind, repr(value), samples=f"n = {count(samples)}")


def _points(change: float) -> str:
    if change == 0:
        return "same as before"
    return f"{'+' if change > 0 else '−'}{abs(change):.2f} points"
