"""View model of what the front's members chose: formats and widths, a column per member."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgesmith.nas.space import Choice, Moot
from edgesmith.nas.values import SearchResult, Trial
from edgesmith.quantize.options import ACTIVATION_FORMATS, WEIGHT_FORMATS
from edgesmith.reports.tables import NOTHING
from edgesmith.reports.text import visible

_MOST_MEMBERS = 12
_DEPTH = "depth"
_FORMATS = ("weights", "activations")
_TITLES = {
    "width": "Width, output channels",
    "kernel": "Kernel, side in elements",
    _DEPTH: "Residual block",
    "weights": "Format of weights",
    "activations": "Format of activations",
}
_BITS = {name: form.bits for name, form in (WEIGHT_FORMATS | ACTIVATION_FORMATS).items()}

Tone = Literal["bits", "size", "gone"]


@dataclass(frozen=True)
class ChoiceCell:
    """What one member chose: `share` is bits of the widest format, or size of the largest."""

    text: str
    tone: Tone
    share: float


@dataclass(frozen=True)
class ChoiceLine:
    """One gene."""

    name: str
    cells: tuple[ChoiceCell, ...]


@dataclass(frozen=True)
class ChoiceGroup:
    """All genes of a kind."""

    title: str
    rows: tuple[ChoiceLine, ...]


@dataclass(frozen=True)
class ChoicesView:
    """The bit map of a front.

    Args:
        members: number of each column's candidate.
        chosen: which of them is deployed.
        left_out: members of the front that have no column.
    """

    members: tuple[int, ...]
    chosen: int | None
    groups: tuple[ChoiceGroup, ...]
    left_out: int


def choices_view(found: SearchResult) -> ChoicesView:
    """The choices of the front's members, spread over it, in its order."""
    shown = found.deployable
    members = tuple(spread(shown, found.chosen))
    trials = [found.trials[number] for number in members]
    gone = [_gone(found.moot, each.choices) for each in trials]
    names: dict[str, list[str]] = {}
    for name in trials[0].choices if trials else ():
        names.setdefault(_kind(name), []).append(name)
    return ChoicesView(
        members,
        found.chosen,
        tuple(
            ChoiceGroup(
                _TITLES.get(kind, visible(kind)),
                tuple(_line(found.trials, trials, gone, name) for name in of_kind),
            )
            for kind, of_kind in names.items()
        ),
        len(shown) - len(members),
    )


def spread(front: Sequence[int], chosen: int | None, most: int = _MOST_MEMBERS) -> Iterator[int]:
    """At most `most` members of a front: both ends, the chosen one, and evenly between."""
    last = len(front) - 1
    places = set(range(len(front)))
    if len(front) > most:
        places = {round(at * last / (most - 1)) for at in range(most)}
    if chosen in front:
        at = front.index(chosen)
        if at not in places:
            places.remove(min(places - {0, last}, key=lambda place: abs(place - at)))
            places.add(at)
    yield from (front[place] for place in sorted(places))


def _kind(gene: str) -> str:
    kind, _, subject = gene.partition(":")
    return kind if subject else "Other"


def _line(
    evaluated: Sequence[Trial],
    members: Sequence[Trial],
    gone: Sequence[Container[str]],
    name: str,
) -> ChoiceLine:
    largest = max(_size(name, each.choices[name]) for each in evaluated if name in each.choices)
    kind, _, subject = name.partition(":")
    return ChoiceLine(
        visible(subject or kind),
        tuple(
            ChoiceCell(NOTHING, "gone", 0.0)
            if name in without
            else _cell(each.choices[name], name, largest)
            for each, without in zip(members, gone, strict=True)
        ),
    )


def _cell(choice: Choice, name: str, largest: float) -> ChoiceCell:
    kind = _kind(name)
    share = round(_size(name, choice) / largest, 4) if largest else 0.0
    text = {0: "dropped", 1: "kept"}.get(int(choice)) if kind == _DEPTH else None
    return ChoiceCell(text or visible(str(choice)), "bits" if kind in _FORMATS else "size", share)


def _gone(moot: Sequence[Moot], choices: Mapping[str, Choice]) -> set[str]:
    """Genes that change nothing, as in a block that this member dropped."""
    return {name for each in moot if choices[each.gene] == each.choice for name in each.genes}


def _size(name: str, choice: Choice) -> float:
    if _kind(name) in _FORMATS:
        return _BITS[str(choice)]
    return float(choice)
