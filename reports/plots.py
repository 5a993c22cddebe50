"""The plots of a report, as Plotly figures in JSON.

Figures name only light colours of `PALETTE`; the page swaps each for its dark
partner when the theme changes, so a figure is stored once. Text that comes from
a model is escaped for Plotly's own small markup (`literal`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from edgesmith.pipeline.results import AccuracyRow, Confusion, DeploymentResult, LayerRow
from edgesmith.reports.compression_plots import compression_figures
from edgesmith.reports.device_plots import device_figures
from edgesmith.reports.front_plots import front_figures
from edgesmith.reports.histogram import Histogram, histogram, nice_ticks
from edgesmith.reports.plotstyle import (
    BASELINE,
    BASELINE_FILL,
    DEPLOYED,
    DEPLOYED_FILL,
    HIGH,
    KIND_SYMBOLS,
    LESS,
    LOW,
    MARK,
    MORE,
    MUTED,
    SAME,
    SERIES,
    SYMBOLS,
    Figure,
    axis,
    finish,
    literal,
)
from edgesmith.reports.search_plots import search_figures
from edgesmith.reports.tables import edges_of
from edgesmith.reports.text import edge_name, form_name, shorten, significant, visible


def figures(result: DeploymentResult) -> dict[str, Figure]:
    """Plot id -> figure, only for what the result holds."""
    found = {
        "plot-accuracy": accuracy_figure(result.accuracy),
        "plot-latency": latency_figure(result),
        "plot-drift": drift_figure(result.layers, result.worst_layers),
        "plot-confusion": confusion_figure(result.confusion),
        **compression_figures(result),
        **(search_figures(result.search) if result.search else {}),
        **(front_figures(result.allocation) if result.allocation else {}),
        **(device_figures(result.device) if result.device else {}),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def accuracy_figure(rows: Sequence[AccuracyRow]) -> Figure | None:
    """Accuracy of every form with its interval; None below two forms."""
    if len(rows) < 2:
        return None
    figure = go.Figure()
    for row in rows:
        found, colour = row.accuracy, DEPLOYED if row.form == "deployed" else MUTED
        low, high = _ends(row)
        figure.add_scatter(
            x=[found.value],
            y=[literal(form_name(row.form))],
            mode="markers",
            marker={"color": colour, "size": 11, "symbol": KIND_SYMBOLS[found.kind]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [high - found.value],
                "arrayminus": [found.value - low],
                "color": colour,
                "thickness": 2,
                "width": 5,
            },
            hovertemplate=f"%{{y}}: %{{x:.2f}} %<br>{found.kind.value}, n = {found.samples:,}"
            "<extra></extra>",
        )
        if row.form == "float":
            figure.add_vline(x=found.value, line={"color": MUTED, "width": 1, "dash": "dot"})
    figure.update_xaxes(**axis("accuracy on the test split, %"))
    figure.update_yaxes(autorange="reversed", **axis(showgrid=False))
    return finish(figure, height=90 + 34 * len(rows), showlegend=False)


def _ends(row: AccuracyRow) -> tuple[float, float]:
    interval = row.accuracy.interval
    return (interval.low, interval.high) if interval else (row.accuracy.value,) * 2


def latency_figure(result: DeploymentResult) -> Figure | None:
    """Box of every timed run above the share of runs per bin, both models on one axis."""
    if result.latency is None:
        return None
    series = [(result.latency.deployed, DEPLOYED, DEPLOYED_FILL)]
    if result.latency.float_baseline:
        series.append((result.latency.float_baseline, BASELINE, BASELINE_FILL))
    counted = histogram([one.samples_ms for one, _, _ in series])
    if counted is None:
        return None
    figure = go.Figure()
    for index, (one, colour, fill) in enumerate(series):
        name = literal(
            f"{form_name(one.form)} ({one.median.kind.value}, {len(one.samples_ms):,} runs)"
        )
        figure.add_box(
            x=[time for time in one.samples_ms if math.isfinite(time)],
            y0=-index,
            yaxis="y2",
            orientation="h",
            name=name,
            boxpoints="all",
            jitter=0.7,
            pointpos=0,
            width=0.62,
            line={"color": colour, "width": 1.4},
            fillcolor="rgba(0,0,0,0)",
            marker={"color": colour, "size": 3, "opacity": 0.35},
            hoveron="boxes",
            showlegend=False,
        )
        xs, ys = counted.steps(index)
        figure.add_scatter(
            x=xs,
            y=ys,
            name=name,
            line={"shape": "hv", "color": colour, "width": 1.6},
            fill="tozeroy",
            fillcolor=fill,
            hovertemplate="%{y:.1f} % of runs from %{x:.3g} ms<extra></extra>",
        )
    figure.update_layout(yaxis2={"domain": [0.76, 1], "visible": False, "anchor": "x"})
    figure.update_layout(
        yaxis={"domain": [0, 0.70], "rangemode": "tozero", **axis("share of runs, %")}
    )
    figure.update_xaxes(**_latency_axis(counted))
    return finish(figure, height=380)


def _latency_title(counted: Histogram) -> str:
    if counted.beyond == 0:
        return "latency of one inference, ms"
    return (
        f"latency of one inference, ms<br>({counted.beyond} of {counted.total:,} runs lie right "
        f"of the axis, up to {significant(counted.largest)} ms)"
    )


def _latency_axis(counted: Histogram) -> Figure:
    ends = [counted.low, counted.high]
    if not counted.logarithmic:
        return axis(_latency_title(counted), range=ends)
    ticks = nice_ticks(*ends)
    return axis(
        _latency_title(counted),
        type="log",
        range=[math.log10(end) for end in ends],
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
    )


def drift_figure(layers: Sequence[LayerRow], worst: Sequence[str]) -> Figure | None:
    """Largest difference and SQNR per layer, one line per edge; None without drift."""
    edges = edges_of(layers)
    if not edges:
        return None
    drifts = [drift for layer in layers for drift in layer.drift]
    finite = [one.sqnr_db for one in drifts if one.sqnr_db and math.isfinite(one.sqnr_db)]
    ceiling = 10 * math.ceil(max(finite, default=50.0) / 10) + 10
    figure = go.Figure()
    for number, edge in enumerate(edges):
        _add_edge(figure, layers, number, edge, ceiling)
    for layer in layers:
        if layer.name in worst:
            figure.add_vrect(
                x0=layer.index - 0.5, x1=layer.index + 0.5, fillcolor=MARK, line_width=0
            )
    peak = max((one.max_lsb for one in drifts if math.isfinite(one.max_lsb)), default=1.0)
    marks = [0, *(mark for mark in _LSB_MARKS if mark <= max(peak, 1) * 1.5)]
    figure.update_layout(
        yaxis={
            "domain": [0.56, 1],
            "tickvals": [_squeeze(mark) for mark in marks],
            "ticktext": [f"{mark:,}" for mark in marks],
            **axis("largest difference, LSB"),
        },
        yaxis2={
            "domain": [0, 0.44],
            "anchor": "x",
            **_decibel_ticks(min(finite, default=0.0), ceiling),
            **axis("SQNR, dB"),
        },
    )
    whole: Figure = {"range": [layers[0].index - 0.7, layers[-1].index + 0.7]}
    if len(layers) <= 12:
        whole["dtick"] = 1
    title = "layer, in execution order" + (" (shaded: worst)" if worst else "")
    figure.update_xaxes(anchor="y2", **axis(title, showgrid=False, **whole))
    return finish(figure, height=520)


_LSB_MARKS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


def _squeeze(lsb: float) -> float | None:
    """Logarithmic, but with a place for the 0 that matters most; a gap for what is no number."""
    return math.log10(1 + max(lsb, 0.0)) if math.isfinite(lsb) else None


def _decibel(sqnr: float | None, ceiling: float) -> float | None:
    """The height of an SQNR: equal tensors (None, or infinitely good) lie on the ceiling."""
    if sqnr is None or sqnr == math.inf:
        return ceiling
    return sqnr if math.isfinite(sqnr) else None


def _decibel_ticks(lowest: float, ceiling: float) -> Figure:
    span = ceiling - lowest
    step = next((step for step in (10, 20, 50, 100) if span / step <= 7), 1_000)
    first = step * math.floor(lowest / step)
    ticks = range(first, int(ceiling) - step // 2, step)
    return {
        "tickvals": [*ticks, ceiling],
        "ticktext": [*(str(tick) for tick in ticks), "same"],
    }


def _add_edge(
    figure: go.Figure, layers: Sequence[LayerRow], number: int, edge: str, ceiling: float
) -> None:
    points = [(layer, drift) for layer in layers for drift in layer.drift if drift.edge == edge]
    line = {
        "x": [layer.index for layer, _ in points],
        "text": [literal(shorten(layer.name, 48)) for layer, _ in points],
        "name": literal(edge_name(edge)),
        "legendgroup": str(number),
        "mode": "lines+markers",
        "line": {"color": SERIES[number % len(SERIES)], "width": 1.6},
        "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 7 if len(layers) <= 60 else 4},
    }
    figure.add_scatter(
        y=[_squeeze(drift.max_lsb) for _, drift in points],
        customdata=[significant(drift.max_lsb) for _, drift in points],
        hovertemplate="%{x} %{text}<br>largest difference %{customdata} LSB",
        **line,
    )
    figure.add_scatter(
        y=[_decibel(drift.sqnr_db, ceiling) for _, drift in points],
        customdata=[
            "no difference" if drift.sqnr_db is None else f"SQNR {drift.sqnr_db:.1f} dB"
            for _, drift in points
        ],
        hovertemplate="%{x} %{text}<br>%{customdata}",
        yaxis="y2",
        showlegend=False,
        **line,
    )


def confusion_figure(confusion: Confusion | None) -> Figure | None:
    """Three heat maps, of which the page shows one: deployed, float, and their difference."""
    if confusion is None or not confusion.labels:
        return None
    names = unique_names(confusion.labels)
    before, after = confusion.float_counts, confusion.deployed_counts
    change = [
        [new - old for old, new in zip(*rows, strict=True)]
        for rows in zip(before, after, strict=True)
    ]
    figure = go.Figure()
    for counts, shown, title in ((after, True, "deployed"), (before, False, "float")):
        _add_counts(figure, names, counts, shown=shown, title=title)
    figure.add_heatmap(
        x=names,
        y=names,
        z=change,
        zmid=0,
        visible=False,
        colorscale=[[0, LESS], [0.5, SAME], [1, MORE]],
        colorbar=_colorbar("more or fewer"),
        hovertemplate="true %{y}<br>predicted %{x}<br>%{z:+d} samples after deployment"
        "<extra></extra>",
        **_cell_text([[f"{n:+d}" if n else "" for n in row] for row in change]),
    )
    figure.update_xaxes(constrain="domain", **_class_axis("predicted class"))
    figure.update_yaxes(
        autorange="reversed", scaleanchor="x", constrain="domain", **_class_axis("true class")
    )
    return finish(figure, height=600 if len(names) > 4 else 420)


def _add_counts(
    figure: go.Figure,
    names: Sequence[str],
    counts: Sequence[Sequence[int]],
    *,
    shown: bool,
    title: str,
) -> None:
    shares = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
    figure.add_heatmap(
        x=names,
        y=names,
        # The square root lets a few mistakes be seen beside hundreds of right answers.
        z=[[round(math.sqrt(n / max(sum(row), 1)), 4) for n in row] for row in counts],
        zmin=0,
        zmax=1,
        visible=shown,
        customdata=counts,
        colorscale=[[0, LOW], [1, HIGH]],
        colorbar=_colorbar(
            "share of class",
            tickvals=[math.sqrt(share) for share in shares],
            ticktext=[f"{share:.0%}" for share in shares],
        ),
        hovertemplate=f"{title}<br>true %{{y}}<br>predicted %{{x}}<br>%{{customdata:,}} samples"
        "<extra></extra>",
        **_cell_text([[str(n) if n else "" for n in row] for row in counts]),
    )


def _cell_text(text: Sequence[Sequence[str]]) -> Figure:
    gap = 1 if len(text) <= 40 else 0
    if len(text) > 24:
        return {"xgap": gap, "ygap": gap}
    return {"text": text, "texttemplate": "%{text}", "xgap": gap, "ygap": gap}


def _colorbar(title: str, **more: object) -> Figure:
    return {
        "title": {"text": title, "side": "right", "font": {"size": 12}},
        "outlinewidth": 0,
        "thickness": 12,
        "len": 0.8,
        **more,
    }


def _class_axis(title: str) -> Figure:
    return {"type": "category", **axis(title, showgrid=False, ticks="")}


def unique_names(labels: Sequence[str], limit: int = 18) -> list[str]:
    """Class names for an axis: short, literal, and never two alike (Plotly would merge those)."""
    names: list[str] = []
    for name in labels:
        base = shorten(visible(name), limit) or "(no name)"
        candidate, number = base, 1
        while literal(candidate) in names:
            number += 1
            candidate = f"{base} ({number})"
        names.append(literal(candidate))
    return names
