"""The page of a whole run: every target side by side, those that failed or were skipped too.

Accuracy is of the same test samples everywhere. Latency is measured on some targets and
estimated on others: each figure says which, and the plot has a symbol for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import plotly.graph_objects as go

from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.values import Measurement
from edgesmith.reports.formats import totals
from edgesmith.reports.front_plots import front_figures
from edgesmith.reports.numbers import Number, number
from edgesmith.reports.pareto_plot import pareto_figure
from edgesmith.reports.plotstyle import (
    BASELINE,
    KIND_SYMBOLS,
    SERIES,
    Figure,
    axis,
    finish,
    literal,
    logarithmic,
)
from edgesmith.reports.render import render_page
from edgesmith.reports.search import search_view
from edgesmith.reports.text import form_name, significant, visible
from edgesmith.reports.verdict import judge


@dataclass(frozen=True)
class TargetEntry:
    """One target of a run.

    Args:
        result: None where there is none; `error` or `skipped` says why.
    """

    target: str
    result: DeploymentResult | None
    error: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class OverviewLine:
    """One row of the table; figures that a target does not have are None."""

    target: str
    href: str
    state: str
    good: bool | None
    said: str
    accuracy: Number | None
    size: Number | None
    latency: Number | None
    bits: str
    zeros: str


def render_overview(name: str, entries: Sequence[TargetEntry]) -> str:
    """The page of a run; the same entries give the same text."""
    results = [entry.result for entry in entries if entry.result is not None]
    shown: dict[str, Figure | None] = {"plot-targets": targets_figure(results)}
    front = next((each.allocation for each in results if each.allocation is not None), None)
    if front is not None:
        shown |= front_figures(front)
    searched = next((each.search for each in results if each.search is not None), None)
    if searched is not None:
        shown["plot-search"] = pareto_figure(searched)
    return render_page(
        "overview.html.j2",
        {plot: figure for plot, figure in shown.items() if figure is not None},
        name=visible(name),
        rows=tuple(_line(entry) for entry in entries),
        front=front is not None,
        search=search_view(searched) if searched is not None else None,
    )


def latency_of(result: DeploymentResult) -> Measurement | None:
    """Time of one inference: timed here, else as estimated for the device."""
    if result.latency is not None:
        return result.latency.deployed.median
    return result.device.time if result.device is not None else None


def _line(entry: TargetEntry) -> OverviewLine:
    href = quote(f"{entry.target}/report.html", safe="/")
    if entry.result is None:
        state = "skipped" if entry.skipped else "failed"
        said = visible(entry.skipped or entry.error)
        good = None if entry.skipped else False
        link = href if entry.skipped else ""
        name = visible(entry.target)
        return OverviewLine(name, link, state, good, said, None, None, None, "", "")
    result = entry.result
    verdict, found = judge(result), totals(result.layers)
    latency = latency_of(result)
    accuracy = _accuracy(result, "deployed")
    return OverviewLine(
        target=visible(entry.target),
        href=href,
        state="pass" if verdict.ok else "fail",
        good=verdict.ok,
        said=verdict.headline,
        accuracy=number(accuracy) if accuracy else None,
        size=number(result.size[0]) if result.size else None,
        latency=number(latency) if latency else None,
        bits=significant(found.bits) if found else "",
        zeros=f"{found.zero_percent:.1f} %" if found else "",
    )


def _accuracy(result: DeploymentResult, form: str) -> Measurement | None:
    return next((row.accuracy for row in result.accuracy if row.form == form), None)


def targets_figure(results: Sequence[DeploymentResult]) -> Figure | None:
    """Accuracy over size and over latency, a colour per target; None with nothing to show."""
    drawn = [each for each in results if _accuracy(each, "deployed") is not None]
    if not drawn:
        return None
    figure = go.Figure()
    for index, result in enumerate(drawn):
        colour = SERIES[index % len(SERIES)]
        size = result.size[0] if result.size else None
        at = (size, latency_of(result))
        _add_forms(figure, result, "deployed", literal(result.target), colour, at)
    for result in drawn:
        if result.latency is not None and result.latency.float_baseline is not None:
            size = next((each for each in result.size if "float" in each.metric), None)
            at = (size, result.latency.float_baseline.median)
            name = literal(f"float, {result.target}")
            _add_forms(figure, result, "float", name, BASELINE, at)
    sizes = [trace.x[0] for trace in figure.data if trace.xaxis == "x"]
    times = [trace.x[0] for trace in figure.data if trace.xaxis == "x2"]
    figure.update_layout(
        xaxis={**axis("size of what is deployed, bytes"), **_scale([0, 0.47], sizes)},
        xaxis2={**axis("time of one inference, ms"), **_scale([0.53, 1], times), "anchor": "y2"},
        yaxis=axis("accuracy on the test split, %"),
        yaxis2={**axis(), "anchor": "x2", "matches": "y", "showticklabels": False},
    )
    return finish(figure, height=420)


def _scale(domain: list[float], values: list[float]) -> Figure:
    return {"domain": domain, **(logarithmic(values) if values else {})}


def _add_forms(
    figure: go.Figure,
    result: DeploymentResult,
    form: str,
    name: str,
    colour: str,
    at: tuple[Measurement | None, Measurement | None],
) -> None:
    """One model in both panels: its accuracy with its interval over size and over latency."""
    accuracy = _accuracy(result, form)
    if accuracy is None:
        return
    interval = accuracy.interval
    for panel, found in zip(("", "2"), at, strict=True):
        if found is None or found.value <= 0:
            continue
        figure.add_scatter(
            x=[found.value],
            y=[accuracy.value],
            xaxis=f"x{panel}",
            yaxis=f"y{panel}",
            mode="markers",
            name=name,
            legendgroup=name,
            showlegend=not panel,
            marker={
                "color": colour,
                "size": 12 if form == "deployed" else 9,
                "symbol": KIND_SYMBOLS[found.kind],
                "line": {"color": colour, "width": 2},
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [interval.high - accuracy.value],
                "arrayminus": [accuracy.value - interval.low],
                "color": colour,
                "thickness": 1,
                "width": 4,
            }
            if interval
            else None,
            hovertemplate=f"<b>{name}</b><br>{literal(form_name(form))} %{{y:.2f}} %<br>"
            f"%{{x:,.4g}} {literal(found.unit)} ({found.kind.value})<extra></extra>",
        )
