"""The plots of a search: its front, its hypervolume, and how well predictors rank candidates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from edgesmith.nas.values import SearchResult
from edgesmith.reports.pareto_plot import pareto_figure
from edgesmith.reports.plotstyle import (
    DEPLOYED,
    MUTED,
    SERIES,
    SYMBOLS,
    Figure,
    axis,
    finish,
    literal,
)
from edgesmith.reports.search import PROXY, predictors_of
from edgesmith.reports.search_metrics import name_of
from edgesmith.reports.text import significant, visible

_GAP = 0.16  # between panels, of the height that each takes up


def search_figures(found: SearchResult) -> dict[str, Figure | None]:
    """Plot id -> figure; None where the search has nothing of it."""
    return {
        "plot-search": pareto_figure(found),
        "plot-hypervolume": hypervolume_figure(found),
        "plot-predictors": predictors_figure(found),
    }


def hypervolume_figure(found: SearchResult) -> Figure | None:
    """How much of the box between ideal and nadir the front dominates, evaluation by evaluation."""
    if len(found.hypervolume) < 2:
        return None
    figure = go.Figure()
    figure.add_scatter(
        x=list(range(1, len(found.hypervolume) + 1)),
        y=list(found.hypervolume),
        mode="lines",
        line={"color": DEPLOYED, "width": 1.8, "shape": "hv"},
        hovertemplate="%{y:.4f} after %{x} evaluations<extra></extra>",
    )
    figure.update_xaxes(**axis("evaluations", rangemode="tozero"))
    figure.update_yaxes(**axis("hypervolume, share of the box"))
    return finish(figure, height=280, showlegend=False)


def predictors_figure(found: SearchResult) -> Figure | None:
    """Rank correlation over evaluations, a panel per metric; None where predictors learned once."""
    metrics = list(dict.fromkeys(each.metric for each in found.predictors))
    if len({each.evaluations for each in found.predictors}) < 2:
        return None
    figure = go.Figure()
    gap = _GAP / len(metrics)
    height = (1 - gap * (len(metrics) - 1)) / len(metrics)
    for at, metric in enumerate(metrics):
        top = 1 - at * (height + gap)
        placed = {"domain": [max(0.0, top - height), top], "anchor": "x"}
        title = axis(f"{literal(name_of(metric))},<br>Kendall’s tau", nticks=5)
        figure.update_layout({f"yaxis{at + 1 if at else ''}": placed | title})
    for trace in _tau_lines(found, metrics):
        figure.add_scatter(**trace)
    figure.update_xaxes(**axis("evaluations"), anchor=f"y{len(metrics) if metrics[1:] else ''}")
    return finish(figure, height=90 + 170 * len(metrics))


def _tau_lines(found: SearchResult, metrics: Sequence[str]) -> Iterator[Figure]:
    """A line of each predictor in the panel of each metric."""
    for number, name in enumerate(predictors_of(found)):
        proxy = name == PROXY
        colour = MUTED if proxy else SERIES[number % len(SERIES)]
        for at, metric in enumerate(metrics):
            known = [e for e in found.predictors if e.metric == metric and name in e.tau]
            yield {
                "x": [each.evaluations for each in known],
                "y": [_finite(each.tau[name]) for each in known],
                "yaxis": f"y{at + 1 if at else ''}",
                "mode": "lines+markers",
                "name": literal(f"{visible(name)} (no learning)" if proxy else visible(name)),
                "legendgroup": literal(name),
                "showlegend": at == 0,
                "line": {"color": colour, "width": 1.6, "dash": "dash" if proxy else "solid"},
                "marker": {"color": colour, "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 6},
                "customdata": [_tau_said(name, each.used, each.tau[name]) for each in known],
                "hovertemplate": "%{customdata}<br>after %{x} evaluations<extra></extra>",
            }


def _finite(value: float) -> float | None:
    """A gap for what is no number."""
    return value if math.isfinite(value) else None


def _tau_said(name: str, chosen: Sequence[str], tau: float) -> str:
    used = ", used from then on" if name in chosen else ""
    return f"{literal(name)}{used}: tau {significant(tau)}"
