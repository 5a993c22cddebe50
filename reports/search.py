"""View model of a search: what was evaluated, what was chosen, how far figures can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from edgesmith.nas.values import ACCURACY, UNIFORM, PredictorQuality, Rung, SearchResult, Trial
from edgesmith.reports.numbers import Named, Number
from edgesmith.reports.search_choices import ChoicesView, choices_view
from edgesmith.reports.search_metrics import (
    amount,
    cost_of,
    differences,
    limit_of,
    metrics_of,
    name_of,
    title_of,
    titled,
)
from edgesmith.reports.tables import NOTHING, Cell
from edgesmith.reports.text import count, exact, significant, visible

BASELINE = f"{UNIFORM}int8"
"""What the trained model is compared in with the chosen candidate."""
PROXY = "proxy"
SIMQ_NAS = {"instructions": 4.80, "time": 4.80, "flash": 3.44}
"""Up to how many times less latency and size than full INT8 at equal accuracy it reports, of other
models and on another machine, so that these only say how far there is to go.
"""
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_COMPARED = {
    "bytes": ("smaller", "larger"),
    "ms": ("faster", "slower"),
    "nats per sample": ("lower", "higher"),
}
_COUNTED = ("fewer", "more")


@dataclass(frozen=True)
class TrialLine:
    """One evaluation; of a failed one `error` says why."""

    number: int
    origin: str
    error: str
    on_front: bool
    chosen: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class MemberFigure:
    """One figure of a re-measured member: as the cost model has it, as measured, the difference.

    Args:
        kinds: of the cost model's and of the re-measured one; one where they are alike.
    """

    member: int
    metric: str
    kinds: tuple[str, ...]
    chosen: bool
    cells: tuple[Cell, Cell, Cell]


@dataclass(frozen=True)
class PredictorLine:
    """How well a metric was predicted at last, by each predictor."""

    metric: str
    evaluations: str
    predictor: str
    taus: tuple[Cell, ...]


@dataclass(frozen=True)
class RungLine:
    """One step of the ladder of evidence."""

    name: str
    samples: Cell
    candidates: Cell
    choice: Cell
    likely: Cell
    tau: Cell


@dataclass(frozen=True)
class Gain:
    """The chosen candidate against the trained model in `BASELINE`.

    Args:
        ratio, said: how many times less of the first cost, and of what.
        accuracy: the change with it, without which the ratio tells nothing.
    """

    ratio: Number
    said: str
    accuracy: Number | None


@dataclass(frozen=True)
class SearchView:
    """What a report says about a search.

    Args:
        gain: None where the trained model was not evaluated.
        published: beside what the literature reached; empty where nothing compares.
        volume: the hypervolume at last, and of what.
        columns: title and kind of every metric in `rows`.
        predictors: names over the columns of `quality`.
        proven, farthest: that members are what was scored, and the largest difference of a
            re-measured figure, in words.
        rungs: of the ladder of evidence, the search itself first.
        frozen: layers, and why they were left alone.
    """

    lead: str
    gain: Gain | None
    published: str
    cards: tuple[Named, ...]
    columns: tuple[tuple[str, str], ...]
    rows: tuple[TrialLine, ...]
    volume: str
    predictors: tuple[str, ...]
    quality: tuple[PredictorLine, ...]
    remeasured: tuple[MemberFigure, ...]
    proven: str
    farthest: str
    rungs: tuple[RungLine, ...]
    choices: ChoicesView
    frozen: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def search_view(found: SearchResult) -> SearchView:
    """The view model of a search that chose a candidate."""
    assert found.chosen is not None
    chosen = found.trials[found.chosen]
    shown = metrics_of(found)
    predictors = predictors_of(found)
    return SearchView(
        lead=_lead(found, chosen),
        gain=_gain(found),
        published=_published(found),
        cards=tuple(_cards(found)),
        columns=tuple((titled(found, name), found.kinds[name]) for name in shown),
        rows=tuple(_line(found, trial, shown) for trial in found.trials),
        volume=_volume(found),
        predictors=tuple(visible(name) for name in predictors),
        quality=tuple(_quality(each, predictors) for each in _latest(found)),
        remeasured=tuple(_remeasured(found)),
        proven=_proven(found),
        farthest=_farthest(found),
        rungs=tuple(_rung(each, found.chosen) for each in found.rungs),
        choices=choices_view(found),
        frozen=_frozen(found.frozen),
        notes=tuple(visible(note) for note in found.notes),
    )


def predictors_of(found: SearchResult) -> list[str]:
    """Names of all predictors, what they are compared with last."""
    names = dict.fromkeys(name for each in found.predictors for name in each.tau)
    return sorted(names, key=lambda name: name == PROXY)


def _lead(found: SearchResult, chosen: Trial) -> str:
    failed = sum(trial.failed for trial in found.trials)
    wanted = " and in ".join(name_of(each.metric) for each in found.objectives)
    samples = visible(chosen.provenance.get("samples", ""))
    limits = ", ".join(limit_of(found, each) for each in found.constraints)
    said = (
        f"{count(len(found.trials))} of {_power(found.log10_size)} candidates evaluated with"
        f" {visible(found.sampler)} for {visible(found.target)},"
        f" {f'{count(failed)} of them failed' if failed else 'none failed'}."
        f" {count(len(found.front))} are on the front: none is better in {wanted} at once."
        f" Chosen: candidate {chosen.number} ({visible(chosen.origin)}). Accuracy is of the"
        f" selection split{f', n = {samples}' if samples else ''}."
    )
    said += f" Limits: {limits}." if limits else ""
    if not found.corrupted:
        return said
    lines = "line" if found.corrupted == 1 else "lines"
    return f"{said} {count(found.corrupted)} damaged {lines} of the archive had to be skipped."


def _power(log10: float) -> str:
    return "10" + f"{log10:.0f}".translate(_SUPERSCRIPTS)


def _figure(found: SearchResult, metric: str, value: float) -> Number:
    exactly = exact(value, visible(found.units[metric]))
    return Number(amount(found, metric, value), found.kinds[metric], exactly)


def _trained(found: SearchResult) -> Mapping[str, float]:
    """Metrics of the trained model in the format that the choice is compared with."""
    return found.references.get(BASELINE, {})


def _gain(found: SearchResult) -> Gain | None:
    cost, before, after = cost_of(found), _trained(found), found.chosen_metrics
    if cost is None or not before.get(cost) or not after.get(cost):
        return None
    ratio, word = _times(found, cost, before[cost], after[cost])
    accuracy = None
    if ACCURACY in before and ACCURACY in after:
        change = after[ACCURACY] - before[ACCURACY]
        accuracy = Number(_points(change), found.kinds[ACCURACY], repr(change))
    return Gain(
        Number(f"{significant(ratio)}×", found.kinds[cost], repr(ratio)),
        f"{word} {name_of(cost)}" if word in _COUNTED else f"{word} in {name_of(cost)}",
        accuracy,
    )


def _published(found: SearchResult) -> str:
    """How close the choice comes to what the literature reached; nothing without such a cost."""
    before, after = _trained(found), found.chosen_metrics
    shares = [
        f"{before[name] / after[name] / best:.0%} of its {best:.2f}× in {name_of(name)}"
        for name, best in SIMQ_NAS.items()
        if before.get(name) and after.get(name) and (name != "time" or "instructions" not in after)
    ]
    if not shares:
        return ""
    return (
        f"Beside SimQ-NAS (arXiv:2312.13301), which is of other models on another machine:"
        f" {' and '.join(shares)}, both against uniform INT8."
    )


def _points(change: float) -> str:
    sign = "+" if change > 0 else "−" if change < 0 else "±"
    return f"{sign}{abs(change):.2f} points"


def _times(found: SearchResult, metric: str, before: float, after: float) -> tuple[float, str]:
    """How many times less or more, and the word for it."""
    less, more = _COMPARED.get(found.units[metric], _COUNTED)
    return (before / after, less) if before >= after else (after / before, more)


def _cards(found: SearchResult) -> Iterator[Named]:
    """The choice, metric by metric, against the trained model."""
    before, chosen = _trained(found), found.chosen_metrics
    for name in metrics_of(found):
        if name in chosen:
            value = chosen[name]
            compared = _against(found, name, before[name], value) if name in before else ""
            number = _figure(found, name, value)
            if name == ACCURACY and found.judged is not None:
                number = replace(number, samples=f"n = {count(found.judged.samples)}")
            yield Named(title_of(name), number, compared, lead=name == ACCURACY)


def _against(found: SearchResult, metric: str, before: float, after: float) -> str:
    if before == after:
        return f"same as {BASELINE}"
    if found.units[metric] == "%":
        return f"{_points(after - before)} against {BASELINE}"
    if before <= 0 or after <= 0:
        return ""
    ratio, word = _times(found, metric, before, after)
    return f"{significant(ratio)}× {word} than {BASELINE}"


def _volume(found: SearchResult) -> str:
    """`The front dominates 0.84 of the box of accuracy (measured) and time (estimated)`."""
    if not found.hypervolume:
        return ""
    of = " and ".join(f"{name_of(e.metric)} ({found.kinds[e.metric]})" for e in found.objectives)
    return f"The front dominates {significant(found.hypervolume[-1])} of the box of {of}"


def _line(found: SearchResult, trial: Trial, shown: list[str]) -> TrialLine:
    volume = found.hypervolume[trial.number] if trial.number < len(found.hypervolume) else None
    return TrialLine(
        number=trial.number,
        origin=visible(trial.origin),
        error=visible(trial.error),
        on_front=trial.number in found.front,
        chosen=trial.number == found.chosen,
        cells=(
            *(_cell(trial.metrics.get(name)) for name in shown),
            Cell(NOTHING) if volume is None else Cell(f"{volume:.4f}", repr(volume)),
        ),
    )


def _cell(value: float | None) -> Cell:
    if value is None:
        return Cell(NOTHING)
    return Cell(f"{value:,.0f}" if value >= 1000 else significant(value, 4), repr(value))


def _latest(found: SearchResult) -> Iterator[PredictorQuality]:
    """Of every metric the last quality."""
    yield from {each.metric: each for each in found.predictors}.values()


def _quality(found: PredictorQuality, predictors: list[str]) -> PredictorLine:
    return PredictorLine(
        title_of(found.metric),
        count(found.evaluations),
        visible(" and ".join(found.used)),
        tuple(_tau(found.tau.get(name)) for name in predictors),
    )


def _rung(rung: Rung, chosen: int) -> RungLine:
    score = rung.accuracy.get(chosen)
    likely = None if score is None else rung.interval(chosen)
    return RungLine(
        visible(rung.name),
        Cell(count(rung.samples), repr(rung.samples)),
        Cell(count(len(rung.accuracy)), repr(len(rung.accuracy))),
        Cell(NOTHING) if score is None else Cell(f"{score:.2f}", repr(score)),
        Cell(NOTHING) if likely is None else Cell(f"{likely[0]:.1f} to {likely[1]:.1f}"),
        _tau(rung.tau),
    )


def _tau(tau: float | None) -> Cell:
    return Cell(NOTHING) if tau is None else Cell(f"{tau:.2f}".replace("-", "−"), repr(tau))


def _remeasured(found: SearchResult) -> Iterator[MemberFigure]:
    for number, metric, before, after in differences(found):
        yield MemberFigure(
            number,
            titled(found, metric),
            tuple(dict.fromkeys((found.kinds[metric], after.kind.value))),
            number == found.chosen,
            (_cell(before), _cell(after.value), _percent(before, after.value)),
        )


def _percent(before: float, after: float) -> Cell:
    if before == after:
        return Cell("0", "0")
    if before == 0:
        return Cell(NOTHING)
    change = 100 * (after - before) / before
    return Cell(f"{'+' if change > 0 else '−'}{significant(abs(change))}", repr(change))


def _proven(found: SearchResult) -> str:
    if not found.proven:
        return ""
    tensors, members = sum(found.proven.values()), len(found.proven)
    of = "one artifact" if members == 1 else f"{count(members)} artifacts"
    return (
        f"{count(tensors)} tensors of {of} were compared with those that the search scored:"
        " none differs."
    )


def _farthest(found: SearchResult) -> str:
    changes = [
        (abs(after.value - before) / before, metric, number)
        for number, metric, before, after in differences(found)
        if before > 0
    ]
    if not changes:
        return ""
    change, metric, number = max(changes)
    if change == 0:
        return "No figure differs."
    return (
        f"The largest difference is {significant(100 * change)} %,"
        f" in {name_of(metric)} of candidate {number}."
    )


def _frozen(found: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Layers that share a reason, under it."""
    by_reason: dict[str, list[str]] = {}
    for layer, reason in found.items():
        by_reason.setdefault(reason, []).append(layer)
    return tuple((visible(", ".join(of)), visible(reason)) for reason, of in by_reason.items())
