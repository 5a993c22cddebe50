"""The plots of compression: bits and zeros of every layer, and the rounds of pruning."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from edgesmith.pipeline.results import DeploymentResult, LayerFormats, LayerRow
from edgesmith.pipeline.values import QFormat
from edgesmith.prune.values import PruneResult, Round
from edgesmith.reports.formats import weighted
from edgesmith.reports.plotstyle import (
    BASELINE,
    BASELINE_FILL,
    DEPLOYED,
    INK,
    KIND_SYMBOLS,
    LESS,
    MUTED,
    SERIES,
    Figure,
    axis,
    finish,
    literal,
)
from edgesmith.reports.text import count, shorten, significant, visible

_NAMED = 16  # layers; of more, the axis shows numbers
_GAP = 0.09


def compression_figures(result: DeploymentResult) -> dict[str, Figure | None]:
    """Plot id -> figure; None where the result has nothing of it."""
    return {
        "plot-formats": formats_figure(result.layers),
        "plot-pruning": pruning_figure(result.pruning) if result.pruning else None,
    }


def formats_figure(layers: Sequence[LayerRow]) -> Figure | None:
    """Bits, zeros, bytes and channels of every layer with weights; None where there is none."""
    found = weighted(layers)
    if not found:
        return None
    figure = go.Figure()
    pruned = any(formats.channels for _, formats in found)
    names = list(dict.fromkeys(str(formats.weight) for _, formats in found))
    for number, name in enumerate(sorted(names, key=_bits, reverse=True)):
        _add_format(figure, name, SERIES[number % len(SERIES)], found)
    figure.add_scatter(
        x=list(range(len(found))),
        y=[_bits(formats.writes) for _, formats in found],
        mode="markers",
        name="bits of the layer’s output",
        marker={"symbol": "line-ew", "size": 16, "line": {"width": 2.5, "color": INK}},
        customdata=[f"{_head(layer)}<br>writes {literal(f.writes)}" for layer, f in found],
        hovertemplate="%{customdata}<extra></extra>",
    )
    if pruned:
        _add_channels(figure, found)
    titles = ["bits", "zeros, %", "bytes of weights", *(["output channels"] if pruned else [])]
    _stack_axes(figure, titles)
    figure.update_layout(
        barmode="overlay",
        yaxis2={"range": [0, max(5.0, *(1.15 * _zero_percent(f) for _, f in found))]},
    )
    figure.update_xaxes(
        anchor=f"y{len(titles)}",
        **axis("layer with weights, in execution order", showgrid=False),
        **_layer_ticks(found),
    )
    return finish(figure, height=150 * len(titles) + 60)


def _bits(name: str) -> int:
    return QFormat.parse(name).bits


def _zero_percent(formats: LayerFormats) -> float:
    return 100 * formats.zeros / formats.weights if formats.weights else 0.0


def _head(layer: LayerRow) -> str:
    return f"<b>{layer.index} {literal(shorten(visible(layer.name), 60))}</b>"


def _add_format(
    figure: go.Figure, name: str, colour: str, found: Sequence[tuple[LayerRow, LayerFormats]]
) -> None:
    """The layers of one weight format: bits, zeros and bytes, one bar below the other."""
    own = [(at, layer, f) for at, (layer, f) in enumerate(found) if f.weight == name]
    panels = (
        ("y", [_bits(name) for _ in own], [f"{literal(name)} weights" for _ in own]),
        (
            "y2",
            [_zero_percent(f) for _, _, f in own],
            [f"{count(f.zeros)} of {count(f.weights)} weights are exactly zero" for *_, f in own],
        ),
        (
            "y3",
            [f.code_bytes for _, _, f in own],
            [f"{count(f.code_bytes)} bytes of weights" for *_, f in own],
        ),
    )
    for panel, heights, said in panels:
        figure.add_bar(
            x=[at for at, _, _ in own],
            y=heights,
            yaxis=panel,
            width=0.72,
            name=f"{literal(name)} weights",
            legendgroup=literal(name),
            showlegend=panel == "y",
            marker={"color": colour},
            customdata=[
                f"{_head(layer)}<br>{what}" for (_, layer, _), what in zip(own, said, strict=True)
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )


def _add_channels(figure: go.Figure, found: Sequence[tuple[LayerRow, LayerFormats]]) -> None:
    """What is left of every layer's output channels, in front of what there was."""
    known = [
        (at, layer, f.channels) for at, (layer, f) in enumerate(found) if f.channels is not None
    ]
    said = [
        f"{_head(layer)}<br>{count(before)} channels before, {count(after)} after pruning"
        for _, layer, (before, after) in known
    ]
    for name, colour, part in (
        ("channels before pruning", BASELINE_FILL, 0),
        ("channels after pruning", MUTED, 1),
    ):
        figure.add_bar(
            x=[at for at, _, _ in known],
            y=[channels[part] for _, _, channels in known],
            yaxis="y4",
            width=0.72,
            name=name,
            marker={
                "color": colour,
                "line": {"color": BASELINE, "width": 0 if part else 1.2},
            },
            customdata=said,
            hovertemplate="%{customdata}<extra></extra>",
        )


def _stack_axes(figure: go.Figure, titles: Sequence[str]) -> None:
    """Panels of equal height, the first on top."""
    height = (1 - _GAP * (len(titles) - 1)) / len(titles)
    for at, title in enumerate(titles):
        top = 1 - at * (height + _GAP)
        axes = {"domain": [max(0.0, top - height), top], "anchor": "x"}
        given = axis(title, rangemode="tozero", nticks=5)
        figure.update_layout({f"yaxis{at + 1 if at else ''}": {**axes, **given}})


def _layer_ticks(found: Sequence[tuple[LayerRow, LayerFormats]]) -> Figure:
    if len(found) <= _NAMED:
        text = [literal(shorten(visible(layer.name), 20)) for layer, _ in found]
        shown = list(range(len(found)))
    else:
        step = -(-len(found) // 30)
        shown = list(range(0, len(found), step))
        text = [str(found[at][0].index) for at in shown]
    return {
        "tickvals": shown,
        "ticktext": text,
        "tickangle": -35 if len(found) <= _NAMED else 0,
        "range": [-0.6, len(found) - 0.4],
    }


def pruning_figure(found: PruneResult) -> Figure | None:
    """Accuracy over cost: the unpruned model and every round; None without rounds."""
    if not found.rounds:
        return None
    figure = go.Figure()
    unit, kind = literal(found.after.unit), found.after.kind
    accepted = [each for each in found.rounds if each.accepted]
    undone = [each for each in found.rounds if not each.accepted]
    figure.add_scatter(
        x=[found.before.value, *(each.cost for each in accepted)],
        y=[found.accuracy_before, *(each.accuracy for each in accepted)],
        mode="lines+markers",
        name=f"kept ({kind.value})",
        line={"color": DEPLOYED, "width": 1.6},
        marker={"color": DEPLOYED, "size": 11, "symbol": KIND_SYMBOLS[kind]},
        customdata=["the unpruned model", *(_round(each) for each in accepted)],
        hovertemplate=f"%{{customdata}}<br>%{{x:,.0f}} {unit}<br>%{{y:.2f}} %<extra></extra>",
    )
    if undone:
        figure.add_scatter(
            x=[each.cost for each in undone],
            y=[each.accuracy for each in undone],
            mode="markers",
            name="rolled back",
            marker={"color": LESS, "size": 11, "symbol": "x"},
            customdata=[_round(each) for each in undone],
            hovertemplate=f"%{{customdata}}<br>%{{x:,.0f}} {unit}<br>%{{y:.2f}} %<extra></extra>",
        )
    figure.add_vline(
        x=found.goal,
        line={"color": MUTED, "width": 1.2, "dash": "dash"},
        annotation={"text": "goal", "font": {"size": 12, "color": MUTED}},
    )
    figure.update_xaxes(**axis(f"cost of one inference, {unit} ({kind.value})"))
    figure.update_yaxes(**axis("accuracy of the float model<br>on the selection split, %"))
    return finish(figure, height=320)


def _round(found: Round) -> str:
    return (
        f"after {found.epochs} epoch{'' if found.epochs == 1 else 's'} of fine-tuning,"
        f" from {significant(found.pruned_accuracy)} %"
    )
