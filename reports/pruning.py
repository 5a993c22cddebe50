"""View model of pruning: what was asked, what it brought, what was undone or left alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgesmith.pipeline.values import Kind
from edgesmith.prune.values import CostFigure, PruneResult, Round
from edgesmith.reports.numbers import Named, Number
from edgesmith.reports.text import compact, count, exact, label, quantity, significant, visible


@dataclass(frozen=True)
class RoundLine:
    """One prune and fine-tune."""

    number: str
    goal: str
    cost: str
    pruned_accuracy: str
    accuracy: str
    epochs: str
    accepted: bool


@dataclass(frozen=True)
class PruningView:
    """What a report says about pruning.

    Args:
        asked: the goal in words.
        change: cost after of cost before; None where no channels were pruned for.
        kind: of the costs.
        frozen: layers, and why they were left alone.
    """

    target: str
    asked: str
    reached: bool
    change: Number | None
    cards: tuple[Named, ...]
    kind: str
    rounds: tuple[RoundLine, ...]
    frozen: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def pruning_view(found: PruneResult) -> PruningView:
    """The view model of what pruning did."""
    before, after = found.before, found.after
    return PruningView(
        target=visible(found.target),
        asked=_asked(found),
        reached=found.reached,
        change=_change(before, after),
        cards=(
            replace(_cost(before, "before"), compared=visible(before.basis)),
            replace(_cost(after, "after"), compared=visible(after.basis), lead=True),
            Named("Accuracy before", _accuracy(found.accuracy_before), "float, selection split"),
            Named("Accuracy after", _accuracy(found.accuracy_after), "float, selection split"),
        ),
        kind=after.kind.value,
        rounds=tuple(_round(at, each, after.unit) for at, each in enumerate(found.rounds, start=1)),
        frozen=tuple(
            (visible(", ".join(each.layers)), visible(each.reason)) for each in found.frozen
        ),
        notes=tuple(visible(note) for note in found.notes),
    )


def _cost(found: CostFigure, when: str) -> Named:
    unit, kind = visible(found.unit), found.kind.value
    short = quantity(found.value, unit) if unit in ("bytes", "ms") else compact(found.value)
    number = Number(short, kind, exact(found.value, unit))
    return Named(f"{label(unit) if unit not in ('bytes', 'ms') else 'Cost'} {when}", number)


def _asked(found: PruneResult) -> str:
    if found.goal >= found.before.value:
        return "zeros were asked for, no channels"
    share = 100 * found.goal / found.before.value
    unit = visible(found.before.unit)
    return f"at most {compact(found.goal)} {unit}, {significant(share)} % of the unpruned model"


def _change(before: CostFigure, after: CostFigure) -> Number | None:
    if before.value <= 0 or before.kind is not after.kind:
        return None
    share = 100 * after.value / before.value
    return Number(f"{share:.1f} %", after.kind.value, repr(share))


def _accuracy(percent: float) -> Number:
    return Number(f"{percent:.2f} %", Kind.MEASURED.value, repr(percent))


def _round(number: int, found: Round, unit: str) -> RoundLine:
    return RoundLine(
        number=str(number),
        goal=compact(found.goal),
        cost=compact(found.cost),
        pruned_accuracy=f"{found.pruned_accuracy:.2f}",
        accuracy=f"{found.accuracy:.2f}",
        epochs=count(found.epochs),
        accepted=found.accepted,
    )
