"""The front of a search: accuracy over the first cost, every candidate, what to compare with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import plotly.graph_objects as go

from edgesmith.nas.values import ACCURACY, FLOAT, Metrics, SearchResult, Trial
from edgesmith.pipeline.values import Kind
from edgesmith.reports.label_places import label_places
from edgesmith.reports.plotstyle import (
    BASELINE,
    DEPLOYED,
    INK,
    KIND_SYMBOLS,
    LESS,
    MUTED,
    TONES,
    Figure,
    axis,
    finish,
    literal,
    logarithmic,
)
from edgesmith.reports.search_metrics import (
    amount,
    cost_of,
    differences,
    limit_of,
    metrics_of,
    name_of,
    titled,
)
from edgesmith.reports.text import visible

_DECADE = 10


@dataclass(frozen=True)
class _Plane:
    """Accuracy over one cost, and everything that is drawn there."""

    figure: go.Figure
    found: SearchResult
    cost: str

    def add(self, trials: Sequence[Trial], **how: object) -> None:
        """Evaluated candidates as they were judged in the search."""
        self.figure.add_scatter(
            x=[each.metrics[self.cost] for each in trials],
            y=[each.metrics[ACCURACY] for each in trials],
            customdata=[_said(self.found, each) for each in trials],
            hovertemplate="%{customdata}<extra></extra>",
            **how,
        )

    def of(self, numbers: Sequence[int]) -> list[Trial]:
        """The trials of these numbers that have a place here."""
        return [
            self.found.trials[number]
            for number in numbers
            if {ACCURACY, self.cost} <= self.found.trials[number].metrics.keys()
        ]

    @cached_property
    def trials(self) -> list[Trial]:
        """All that have a place here."""
        return self.of(range(len(self.found.trials)))

    @cached_property
    def costs(self) -> list[float]:
        return [each.metrics[self.cost] for each in self.trials]

    @cached_property
    def accuracies(self) -> list[float]:
        return [each.metrics[ACCURACY] for each in self.trials]

    @cached_property
    def logarithmic(self) -> bool:
        """Whether costs span more than a decade."""
        return min(self.costs) > 0 and max(self.costs) > _DECADE * min(self.costs)

    def shares(self, points: Sequence[Metrics]) -> list[tuple[float, float]]:
        """Where points lie between the outermost ones, each way in 0..1."""
        scale = math.log if self.logarithmic else float
        return [
            (
                _share([scale(cost) for cost in self.costs], scale(each[self.cost])),
                _share(self.accuracies, each[ACCURACY]),
            )
            for each in points
        ]

    @property
    def symbol(self) -> str:
        return KIND_SYMBOLS[Kind(self.found.kinds[self.cost])]


def _share(values: Sequence[float], value: float) -> float:
    low, high = min(values), max(values)
    return (value - low) / (high - low) if high > low else 0.5


def pareto_figure(found: SearchResult) -> Figure | None:
    """Accuracy over the first cost; None where nothing was to be small, or nothing evaluated."""
    cost = cost_of(found)
    plane = _Plane(go.Figure(), found, cost or "")
    if cost is None or not plane.trials:
        return None
    _add_trials(plane)
    _add_front(plane)
    _add_references(plane)
    _add_trained(plane)
    _add_remeasured(plane)
    _add_chosen(plane)
    _add_limits(plane)
    short = {"tickformat": "~s"} if max(plane.costs) >= 1000 else {}
    plane.figure.update_xaxes(
        **axis(literal(f"{titled(found, cost)} ({found.kinds[cost]})")),
        **(logarithmic(plane.costs) if plane.logarithmic else short),
    )
    plane.figure.update_yaxes(
        **axis(f"accuracy on the selection split, %<br>({found.kinds[ACCURACY]})")
    )
    return finish(plane.figure, height=480)


def _add_trials(plane: _Plane) -> None:
    """Every candidate, in the colour of when it was evaluated."""
    plane.add(
        plane.trials,
        mode="markers",
        name=f"evaluated ({plane.found.kinds[plane.cost]})",
        marker={
            "color": [each.number for each in plane.trials],
            "colorscale": [[0, TONES["runtime"]], [1, MUTED]],
            "size": 6,
            "symbol": plane.symbol,
        },
    )


def _add_front(plane: _Plane) -> None:
    """A line where the front is one: between accuracy and a cost; else they stay points."""
    plane_is_all = {each.metric for each in plane.found.objectives} == {ACCURACY, plane.cost}
    plane.add(
        plane.of(plane.found.front),
        mode="lines+markers" if plane_is_all else "markers",
        name="front",
        line={"color": DEPLOYED, "width": 1.6},
        marker={"color": DEPLOYED, "size": 10, "symbol": plane.symbol},
    )


def _add_references(plane: _Plane) -> None:
    """The trained model in uniform formats, and a line at its accuracy as it is."""
    found = plane.found
    placed = {
        name: metrics
        for name, metrics in found.references.items()
        if {ACCURACY, plane.cost} <= metrics.keys()
    }
    front = plane.shares([each.metrics for each in plane.of(found.front)])
    places = label_places(plane.shares(list(placed.values())), list(placed), front)
    plane.figure.add_scatter(
        x=[metrics[plane.cost] for metrics in placed.values()],
        y=[metrics[ACCURACY] for metrics in placed.values()],
        customdata=[
            "<br>".join((f"<b>the trained model, {literal(name)}</b>", *_figures(found, metrics)))
            for name, metrics in placed.items()
        ],
        hovertemplate="%{customdata}<extra></extra>",
        mode="markers+text",
        name="trained model",
        text=[literal(name) if at else "" for name, at in zip(placed, places, strict=True)],
        textposition=[at or "bottom center" for at in places],
        textfont={"size": 11, "color": MUTED},
        marker={"color": BASELINE, "size": 10, "symbol": "square-open", "line": {"width": 2}},
        cliponaxis=False,
    )
    lines = {name: each[ACCURACY] for name, each in found.references.items() if name not in placed}
    # A format that the target lacks may lie far below everything, and would squeeze the rest.
    floor = min(plane.accuracies)
    below = {name: at for name, at in lines.items() if name != FLOAT and at < floor}
    for name, at in lines.items():
        if name not in below:
            _add_level(plane, name, at)
    if below:
        _add_below(plane, below)


def _add_level(plane: _Plane, name: str, accuracy: float) -> None:
    """A line at the accuracy of the trained model in a form that has no cost here."""
    floats = name == FLOAT
    style = {"color": BASELINE, "width": 1.2, "dash": "solid" if floats else "dot"}
    plane.figure.add_hline(accuracy, line=style)
    plane.figure.add_annotation(
        text=f"trained model, {literal(name)}{'' if floats else ' (not on this target)'}",
        font={"size": 11, "color": BASELINE},
        showarrow=False,
        x=1 if floats else 0.6,
        xref="x domain",
        xanchor="right" if floats else "center",
        y=accuracy,
        yanchor="bottom",
    )


def _add_below(plane: _Plane, accuracies: Mapping[str, float]) -> None:
    """Names of formats whose lines would lie under the plot, with the accuracy they have."""
    listed = ", ".join(f"{literal(name)} {at:.1f} %" for name, at in accuracies.items())
    plane.figure.add_annotation(
        text=f"↓ trained model, {listed} (not on this target)",
        font={"size": 11, "color": BASELINE},
        showarrow=False,
        x=0.01,
        xref="x domain",
        xanchor="left",
        y=0,
        yref="y domain",
        yanchor="bottom",
    )


def _add_trained(plane: _Plane) -> None:
    """Finalists where training brought them, each tied to where it was before."""
    found = plane.found
    moved = [
        each
        for each in plane.of(list(found.rungs[-1].accuracy) if found.rungs else [])
        if found.accuracy(each.number) != each.metrics[ACCURACY]
    ]
    if not moved:
        return
    costs = [each.metrics[plane.cost] for each in moved]
    before = [each.metrics[ACCURACY] for each in moved]
    after = [found.accuracy(each.number) for each in moved]
    _add_ties(plane, DEPLOYED, "trained", (costs, before), (costs, after))
    plane.figure.add_scatter(
        x=costs,
        y=after,
        mode="markers",
        name=literal(found.rungs[-1].name),
        marker={"color": DEPLOYED, "size": 11, "symbol": "diamond-tall"},
        customdata=[
            f"<b>candidate {each.number}</b>, {literal(found.rungs[-1].name)}<br>"
            f"accuracy {_full(found, ACCURACY, now)}<br>{_full(found, ACCURACY, then)} before"
            for each, then, now in zip(moved, before, after, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
        legendgroup="trained",
    )


def _add_remeasured(plane: _Plane) -> None:
    """Crosses where built members lie, each tied to where the cost model put it."""
    found = plane.found
    moved = [
        (number, before, after.value)
        for number, metric, before, after in differences(found)
        if metric == plane.cost
    ]
    if not moved:
        return
    numbers, before, after = zip(*moved, strict=True)
    accuracies = [found.accuracy(number) for number in numbers]
    _add_ties(plane, INK, "again", (before, accuracies), (after, accuracies))
    plane.figure.add_scatter(
        x=after,
        y=accuracies,
        mode="markers",
        name="built and measured again",
        marker={"color": INK, "size": 9, "symbol": "x-thin", "line": {"color": INK, "width": 1.6}},
        customdata=[
            f"<b>candidate {number}</b>, built and measured again<br>"
            f"{literal(name_of(plane.cost))} {_full(found, plane.cost, now)}"
            f"<br>{_full(found, plane.cost, then)} by the cost model"
            for number, then, now in moved
        ],
        hovertemplate="%{customdata}<extra></extra>",
        legendgroup="again",
    )


def _add_ties(
    plane: _Plane,
    colour: str,
    group: str,
    before: tuple[Sequence[float], Sequence[float]],
    after: tuple[Sequence[float], Sequence[float]],
) -> None:
    """A line from each point of one row of points, (costs, accuracies), to that of another."""
    x, y = (
        [at for pair in zip(*ends, strict=True) for at in (*pair, None)]
        for ends in zip(before, after, strict=True)
    )
    plane.figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": colour, "width": 1},
        legendgroup=group,
        showlegend=False,
        hoverinfo="skip",
    )


def _add_chosen(plane: _Plane) -> None:
    """A ring around the choice, where it was judged last."""
    found = plane.found
    if found.chosen is None or not plane.of([found.chosen]):
        return
    metrics = found.chosen_metrics
    plane.figure.add_scatter(
        x=[metrics[plane.cost]],
        y=[metrics[ACCURACY]],
        customdata=[_said(found, replace(found.trials[found.chosen], metrics={**metrics}))],
        hovertemplate="%{customdata}<extra></extra>",
        mode="markers",
        name="chosen",
        marker={
            "color": LESS,
            "size": 19,
            "symbol": "circle-open",
            "line": {"color": LESS, "width": 2.5},
        },
    )


def _add_limits(plane: _Plane) -> None:
    """Dashed lines at limits of what the axes show, as far as candidates come near them."""
    figure, line = plane.figure, {"color": MUTED, "width": 1.2, "dash": "dash"}
    for each in plane.found.constraints:
        label = {
            "text": literal(limit_of(plane.found, each)),
            "font": {"size": 11, "color": MUTED},
            "showarrow": False,
        }
        if each.metric == ACCURACY and each.limit >= min(plane.accuracies):
            figure.add_hline(each.limit, line=line)
            across = {"x": 0, "xref": "x domain", "xanchor": "left"}
            figure.add_annotation(**label, **across, y=each.limit, yanchor="bottom")
        if each.metric == plane.cost and each.limit <= max(plane.costs) * 1.3:
            figure.add_vline(each.limit, line=line)
            # Plotly places shapes by value, annotations on logarithmic axes by exponent.
            at = math.log10(each.limit) if plane.logarithmic else each.limit
            figure.add_annotation(**label, x=at, xanchor="right", y=0, yref="y domain")


def _said(found: SearchResult, trial: Trial) -> str:
    """The hover text: number, origin, metrics, and limits that it breaks."""
    broken = [
        f"<b>breaks: {literal(limit_of(found, each))}</b>"
        for each in found.constraints
        if each.metric in trial.metrics and each.excess(trial.metrics) > 0
    ]
    head = [f"<b>candidate {trial.number}</b>", literal(visible(trial.origin))]
    return "<br>".join([*head, *_figures(found, trial.metrics), *broken])


def _figures(found: SearchResult, metrics: Metrics) -> list[str]:
    """A line for each metric."""
    return [
        f"{literal(name_of(name))} {_full(found, name, metrics[name])}"
        for name in metrics_of(found)
        if name in metrics
    ]


def _full(found: SearchResult, metric: str, value: float) -> str:
    return f"{literal(amount(found, metric, value))} ({found.kinds[metric]})"
