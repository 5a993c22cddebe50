"""The plots of a device: the arena over time, instructions per layer, and flash as areas."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import plotly.graph_objects as go

from edgesmith.pipeline.results import ArenaSlot, Device, DeviceLayer, FlashPart
from edgesmith.reports.arena import Shared, peak_time, shared
from edgesmith.reports.device_tables import share_of, tone_of
from edgesmith.reports.plotstyle import (
    GRID,
    INK,
    LESS,
    MUTED,
    ROLES,
    SERIES,
    TONES,
    Figure,
    axis,
    finish,
    literal,
)
from edgesmith.reports.text import count, label, shorten, significant, visible

_NEAR = 1.5  # a RAM limit of up to so many arenas is drawn
_LETTERS = 150  # of the smallest size, beside each other over the whole plot
_CLEAR = "rgba(0,0,0,0)"


def device_figures(device: Device) -> dict[str, Figure | None]:
    """Plot id -> figure; None where the device has nothing of it."""
    return {
        "plot-arena": arena_figure(device),
        "plot-instructions": instructions_figure(device),
        "plot-flash": flash_figure(device.flash_parts),
    }


def arena_figure(device: Device) -> Figure | None:
    """Every slot as a rectangle over execution order and address; None without slots."""
    if not device.slots:
        return None
    figure = go.Figure()
    places = list(shared(device.slots))
    covered = {id(place.slots[0]) for place in places}
    roles = dict.fromkeys([*ROLES, *(slot.role for slot in device.slots)])
    for role in roles:
        slots = [slot for slot in device.slots if slot.role == role]
        if slots:
            _add_slots(figure, role, slots, covered, device.layers)
    _add_shared(figure, places, device.layers)
    layers, arena = len(device.layers), device.arena.value
    peak = peak_time(device.slots, layers)
    # The peak's own mark has the other side.
    side = "left" if peak > layers / 2 else "right"
    _add_line(figure, arena, f"arena, {arena:,.0f} bytes", INK, side)
    figure.add_annotation(
        x=peak, y=arena, yanchor="bottom", showarrow=False, text="peak ▾", font={"size": 12}
    )
    highest = max(slot.offset + slot.bytes for slot in device.slots)
    limit = device.ram_limit
    if limit is not None and limit <= _NEAR * max(highest, arena):
        _add_line(figure, limit, f"all RAM of the device, {limit:,} bytes", LESS, side)
    figure.update_xaxes(
        **axis("layer, in execution order", showgrid=False, range=[-1.6, layers + 0.6]),
        **_moments(layers),
    )
    figure.update_yaxes(**axis("address in the arena, bytes", rangemode="tozero", tickformat=",d"))
    figure.update_layout(barmode="overlay", uniformtext={"minsize": 10, "mode": "hide"})
    return finish(figure, height=460)


def _moments(layers: int) -> Figure:
    """Ticks at the start, at some layers and at the end, none too near to another."""
    step = _step(layers)
    inner = range(0 if step == 1 else step, layers - step // 2, step)
    return {
        "tickvals": [-1, *inner, layers],
        "ticktext": ["start", *map(str, inner), "end"],
        "tickangle": 0,
    }


def _step(layers: int) -> int:
    return next((step for step in (1, 2, 5, 10, 20, 50, 100) if layers <= 12 * step), 500)


def _add_slots(
    figure: go.Figure,
    role: str,
    slots: Sequence[ArenaSlot],
    covered: Container[int],
    layers: Sequence[DeviceLayer],
) -> None:
    """Slots of one role; those that are written over (by `id`) leave their place's label free."""
    line, (fill, _) = ROLES.get(role, (MUTED, (_CLEAR, "")))
    figure.add_bar(
        x=[(slot.first + slot.last) / 2 for slot in slots],
        width=[slot.last - slot.first + 0.94 for slot in slots],
        base=[slot.offset for slot in slots],
        y=[slot.bytes for slot in slots],
        name=literal(label(role)),
        marker={"color": fill, "line": {"color": line, "width": _thin(layers, 1.2)}},
        text=["" if id(slot) in covered else _short(slot, len(layers)) for slot in slots],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"size": 10, "color": INK},
        customdata=[_said(slot, layers) for slot in slots],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _thin(layers: Sequence[DeviceLayer], size: float) -> float:
    """A width in pixels, less where there is little room for each layer."""
    return size if len(layers) <= 60 else size / 2


def _short(slot: ArenaSlot, layers: int) -> str:
    """As much of a name as its rectangle has room for on a screen; empty below a few letters."""
    room = int((slot.last - slot.first + 1) * _LETTERS / (layers + 2))
    return literal(shorten(visible(slot.name), min(room, 32))) if room >= 8 else ""


def _said(slot: ArenaSlot, layers: Sequence[DeviceLayer]) -> str:
    top = slot.offset + slot.bytes
    return (
        f"<b>{literal(shorten(visible(slot.name), 60))}</b><br>{literal(slot.role)}, "
        f"{count(slot.bytes)} bytes<br>{count(slot.offset)} up to {count(top)}<br>"
        f"{_span(slot.first, slot.last, layers)}"
    )


def _span(first: int, last: int, layers: Sequence[DeviceLayer]) -> str:
    if first == last:
        return f"only {_moment(first, layers)}"
    return f"from {_moment(first, layers)}<br>to {_moment(last, layers)}"


def _moment(time: int, layers: Sequence[DeviceLayer]) -> str:
    if time < 0:
        return "the start"
    if time >= len(layers):
        return "the end"
    return f"{time} {literal(shorten(visible(layers[time].name), 48))}"


def _add_shared(figure: go.Figure, places: Sequence[Shared], layers: Sequence[DeviceLayer]) -> None:
    """Hatching where two slots lie on each other."""
    if not places:
        return
    figure.add_bar(
        x=[(place.first + place.last) / 2 for place in places],
        width=[place.last - place.first + 0.94 for place in places],
        base=[place.offset for place in places],
        y=[place.bytes for place in places],
        name="Shared: written over a dying tensor",
        marker={
            "color": _CLEAR,
            "line": {"width": 0},
            "pattern": {
                "shape": "/",
                "fgcolor": MUTED,
                "bgcolor": _CLEAR,
                "size": 8,
                "solidity": 0.12,
            },
        },
        customdata=[
            f"<b>{_shortened(place.slots[1])}</b> over <b>{_shortened(place.slots[0])}</b>"
            f"<br>share {count(place.bytes)} bytes<br>{_span(place.first, place.last, layers)}"
            for place in places
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _shortened(slot: ArenaSlot) -> str:
    return literal(shorten(visible(slot.name), 40))


def _add_line(figure: go.Figure, at: float, text: str, colour: str, side: str) -> None:
    figure.add_hline(
        y=at,
        line={"color": colour, "width": 1.5, "dash": "dash"},
        annotation={
            "text": text,
            "font": {"size": 12, "color": colour},
            "xanchor": side,
            "yanchor": "bottom",
            "showarrow": False,
        },
        annotation_position=f"top {side}",
    )


def instructions_figure(device: Device) -> Figure | None:
    """Instructions of every layer, and per MAC below; None without layers."""
    layers = device.layers
    if not layers:
        return None
    figure = go.Figure()
    operators = list(dict.fromkeys(layer.op for layer in layers))
    colours = _operator_colours(layers)
    for operator in operators:
        found = [(index, one) for index, one in enumerate(layers) if one.op == operator]
        _add_operator(figure, operator, found, colours.get(operator, MUTED), device)
    figure.update_layout(
        barmode="overlay",
        yaxis={"domain": [0.44, 1], **axis("instructions", rangemode="tozero")},
        yaxis2={
            "domain": [0, 0.34],
            "anchor": "x",
            **axis("per MAC", rangemode="tozero"),
        },
    )
    figure.update_xaxes(
        anchor="y2",
        **axis("layer, in execution order", showgrid=False, range=[-0.7, len(layers) - 0.3]),
        tickvals=list(range(0, len(layers), _step(len(layers)))),
        tickangle=0,
    )
    return finish(figure, height=420)


def _operator_colours(layers: Sequence[DeviceLayer]) -> Mapping[str, str]:
    """A colour for each of the operators that execute most; the others are muted."""
    totals: dict[str, float] = {}
    for layer in layers:
        totals[layer.op] = totals.get(layer.op, 0.0) + layer.instructions
    ranked = sorted(totals, key=lambda op: -totals[op])
    return dict(zip(ranked, SERIES[:-1], strict=False))


def _add_operator(
    figure: go.Figure,
    operator: str,
    found: Sequence[tuple[int, DeviceLayer]],
    colour: str,
    device: Device,
) -> None:
    total, kind = device.instructions.value, device.instructions.kind.value
    figure.add_bar(
        x=[index for index, _ in found],
        y=[layer.instructions for _, layer in found],
        width=0.78,
        name=literal(operator),
        legendgroup=literal(operator),
        marker={"color": colour},
        customdata=[
            f"<b>{index} {literal(shorten(visible(layer.name), 60))}</b><br>"
            f"{literal(layer.kernel)}<br>{layer.instructions:,.0f} instructions, {kind}"
            + (f", {share_of(layer.instructions, total)}" if total > 0 else "")
            for index, layer in found
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )
    counted = [(index, layer) for index, layer in found if layer.macs > 0]
    figure.add_scatter(
        x=[index for index, _ in counted],
        y=[layer.instructions / layer.macs for _, layer in counted],
        yaxis="y2",
        mode="markers",
        marker={"color": colour, "size": _thin(device.layers, 8), "symbol": "diamond"},
        legendgroup=literal(operator),
        showlegend=False,
        customdata=[
            f"<b>{index} {literal(shorten(visible(layer.name), 60))}</b><br>"
            f"{significant(layer.instructions / layer.macs)} instructions per MAC"
            for index, layer in counted
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )


def flash_figure(parts: Sequence[FlashPart]) -> Figure | None:
    """Purposes of flash as areas, their largest symbols inside; None where there are none."""
    whole = sum(part.bytes for part in parts)
    if whole <= 0:
        return None
    nodes = [node for number, part in enumerate(parts) for node in _nodes(number, part, whole)]
    ids, parents, labels, values, colours, said = zip(*nodes, strict=True)
    figure = go.Figure()
    figure.add_treemap(
        ids=ids,
        parents=parents,
        labels=labels,
        values=values,
        branchvalues="total",
        sort=True,
        marker={"colors": colours, "line": {"width": 1.5, "color": GRID}, "pad": _PAD},
        root={"color": _CLEAR},
        tiling={"pad": 2, "squarifyratio": 1.6},
        pathbar={"visible": False},
        text=[f"{value:,} B" for value in values],
        texttemplate="%{label}<br>%{text}",
        textfont={"size": 12, "color": INK},
        customdata=said,
        hovertemplate="%{customdata}<extra></extra>",
    )
    figure.update_layout(uniformtext={"minsize": 10, "mode": "hide"})
    found = finish(figure, height=380, showlegend=False)
    found["layout"]["margin"].update(l=0, r=0)
    return found


_PAD = {"t": 20, "l": 2, "r": 2, "b": 2}
_Node = tuple[str, str, str, int, str, str]


def _nodes(number: int, part: FlashPart, whole: int) -> list[_Node]:
    """A purpose and what is in it: its symbols as far as their bytes go, and the rest."""
    if part.bytes <= 0:
        return []
    colour, root = TONES[tone_of(part.purpose)], str(number)
    title = literal(label(part.purpose))
    said = f"<b>{title}</b><br>{count(part.bytes)} bytes, {share_of(part.bytes, whole)} of flash"
    nodes: list[_Node] = [(root, "", title, part.bytes, colour, said)]
    left = part.bytes
    for index, (name, size) in enumerate(part.symbols):
        if 0 < size <= left:  # aliases may say more than there is
            shown = literal(shorten(visible(name), 40))
            inside = f"<b>{shown}</b><br>{title}, {count(size)} bytes"
            nodes.append((f"{root}/{index}", root, shown, size, colour, inside))
            left -= size
    if len(nodes) > 1 and left > 0:
        rest = f"the rest of {title.lower()}, {count(left)} bytes"
        nodes.append((f"{root}/rest", root, "rest", left, colour, rest))
    return nodes
