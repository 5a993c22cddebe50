"""The plot of the samplers' benchmark: hypervolume over evaluations, five seeds of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from rows import RESULTS

from edgesmith.reports.plotstyle import MUTED, SERIES, axis, finish

PLOT = RESULTS / "search-hypervolume.html"


def plot(
    curves: Mapping[str, Sequence[Sequence[float]]],
    levels: Mapping[str, float],
    path: Path = PLOT,
) -> Path:
    """Write the plot as a page that opens offline.

    Args:
        curves: sampler -> of each seed, the share of the front's hypervolume after each evaluation.
        levels: what does not depend on evaluations, by what it is.
    """
    figure = go.Figure()
    for (name, runs), colour in zip(curves.items(), SERIES, strict=False):
        found = 100 * np.array(runs)
        number = np.arange(1, found.shape[1] + 1)
        figure.add_scatter(
            x=np.concatenate([number, number[::-1]]).tolist(),
            y=np.concatenate([found.max(axis=0), found.min(axis=0)[::-1]]).tolist(),
            fill="toself",
            fillcolor=colour,
            opacity=0.15,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=number.tolist(),
            y=found.mean(axis=0).tolist(),
            name=name,
            line={"color": colour, "width": 2},
            hovertemplate=f"{name}: %{{y:.1f}} % after %{{x}} evaluations<extra></extra>",
        )
    for label, level in levels.items():
        figure.add_hline(100 * level, line={"color": MUTED, "dash": "dot", "width": 1})
        figure.add_annotation(
            text=label, x=1, xref="paper", xanchor="right", y=100 * level, yshift=8, showarrow=False
        )
    figure.update_xaxes(**axis("evaluations", rangemode="tozero"))
    figure.update_yaxes(**axis("hypervolume, % of the true front's"))
    path.parent.mkdir(exist_ok=True)
    go.Figure(finish(figure, height=460)).write_html(path, include_plotlyjs=True)
    return path
