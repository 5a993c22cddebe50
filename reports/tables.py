"""View models of the long tables: layers with their drift, and classes with their recall."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgesmith.pipeline.results import Confusion, DeploymentResult, DriftEdge, LayerRow
from edgesmith.reports.text import byte_size, count, edge_name, significant, visible

Pairs = tuple[tuple[str, str], ...]
NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A table cell: what it shows and what it sorts by (empty: always last)."""

    text: str
    key: str = ""
    title: str = ""
    share: float | None = None


@dataclass(frozen=True)
class LayerLine:
    """One operator. `drift` holds three cells (max LSB, differing, SQNR) per edge."""

    index: int
    name: str
    op: str
    worst: bool
    cells: tuple[Cell, ...]
    drift: tuple[tuple[Cell, Cell, Cell], ...]


@dataclass(frozen=True)
class LayersView:
    """The layer table. `edges` is empty where no drift was found out."""

    rows: tuple[LayerLine, ...]
    edges: tuple[str, ...]
    worst: tuple[str, ...]
    totals: str
    samples: str


@dataclass(frozen=True)
class ClassLine:
    """One class: samples, recall of both models, the change, and the commonest mistake."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ClassesView:
    """The confusion matrix as text: one line per true class."""

    rows: tuple[ClassLine, ...]
    samples: str
    summary: str


def pairs(found: Mapping[str, str]) -> Pairs:
    """A mapping as sorted, printable pairs."""
    return tuple((visible(key), visible(found[key])) for key in sorted(found))


def edges_of(layers: Sequence[LayerRow]) -> tuple[str, ...]:
    """The edges that drift was followed over, in the order in which layers name them."""
    return tuple(dict.fromkeys(drift.edge for layer in layers for drift in layer.drift))


def layers_view(result: DeploymentResult) -> LayersView:
    """The layer table of a result; the worst layers are those that the result names."""
    layers, edges = result.layers, edges_of(result.layers)
    macs = [layer.macs for layer in layers]
    weights = [layer.weight_bytes for layer in layers]
    totals = (
        f"{count(len(layers))} operators, {count(sum(macs))} MACs, "
        f"{byte_size(sum(weights))} of weights"
    )
    samples = result.drift_samples
    return LayersView(
        rows=tuple(_layer(layer, edges, result.worst_layers, macs, weights) for layer in layers),
        edges=tuple(edge_name(edge) for edge in edges),
        worst=tuple(visible(name) for name in result.worst_layers),
        totals=totals,
        samples=f"n = {count(samples)}" if samples is not None else "sample count not recorded",
    )


def _layer(
    layer: LayerRow,
    edges: Sequence[str],
    worst: Sequence[str],
    macs: Sequence[int],
    weights: Sequence[int],
) -> LayerLine:
    found = {drift.edge: drift for drift in layer.drift}
    shape = " × ".join(map(str, layer.output_shape)) or "scalar"
    cells = (
        Cell(shape, str(math.prod(layer.output_shape))),
        _bits(layer.weight_bits),
        _bits(layer.activation_bits),
        _amount(layer.macs, macs),
        _amount(layer.weight_bytes, weights),
    )
    return LayerLine(
        index=layer.index,
        name=visible(layer.name),
        op=visible(layer.op),
        worst=layer.name in worst,
        cells=cells,
        drift=tuple(_drift(found.get(edge)) for edge in edges),
    )


def _bits(bits: int | None) -> Cell:
    return Cell(NOTHING) if bits is None else Cell(str(bits), str(bits))


def _amount(value: int, column: Sequence[int]) -> Cell:
    """A cell with a bar against the column's largest value."""
    if value == 0:
        return Cell("0", "0")
    title = f"{100 * value / sum(column):.1f} % of the model"
    return Cell(count(value), str(value), title, round(value / max(column), 4))


def _drift(found: DriftEdge | None) -> tuple[Cell, Cell, Cell]:
    if found is None:
        return Cell(NOTHING), Cell(NOTHING), Cell(NOTHING)
    return (
        Cell(
            significant(found.max_lsb),
            repr(found.max_lsb),
            f"mean {significant(found.mean_lsb)} LSB",
        ),
        Cell(_percent(found.differing), repr(found.differing)),
        _sqnr(found.sqnr_db),
    )


def _percent(fraction: float) -> str:
    return "0" if fraction == 0 else f"{significant(100 * fraction)}"


def _sqnr(decibel: float | None) -> Cell:
    if decibel is None or decibel == math.inf:
        return Cell("same", "Infinity", "no difference")
    return Cell(f"{decibel:.1f}".replace("-", "−"), repr(decibel))


def classes_view(confusion: Confusion) -> ClassesView:
    """Recall per true class, float and deployed, from the confusion counts."""
    rows = tuple(
        _class(name, index, before, after, confusion.labels)
        for index, (name, before, after) in enumerate(
            zip(confusion.labels, confusion.float_counts, confusion.deployed_counts, strict=True)
        )
    )
    total = sum(map(sum, confusion.deployed_counts))
    right = sum(row[index] for index, row in enumerate(confusion.deployed_counts))
    summary = f"{count(right)} of {count(total)} test samples right, {count(total - right)} wrong"
    return ClassesView(rows, f"n = {count(total)}", summary)


def _class(
    name: str, index: int, before: Sequence[int], after: Sequence[int], labels: Sequence[str]
) -> ClassLine:
    old, new = _recall(index, before), _recall(index, after)
    mistakes = {other: n for other, n in enumerate(after) if other != index and n}
    commonest = max(mistakes, key=lambda other: mistakes[other], default=None)
    return ClassLine(
        visible(name),
        (
            Cell(count(sum(after)), str(sum(after))),
            _recall_cell(old),
            _recall_cell(new),
            _change(old, new),
            Cell(NOTHING)
            if commonest is None
            else Cell(
                f"{visible(labels[commonest])} ({count(mistakes[commonest])})",
                str(mistakes[commonest]),
            ),
        ),
    )


def _recall(index: int, row: Sequence[int]) -> float | None:
    total = sum(row)
    return 100 * row[index] / total if total else None


def _recall_cell(recall: float | None) -> Cell:
    return Cell(NOTHING) if recall is None else Cell(f"{recall:.1f}", repr(recall))


def _change(old: float | None, new: float | None) -> Cell:
    if old is None or new is None:
        return Cell(NOTHING)
    change = new - old
    if change == 0:
        return Cell("0", "0.0")
    return Cell(f"{'+' if change > 0 else '−'}{abs(change):.1f}", repr(change))
