"""View models of a device's tables: instructions per layer and mnemonic, and the flash map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgesmith.pipeline.results import Device, DeviceLayer, FlashPart, LayerRow
from edgesmith.reports.numbers import Number
from edgesmith.reports.tables import NOTHING, Cell
from edgesmith.reports.text import byte_size, count, exact, label, quantity, significant, visible

MNEMONICS_SHOWN = 15
SYMBOLS_SHOWN = 60

TONES = (
    "weights",
    "bias",
    "requantization",
    "table",
    "arguments",
    "kernels",
    "wiring",
    "startup",
    "runtime",
)


@dataclass(frozen=True)
class DeviceLayerLine:
    """One layer function; `cells` follow the name, operator and kernel."""

    index: int
    name: str
    op: str
    kernel: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Bar:
    """A named amount; `share` in 0..1 of the longest bar, `part` its share of all in words."""

    name: str
    amount: str
    part: str
    share: float


@dataclass(frozen=True)
class InstructionsView:
    """Instructions per layer and mnemonic; cycles are None where they were not estimated."""

    total: Number
    outside: str
    kind: str
    samples: str
    cycles_kind: str | None
    rows: tuple[DeviceLayerLine, ...]
    mnemonics: tuple[Bar, ...]
    mnemonics_said: str


@dataclass(frozen=True)
class PurposeLine:
    """Flash of one purpose, `share` in 0..1 of the image."""

    name: str
    tone: str
    share: float
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class SymbolLine:
    """A named range of flash."""

    name: str
    purpose: str
    tone: str
    cell: Cell


@dataclass(frozen=True)
class FlashMapView:
    """Where flash and static RAM go."""

    kind: str
    ram_kind: str
    purposes: tuple[PurposeLine, ...]
    symbols: tuple[SymbolLine, ...]
    symbols_said: str
    flash_sections: tuple[Bar, ...]
    ram_sections: tuple[Bar, ...]


def share_of(value: float, whole: float) -> str:
    """`8.7 %`."""
    return f"{significant(100 * value / whole, 2 if value < 0.1 * whole else 3)} %"


def tone_of(purpose: str) -> str:
    """The name of a purpose's colour, in the style sheet and in plots."""
    return next((tone for tone in (purpose, f"{purpose}s") if tone in TONES), "other")


def instructions_view(device: Device, layers: Sequence[LayerRow]) -> InstructionsView:
    """Layers in execution order, with what the deployed graph says about those of its names."""
    total = device.instructions
    operators = {layer.name: layer for layer in layers}
    inside = sum(layer.instructions for layer in device.layers)
    return InstructionsView(
        total=Number(quantity(total.value, ""), total.kind.value, exact(total.value, total.unit)),
        outside=_outside(total.value - inside, total.value) if device.layers else "",
        kind=total.kind.value,
        samples=f"n = {count(total.samples)}",
        cycles_kind=device.cycles.kind.value if device.cycles else None,
        rows=tuple(
            _layer(index, layer, operators.get(layer.name), device)
            for index, layer in enumerate(device.layers)
        ),
        mnemonics=_bars(device.mnemonics, MNEMONICS_SHOWN),
        mnemonics_said=_mnemonics_said(device.mnemonics),
    )


def _outside(rest: float, total: float) -> str:
    if rest < 0.5 or total <= 0:
        return ""
    return f"{significant(rest)} of them ({share_of(rest, total)}) outside the layers"


def _layer(
    index: int, layer: DeviceLayer, operator: LayerRow | None, device: Device
) -> DeviceLayerLine:
    return DeviceLayerLine(
        index=index,
        name=visible(layer.name),
        op=visible(layer.op),
        kernel=visible(layer.kernel),
        cells=(
            _bits(operator),
            _count(layer.macs),
            _amount(layer.instructions, [one.instructions for one in device.layers]),
            _per_mac(layer.instructions, layer.macs),
            *((_float(layer.cycles), _per_mac(layer.cycles, layer.macs)) if device.cycles else ()),
            _count(layer.scratch_bytes),
        ),
    )


def _bits(operator: LayerRow | None) -> Cell:
    if operator is None:
        return Cell(NOTHING)
    if operator.weight_bits is None:
        return Cell(f"{operator.activation_bits}", str(operator.activation_bits), "activation bits")
    return Cell(
        f"{operator.weight_bits} × {operator.activation_bits}",
        str(100 * operator.weight_bits + operator.activation_bits),
        "bits of a weight × bits of an activation",
    )


def _count(value: int) -> Cell:
    return Cell(count(value), str(value))


def _float(value: float | None) -> Cell:
    if value is None:
        return Cell(NOTHING)
    return Cell(f"{value:,.0f}", repr(value), exact(value, ""))


def _amount(value: float, column: Sequence[float]) -> Cell:
    """A cell with a bar against the column's largest value."""
    most, total = max(column), sum(column)
    if most <= 0:
        return Cell(f"{value:,.0f}", repr(value))
    title = f"{share_of(value, total)} of all layers"
    return Cell(f"{value:,.0f}", repr(value), title, round(max(value, 0) / most, 4))


def _per_mac(value: float | None, macs: int) -> Cell:
    if value is None or macs <= 0:
        return Cell(NOTHING)
    return Cell(significant(value / macs), repr(value / macs))


def _mnemonics_said(found: Mapping[str, int]) -> str:
    total = sum(found.values())
    if total <= 0:
        return ""
    shown = sorted(found.values(), reverse=True)[:MNEMONICS_SHOWN]
    if len(shown) == len(found):
        return f"all {count(len(found))} that were executed"
    return (
        f"the {count(len(shown))} most executed of {count(len(found))}, "
        f"{share_of(sum(shown), total)} of all instructions"
    )


def _bars(found: Mapping[str, int], limit: int | None = None, unit: str = "") -> tuple[Bar, ...]:
    """Amounts, largest first; those of bytes in bytes."""
    ordered = sorted(found.items(), key=lambda item: -item[1])[:limit]
    total, most = sum(found.values()), max(found.values(), default=0)
    return tuple(
        Bar(
            visible(name),
            exact(value, unit),
            share_of(value, total) if total > 0 else "",
            round(value / most, 4) if most > 0 else 0.0,
        )
        for name, value in ordered
    )


def flash_map_view(device: Device) -> FlashMapView:
    """Flash by purpose, its largest symbols, and the sections of the image."""
    parts = sorted(device.flash_parts, key=lambda part: -part.bytes)
    whole = sum(part.bytes for part in parts)
    symbols = sorted(
        ((size, name, part) for part in parts for name, size in part.symbols),
        key=lambda found: (-found[0], found[1]),
    )
    shown = symbols[:SYMBOLS_SHOWN]
    return FlashMapView(
        kind=device.flash.kind.value,
        ram_kind=device.arena.kind.value,
        purposes=tuple(_purpose(part, whole) for part in parts if part.bytes > 0),
        symbols=tuple(
            SymbolLine(
                visible(name),
                label(part.purpose),
                tone_of(part.purpose),
                Cell(
                    count(size),
                    str(size),
                    f"{share_of(size, whole)} of the image" if whole else "",
                    round(size / max(shown[0][0], 1), 4),
                ),
            )
            for size, name, part in shown
        ),
        symbols_said=f"The {count(len(shown))} largest symbols",
        flash_sections=_bars(device.flash_sections, unit="bytes"),
        ram_sections=_bars(device.ram_sections, unit="bytes"),
    )


def _purpose(part: FlashPart, whole: int) -> PurposeLine:
    largest = max(part.symbols, key=lambda symbol: symbol[1], default=None)
    return PurposeLine(
        name=label(part.purpose),
        tone=tone_of(part.purpose),
        share=round(part.bytes / whole, 5),
        cells=(
            Cell(count(part.bytes), str(part.bytes)),
            Cell(share_of(part.bytes, whole), str(part.bytes)),
            Cell(NOTHING)
            if largest is None
            else Cell(f"{visible(largest[0])} ({byte_size(largest[1])})", str(largest[1])),
        ),
    )
