"""View model of bit allocation: the choice, the uniform policies beside it, and every candidate."""

from __future__ import annotations

from dataclasses import dataclass

from edgesmith.pipeline.values import Kind
from edgesmith.quantize.allocation.values import Figure, Point
from edgesmith.reports.numbers import Named, Number
from edgesmith.reports.tables import NOTHING, Cell
from edgesmith.reports.text import compact, exact, label, quantity, significant, visible


@dataclass(frozen=True)
class PointLine:
    """One policy; `chosen` is the one that the run went on with."""

    name: str
    chosen: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class AllocationView:
    """What a report says about bit allocation.

    Args:
        resources: title and kind of every cost column.
        measured: some accuracies were measured.
    """

    lead: str
    cards: tuple[Named, ...]
    resources: tuple[tuple[str, str], ...]
    rows: tuple[PointLine, ...]
    measured: bool
    split: str


def allocation_view(found: Figure) -> AllocationView:
    """The view model of a front."""
    points = (*found.front, *found.uniform)
    accuracy = next((each.accuracy for each in points if each.accuracy is not None), None)
    return AllocationView(
        lead=_lead(found),
        cards=tuple(_cards(found)),
        resources=tuple(
            (f"{title_of(name)}, {visible(unit)}", kind_of(found, name).value)
            for name, unit in found.units.items()
        ),
        rows=tuple(_line(found, each) for each in points),
        measured=accuracy is not None,
        split=f"{visible(accuracy.split)} split, n = {accuracy.samples:,}" if accuracy else "",
    )


def kind_of(found: Figure, resource: str) -> Kind:
    """How a cost came to be; bytes and bit operations follow from shapes."""
    return found.kinds.get(resource, Kind.ESTIMATED)


def title_of(resource: str) -> str:
    """`weight-bytes` as `Weight bytes`."""
    return label(resource.replace("-", " "))


def bits_per_weight(point: Point) -> float | None:
    """Mean over layers, each counted once."""
    if not point.weight_bits:
        return None
    return sum(point.weight_bits.values()) / len(point.weight_bits)


def chosen_point(found: Figure) -> Point | None:
    """The policy that the run went on with."""
    return next((each for each in found.front if each.label == found.chosen), None)


def point_name(point: Point) -> str:
    """`front 3` as `candidate 3`; uniform policies as they are."""
    return visible(point.label.replace("front ", "candidate ", 1))


def _lead(found: Figure) -> str:
    budget = ", ".join(
        f"at most {_amount(limit, found.units.get(name, ''))}"
        + ("" if found.units.get(name) == "bytes" else f" ({title_of(name).lower()})")
        + (" of weights" if name == "weight-bytes" else "")
        for name, limit in found.budget.items()
    )
    return (
        f"{len(found.front)} candidates, of which none is better in predicted loss and in "
        f"{title_of(found.resource).lower()} at once; the loss is predicted from sensitivities"
        + (f" ({visible(found.method)})" if found.method else "")
        + (f". Budget: {budget}." if budget else ".")
    )


def _cards(found: Figure) -> list[Named]:
    chosen = chosen_point(found)
    if chosen is None:
        return []
    cards = [
        Named(
            title_of(name),
            Number(
                _amount(chosen.costs[name], unit),
                kind_of(found, name).value,
                exact(chosen.costs[name], unit),
            ),
            _against(found, chosen, name),
        )
        for name, unit in found.units.items()
        if name in chosen.costs
    ]
    if chosen.accuracy is not None:
        percent = chosen.accuracy.percent
        number = Number(
            f"{percent:.2f} %",
            Kind.MEASURED.value,
            repr(percent),
            samples=f"n = {chosen.accuracy.samples:,}",
        )
        cards.insert(0, Named("Accuracy", number, f"{visible(chosen.accuracy.split)} split", True))
    loss = Number(significant(chosen.loss), Kind.ESTIMATED.value, repr(chosen.loss))
    return [*cards, Named("Rise of the loss", loss, visible(found.loss_unit))]


def _amount(value: float, unit: str) -> str:
    """With its unit, unless that is the resource's name."""
    return quantity(value, unit) if unit in ("bytes", "ms") else compact(value)


def _against(found: Figure, chosen: Point, resource: str) -> str:
    """How a cost compares with the most expensive uniform policy."""
    widest = max(found.uniform, key=lambda each: each.costs.get(resource, 0.0), default=None)
    if widest is None or not widest.costs.get(resource):
        return ""
    share = 100 * chosen.costs[resource] / widest.costs[resource]
    return f"{significant(share)} % of {visible(widest.label)}"


def _line(found: Figure, point: Point) -> PointLine:
    bits = bits_per_weight(point)
    accuracy = point.accuracy
    cells = [
        Cell(f"{accuracy.percent:.2f}", repr(accuracy.percent)) if accuracy else Cell(NOTHING),
        Cell(significant(point.loss), repr(point.loss)),
        *(
            Cell(f"{point.costs[name]:,.0f}", repr(point.costs[name]))
            if point.costs.get(name, 0.0) >= 100
            else Cell(significant(point.costs.get(name, 0.0)), repr(point.costs.get(name, 0.0)))
            for name in found.units
        ),
        Cell(NOTHING) if bits is None else Cell(significant(bits), repr(bits)),
    ]
    return PointLine(point_name(point), point.label == found.chosen, tuple(cells))
