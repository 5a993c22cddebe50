"""View model of what layers are stored in: formats, bits, zeros, bytes, channels.

All of it is read from the integers that ship, so every figure is measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgesmith.pipeline.results import DeploymentResult, LayerFormats, LayerRow
from edgesmith.reports.numbers import Named, number
from edgesmith.reports.tables import NOTHING, Cell
from edgesmith.reports.text import byte_size, compact, count, significant, visible


@dataclass(frozen=True)
class FormatLine:
    """One operator."""

    index: int
    name: str
    op: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class FormatsView:
    """The table of formats; `pruned` says that it has the column of channels.

    Args:
        gain: what leaving zeros out of flash saved and cost on a device that does so.
    """

    rows: tuple[FormatLine, ...]
    summary: str
    pruned: bool
    gain: tuple[Named, ...]


@dataclass(frozen=True)
class WeightTotals:
    """Sums over all layers with weights.

    Args:
        bits: per weight, as stored, on average.
    """

    layers: int
    weights: int
    zeros: int
    code_bytes: int
    by_format: dict[str, int]

    @property
    def bits(self) -> float:
        return 8 * self.code_bytes / self.weights if self.weights else 0.0

    @property
    def zero_percent(self) -> float:
        return 100 * self.zeros / self.weights if self.weights else 0.0


def weighted(layers: Sequence[LayerRow]) -> list[tuple[LayerRow, LayerFormats]]:
    """The layers with weights, whose formats are known."""
    found = ((layer, layer.formats) for layer in layers)
    return [(layer, formats) for layer, formats in found if formats and formats.weight]


def totals(layers: Sequence[LayerRow]) -> WeightTotals | None:
    """Sums over the layers with weights; None where there are none."""
    found = [formats for _, formats in weighted(layers)]
    if not found:
        return None
    return WeightTotals(
        layers=len(found),
        weights=sum(each.weights for each in found),
        zeros=sum(each.zeros for each in found),
        code_bytes=sum(each.code_bytes for each in found),
        by_format=dict(Counter(str(each.weight) for each in found).most_common()),
    )


def formats_view(result: DeploymentResult) -> FormatsView | None:
    """The table of formats; None for a result that did not record them."""
    rows = [(layer, layer.formats) for layer in result.layers if layer.formats is not None]
    if not rows:
        return None
    pruned = any(formats.channels for _, formats in rows)
    largest = max(formats.code_bytes for _, formats in rows)
    return FormatsView(
        rows=tuple(_line(layer, formats, largest, pruned=pruned) for layer, formats in rows),
        summary=_summary(totals(result.layers)),
        pruned=pruned,
        gain=_gain(result),
    )


def _gain(result: DeploymentResult) -> tuple[Named, ...]:
    found = result.device.zeros if result.device is not None else None
    if found is None:
        return ()
    layers = f"in {count(found.layers)} layer{'' if found.layers == 1 else 's'}"
    return (
        Named("Flash saved by zeros", number(found.flash), layers, lead=True),
        Named(
            "More instructions",
            replace(number(found.instructions), text=compact(found.instructions.value)),
            f"per inference, {significant(found.share.value)} % more",
        ),
        Named("More arena", number(found.arena), "for expanded weights"),
    )


def _summary(found: WeightTotals | None) -> str:
    if found is None:
        return "No layer has weights."
    layers = ", ".join(
        f"{visible(name)} in {count(number)} layer{'' if number == 1 else 's'}"
        for name, number in found.by_format.items()
    )
    return (
        f"{count(found.weights)} weights, stored in {significant(found.bits)} bits each on average"
        f" and {byte_size(found.code_bytes)} together; {significant(found.zero_percent)} % are"
        f" exactly zero. Weights: {layers}."
    )


def _line(layer: LayerRow, formats: LayerFormats, largest: int, *, pruned: bool) -> FormatLine:
    cells = [
        _weight(formats, layer.weight_bits),
        Cell(visible(formats.reads), formats.reads),
        Cell(visible(formats.writes), formats.writes),
        _weights(formats),
        _zeros(formats),
        _bytes(formats, largest),
    ]
    if pruned:
        cells.append(_channels(formats.channels))
    return FormatLine(layer.index, visible(layer.name), visible(layer.op), tuple(cells))


def _weight(formats: LayerFormats, stored: int | None) -> Cell:
    if formats.weight is None:
        return Cell(NOTHING)
    scales = "one scale per output channel" if formats.per_channel else "one scale"
    title = f"stored in {stored} bits, {scales}"
    return Cell(visible(formats.weight), formats.weight, title)


def _weights(formats: LayerFormats) -> Cell:
    if formats.weight is None:
        return Cell(NOTHING)
    return Cell(count(formats.weights), str(formats.weights))


def _zeros(formats: LayerFormats) -> Cell:
    if formats.weight is None or not formats.weights:
        return Cell(NOTHING)
    share = formats.zeros / formats.weights
    title = f"{count(formats.zeros)} of {count(formats.weights)} codes are exactly zero"
    return Cell(f"{100 * share:.1f}", repr(share), title, round(share, 4))


def _bytes(formats: LayerFormats, largest: int) -> Cell:
    if formats.weight is None:
        return Cell(NOTHING)
    share = round(formats.code_bytes / largest, 4) if largest else None
    return Cell(count(formats.code_bytes), str(formats.code_bytes), share=share)


def _channels(channels: tuple[int, int] | None) -> Cell:
    if channels is None:
        return Cell(NOTHING)
    before, after = channels
    if before == after:
        return Cell(count(after), str(after), "not pruned")
    title = f"{significant(100 * (1 - after / before))} % of its output channels went"
    return Cell(f"{count(before)} → {count(after)}", str(after), title)
