"""View model of a device: does it fit, what does one inference cost, where does memory go.

Bytes of the linked image, executed instructions and modelled cycles are of different
kinds; each figure keeps its own and none is combined with another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgesmith.pipeline.results import ArenaSlot, Device, LayerRow
from edgesmith.pipeline.values import Kind, Measurement
from edgesmith.reports.arena import live_bytes, peak_time
from edgesmith.reports.device_tables import (
    FlashMapView,
    InstructionsView,
    flash_map_view,
    instructions_view,
    share_of,
    tone_of,
)
from edgesmith.reports.numbers import Named, Number, number
from edgesmith.reports.tables import Cell, Pairs
from edgesmith.reports.text import (
    byte_size,
    count,
    exact,
    label,
    quantity,
    shorten,
    significant,
    visible,
)

SLOTS_SHOWN = 200
PLANS = {"speed": "speed first", "memory": "memory first", "bands": "memory first, in bands"}


@dataclass(frozen=True)
class Part:
    """One stretch of a bar, `share` in 0..1 of the bar's length; `tone` names its colour."""

    name: str
    number: Number
    share: float
    tone: str


@dataclass(frozen=True)
class Meter:
    """A memory against its limit. `limit_at` in 0..1 marks a limit inside the bar.

    `mixed` says that the parts are not all of one kind with the whole.
    """

    name: str
    number: Number
    limit: str
    room: str
    over: bool
    limit_at: float | None
    parts: tuple[Part, ...]
    mixed: bool


@dataclass(frozen=True)
class SlotLine:
    """One slot of the arena."""

    name: str
    role: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ArenaView:
    """The plan of the arena. `rows` are the largest slots."""

    number: Number
    plan: str
    bound: str
    optimal: bool
    peak: str
    rows: tuple[SlotLine, ...]
    shown: str


@dataclass(frozen=True)
class DeviceView:
    """Everything that a report says about a device."""

    core: str
    where: str
    flash: Meter
    ram: Meter
    cost: tuple[Named, ...]
    facts: Pairs
    arena: ArenaView
    instructions: InstructionsView
    flash_map: FlashMapView
    files: Pairs


def device_view(device: Device, layers: Sequence[LayerRow]) -> DeviceView:
    """The view model of a device.

    Args:
        layers: operators of the deployed graph; a device layer of the same name joins them.
    """
    return DeviceView(
        core=visible(device.core),
        where=_where(device),
        flash=_flash(device),
        ram=_ram(device),
        cost=tuple(_cost(device)),
        facts=_facts(device),
        arena=_arena(device),
        instructions=instructions_view(device, layers),
        flash_map=flash_map_view(device),
        files=tuple((_relative(path), visible(what)) for path, what in device.sources.items()),
    )


def device_glance(device: Device) -> tuple[Named, ...]:
    """Flash, RAM, and the time of one inference, or its instructions where no clock is known."""
    last = list(_cost(device))
    timed = next((one for one in last if one.name == "Time"), last[0])
    return (
        Named("Flash", number(device.flash), _of_limit(device.flash, device.flash_limit)),
        Named("RAM", number(device.ram), _of_limit(device.ram, device.ram_limit)),
        timed,
    )


def plain(found: Measurement) -> Number:
    """A figure without its unit, for places whose title says it."""
    return replace(number(found), text=quantity(found.value, ""))


def of_kind(value: float, unit: str, kind: Kind) -> Number:
    """A part of a figure, of that figure's kind."""
    return Number(quantity(value, unit), kind.value, exact(value, unit))


def _where(device: Device) -> str:
    board = f" on {visible(device.board)}" if device.board else ""
    return f"{visible(device.core)}{board}{_clock(device)}"


def _clock(device: Device) -> str:
    return f" at {significant(device.clock_hz / 1e6)} MHz" if device.clock_hz else ""


def _of_limit(found: Measurement, limit: int | None) -> str:
    if not limit:
        return ""
    return f"{share_of(found.value, limit)} of {byte_size(limit)}"


def _cost(device: Device) -> list[Named]:
    found = [Named("Instructions", plain(device.instructions), "executed per inference")]
    if device.cycles:
        found.append(Named("Cycles", plain(device.cycles), "per inference"))
    if device.time:
        found.append(Named("Time", number(device.time), f"per inference{_clock(device)}"))
    if device.cycles_per_mac:
        found.append(Named("Cycles per MAC", plain(device.cycles_per_mac), "whole inference"))
    return found


def _facts(device: Device) -> Pairs:
    clock = f"{significant(device.clock_hz / 1e6)} MHz" if device.clock_hz else "not stated"
    return (
        ("Core", visible(device.core)),
        ("Board", visible(device.board) if device.board else "none chosen"),
        ("Clock", clock),
        ("Emulator", visible(device.emulator)),
        ("Timing", visible(device.timing)),
    )


def _flash(device: Device) -> Meter:
    parts = [
        (label(part.purpose), part.bytes, device.flash.kind, tone_of(part.purpose))
        for part in sorted(device.flash_parts, key=lambda part: -part.bytes)
    ]
    return _meter("Flash", device.flash, device.flash_limit, parts)


def _ram(device: Device) -> Meter:
    arena, stack = device.arena, device.stack
    parts = [
        ("Arena", arena.value, arena.kind, "arena"),
        ("Stack", stack.value, stack.kind, "stack"),
    ]
    # Both are of the linked image, so that their difference is of one kind.
    rest = sum(device.ram_sections.values()) - arena.value
    if rest > 0:
        parts.append(("Other", rest, arena.kind, "other"))
    return _meter("RAM", device.ram, device.ram_limit, parts)


def _meter(
    name: str,
    total: Measurement,
    limit: int | None,
    parts: Sequence[tuple[str, float, Kind, str]],
) -> Meter:
    length = max(total.value, limit or 0, sum(value for _, value, _, _ in parts), 1)
    over = limit is not None and total.value > limit
    return Meter(
        name=name,
        number=number(total),
        limit=f"of {byte_size(limit)}" if limit is not None else "no limit known",
        room=_room(total, limit),
        over=over,
        limit_at=round(limit / length, 4) if over and limit is not None else None,
        parts=tuple(
            Part(title, of_kind(value, "bytes", kind), round(value / length, 5), tone)
            for title, value, kind, tone in parts
            if value > 0
        ),
        mixed=any(kind is not total.kind for _, _, kind, _ in parts),
    )


def _room(total: Measurement, limit: int | None) -> str:
    if limit is None:
        return exact(total.value, "bytes")
    left = limit - total.value
    room = f"{byte_size(left)} free" if left >= 0 else f"{byte_size(-left)} too much"
    used = f", {share_of(total.value, limit)} used" if limit else ""
    return f"{exact(total.value, '')} of {count(limit)} bytes{used}, {room}"


def _arena(device: Device) -> ArenaView:
    largest = sorted(device.slots, key=lambda slot: (-slot.bytes, slot.first, slot.offset))
    shown = largest[:SLOTS_SHOWN]
    some = f"the {count(len(shown))} largest of " if len(shown) < len(largest) else ""
    return ArenaView(
        number=number(device.arena),
        plan=PLANS.get(device.plan, visible(device.plan)),
        bound=_bound(device),
        optimal=device.arena_optimal,
        peak=_peak(device),
        rows=tuple(_slot(slot, device) for slot in shown),
        shown=f"{some}{count(len(largest))} slots",
    )


def _bound(device: Device) -> str:
    bound, found = device.arena_bound, device.arena.value
    least = f"no plan of these layers needs less than {count(bound)} bytes"
    if device.arena_optimal or found <= bound or bound <= 0:
        return least
    return f"{least}; this one is {significant(100 * (found / bound - 1))} % above"


def _peak(device: Device) -> str:
    """At which layer most bytes are in use; the first one of several."""
    if not device.slots:
        return ""
    layers = len(device.layers)
    time = peak_time(device.slots, layers)
    most = live_bytes(device.slots, layers)[time + 1]
    return f"Most bytes are in use {when(time, device)}: {count(most)}."


def when(time: int, device: Device) -> str:
    """A point in execution order, in words."""
    if time < 0:
        return "before the first layer"
    if time >= len(device.layers):
        return "after the last layer"
    return f"at layer {time}, {shorten(visible(device.layers[time].name), 60)}"


def _slot(slot: ArenaSlot, device: Device) -> SlotLine:
    total = device.arena.value
    share = min(1.0, round(slot.bytes / total, 4)) if total > 0 else None
    title = f"{share_of(slot.bytes, total)} of the arena" if total > 0 else ""
    return SlotLine(
        name=visible(slot.name),
        role=visible(slot.role),
        cells=(
            Cell(count(slot.bytes), str(slot.bytes), title, share),
            Cell(count(slot.offset), str(slot.offset)),
            Cell(count(slot.offset + slot.bytes), str(slot.offset + slot.bytes)),
            Cell(_moment(slot.first, device), str(slot.first), when(slot.first, device)),
            Cell(_moment(slot.last, device), str(slot.last), when(slot.last, device)),
        ),
    )


def _moment(time: int, device: Device) -> str:
    return "start" if time < 0 else "end" if time >= len(device.layers) else str(time)


def _relative(path: str) -> str:
    """A file's name as a reader of the library finds it: nothing of the machine that made it."""
    flat = path.replace("\\", "/")
    absolute = flat.startswith("/") or flat[1:3] == ":/"
    return visible(flat.rsplit("/", 1)[-1] if absolute else path)
