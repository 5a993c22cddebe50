"""The plots of bit allocation: the front over every cost, and which layers have which bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from edgesmith.quantize.allocation.values import Figure as Front
from edgesmith.quantize.allocation.values import Point
from edgesmith.reports.allocation import chosen_point, kind_of, point_name, title_of
from edgesmith.reports.plotstyle import (
    BASELINE,
    DEPLOYED,
    HIGH,
    INK,
    KIND_SYMBOLS,
    LESS,
    LOW,
    MUTED,
    Figure,
    axis,
    finish,
    literal,
)
from edgesmith.reports.text import shorten, significant, visible

_COLUMNS = 2
_MOST_LAYERS, _MOST_POINTS = 80, 60


def front_figures(found: Front) -> dict[str, Figure | None]:
    """Plot id -> figure; None where the front has nothing of it."""
    return {"plot-front": front_figure(found), "plot-choices": choices_figure(found)}


def front_figure(found: Front) -> Figure | None:
    """Accuracy as measured and loss as predicted, over size and over the cost beside it.

    A column is a cost, a row what is lost for it; the row of accuracy is left out where none
    was measured.
    """
    if not found.front:
        return None
    costs = _columns(found)
    measured = any(each.accuracy for each in (*found.front, *found.uniform))
    rows = (["accuracy"] if measured else []) + ["loss"]
    figure = go.Figure()
    for row, what in enumerate(rows):
        for column, resource in enumerate(costs):
            at = row * len(costs) + column + 1
            _add_panel(figure, found, what, resource, at)
            _place(figure, found, (row, len(rows)), (column, len(costs)), what, resource)
    return finish(figure, height=60 + 260 * len(rows))


def _columns(found: Front) -> list[str]:
    """The cost that the front trades for loss, and the target's own or the next one."""
    others = sorted((name for name in found.units if name != found.resource), key=_second(found))
    return [found.resource, *others][:_COLUMNS]


def _second(found: Front) -> Callable[[str], tuple[bool, bool]]:
    """The order of the other costs: a target's own first, then bytes."""

    def rank(name: str) -> tuple[bool, bool]:
        return (name not in found.kinds, name != "weight-bytes")

    return rank


def _add_panel(figure: go.Figure, found: Front, what: str, resource: str, at: int) -> None:
    """Candidates, uniform formats, the choice and the budget in one panel."""
    axes = {"xaxis": f"x{at if at > 1 else ''}", "yaxis": f"y{at if at > 1 else ''}"}
    shown, first = (what, resource), at == 1
    _add_points(
        figure,
        found.front,
        shown,
        # Along its own resource the front is a line; along another cost it may turn back.
        mode="lines+markers" if resource == found.resource else "markers",
        name="candidates",
        line={"color": DEPLOYED, "width": 1.3, "dash": "dot" if what == "accuracy" else "solid"},
        marker={"color": DEPLOYED, "size": 8, "symbol": KIND_SYMBOLS[kind_of(found, resource)]},
        legendgroup="front",
        showlegend=first,
        **axes,
    )
    uniform = _with_height(found.uniform, what)
    _add_points(
        figure,
        uniform,
        shown,
        mode="markers+text",
        name="one format for all layers",
        text=[literal(each.label.replace("uniform ", "", 1)) for each in uniform],
        textposition="bottom center",
        textfont={"size": 11, "color": MUTED},
        marker={"color": BASELINE, "size": 10, "symbol": "square"},
        cliponaxis=False,
        legendgroup="uniform",
        showlegend=first and bool(uniform),
        **axes,
    )
    _add_choice(figure, found, shown, axes, first=first)


def _add_choice(
    figure: go.Figure, found: Front, shown: tuple[str, str], axes: Figure, *, first: bool
) -> None:
    """A ring around what the run went on with, and a line where the budget ends."""
    what, resource = shown
    chosen = chosen_point(found)
    if chosen is not None and _height(chosen, what) is not None:
        _add_points(
            figure,
            [chosen],
            shown,
            mode="markers",
            name="chosen",
            marker={
                "color": LESS,
                "size": 18,
                "symbol": "circle-open",
                "line": {"color": LESS, "width": 2.5},
            },
            legendgroup="chosen",
            showlegend=first,
            **axes,
        )
    if resource in found.budget:
        figure.add_shape(
            type="line",
            x0=found.budget[resource],
            x1=found.budget[resource],
            y0=0,
            y1=1,
            xref=axes["xaxis"],
            yref=f"{axes['yaxis']} domain",
            line={"color": MUTED, "width": 1.2, "dash": "dash"},
        )


def _with_height(points: Sequence[Point], what: str) -> list[Point]:
    return [each for each in points if _height(each, what) is not None]


def _add_points(
    figure: go.Figure, points: Sequence[Point], shown: tuple[str, str], **how: object
) -> None:
    what, resource = shown
    drawn = _with_height(points, what)
    figure.add_scatter(
        x=[each.costs.get(resource) for each in drawn],
        y=[_height(each, what) for each in drawn],
        customdata=[_said(each) for each in drawn],
        hovertemplate="%{customdata}<extra></extra>",
        **how,
    )


def _height(point: Point, what: str) -> float | None:
    if what == "loss":
        return point.loss
    return None if point.accuracy is None else point.accuracy.percent


def _said(point: Point) -> str:
    lines = [
        f"<b>{literal(point_name(point))}</b>",
        *(
            literal(f"{title_of(name).lower()} {value:,.6g}")
            for name, value in sorted(point.costs.items())
        ),
    ]
    if point.accuracy is not None:
        lines.append(f"accuracy {point.accuracy.percent:.2f} %")
    return "<br>".join([*lines, f"predicted rise {significant(point.loss)}"])


def _place(
    figure: go.Figure,
    found: Front,
    row: tuple[int, int],
    column: tuple[int, int],
    what: str,
    resource: str,
) -> None:
    """Axes of one panel of the grid."""
    at = row[0] * column[1] + column[0] + 1
    key = "" if at == 1 else str(at)
    wide, high = 1 / column[1], 1 / row[1]
    left, top = column[0] * wide, 1 - row[0] * high
    last = row[0] == row[1] - 1
    unit, kind = found.units[resource], kind_of(found, resource).value
    title = title_of(resource).lower()
    named = title if unit in title else f"{title}, {visible(unit)}"
    large = max(each.costs.get(resource, 0.0) for each in found.front) >= 1000
    short = {"tickformat": "~s"} if large else {}
    across = axis(f"{literal(named)} ({kind})" if last else "", nticks=5, **short)
    up = axis(_row_title(found, what) if column[0] == 0 else "", **_loss_scale(found, what))
    figure.update_layout(
        {
            f"xaxis{key}": {
                "domain": [left + 0.05 * column[0], min(1.0, left + wide - 0.03)],
                "anchor": f"y{key}",
                **across,
            },
            f"yaxis{key}": {
                "domain": [max(0.0, top - high + (0.0 if last else 0.06)), top - 0.02],
                "anchor": f"x{key}",
                **up,
            },
        }
    )


def _row_title(found: Front, what: str) -> str:
    if what == "accuracy":
        return "accuracy on the selection split, %<br>(measured)"
    return f"rise of the loss, {literal(visible(found.loss_unit))}<br>(predicted)"


def _loss_scale(found: Front, what: str) -> Figure:
    losses = [each.loss for each in (*found.front, *found.uniform)]
    if what != "loss" or min(losses) <= 0 or max(losses) < 30 * min(losses):
        return {}
    return {"type": "log", "dtick": 1, "exponentformat": "power"}


def choices_figure(found: Front) -> Figure | None:
    """Bits of every layer in every candidate, cheapest first; None where it would be too large."""
    layers = list(dict.fromkeys(name for each in found.front for name in each.weight_bits))
    if not layers or len(layers) > _MOST_LAYERS or len(found.front) > _MOST_POINTS:
        return None
    bits = [[each.weight_bits.get(name) for each in found.front] for name in layers]
    figure = go.Figure()
    figure.add_heatmap(
        z=bits,
        x=list(range(len(found.front))),
        y=list(range(len(layers))),
        zmin=1,
        zmax=max(8, *(bit for row in bits for bit in row if bit is not None)),
        colorscale=[[0, LOW], [1, HIGH]],
        showscale=False,
        xgap=2,
        ygap=2,
        text=[["" if bit is None else str(bit) for bit in row] for row in bits],
        texttemplate="%{text}",
        customdata=[
            [literal(f"{shorten(visible(name), 60)}, {point_name(each)}") for each in found.front]
            for name in layers
        ],
        hovertemplate="%{customdata}<br>%{z} bits a weight<extra></extra>",
    )
    labels = [each.label == found.chosen for each in found.front]
    if any(labels):
        at = labels.index(True)
        figure.add_shape(
            type="rect",
            x0=at - 0.5,
            x1=at + 0.5,
            y0=-0.5,
            y1=len(layers) - 0.5,
            line={"color": LESS, "width": 2.5},
        )
    step = 1 if len(found.front) <= 30 else 5
    shown = list(range(0, len(found.front), step))
    figure.update_xaxes(
        **axis("candidate, cheapest first (framed: chosen)", showgrid=False),
        tickvals=shown,
        ticktext=[str(each) for each in shown],
    )
    figure.update_yaxes(
        **axis(showgrid=False),
        autorange="reversed",
        tickvals=list(range(len(layers))),
        ticktext=[literal(shorten(visible(name), 28)) for name in layers],
    )
    figure.update_layout(font={"color": INK})
    return finish(figure, height=90 + 26 * len(layers), showlegend=False)
