"""The arena as geometry: which bytes are in use when, and where two tensors lie on each other.

Time is the execution order: -1 before the first layer, then the layers, their number after
the last one. A slot is a rectangle over whole layers and bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from edgesmith.pipeline.results import ArenaSlot


@dataclass(frozen=True)
class Shared:
    """Bytes [offset, offset + bytes) that two slots both have from layer `first` to `last`."""

    slots: tuple[ArenaSlot, ArenaSlot]  # the older one first
    offset: int
    bytes: int
    first: int
    last: int


def live_bytes(slots: Sequence[ArenaSlot], layers: int) -> list[int]:
    """Bytes of the arena in use at -1, at every layer and at `layers`; shared ones count once."""
    ordered = sorted(slots, key=lambda slot: slot.offset)
    return [
        _covered([slot for slot in ordered if slot.first <= time <= slot.last])
        for time in range(-1, layers + 1)
    ]


def peak_time(slots: Sequence[ArenaSlot], layers: int) -> int:
    """When most bytes are in use; the first such time."""
    live = live_bytes(slots, layers)
    return live.index(max(live)) - 1


def _covered(ordered: Sequence[ArenaSlot]) -> int:
    total = end = 0
    for slot in ordered:
        top = slot.offset + slot.bytes
        total += max(0, top - max(end, slot.offset))
        end = max(end, top)
    return total


def shared(slots: Sequence[ArenaSlot]) -> Iterator[Shared]:
    """Every place where two slots lie on each other: one is written over the other as it dies."""
    for one, other in combinations(slots, 2):
        first, last = max(one.first, other.first), min(one.last, other.last)
        low = max(one.offset, other.offset)
        high = min(one.offset + one.bytes, other.offset + other.bytes)
        if first <= last and low < high:
            pair = (one, other) if one.first <= other.first else (other, one)
            yield Shared(pair, low, high - low, first, last)
