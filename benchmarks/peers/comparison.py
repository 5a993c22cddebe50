"""One network here, under BakeNN and under TFLite Micro: rows against goals, and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.table import Table
from rows import Row

from peers.bakenn import BakeNN
from peers.figures import MICRO_SHARE, Network
from peers.ours import Build


@dataclass(frozen=True, eq=False)
class Comparison:
    """What one run found.

    Args:
        speed, memory: ours with the speed-first and the memory-first plan.
        differing, memory_differing: bytes of their outputs that differ from TFLite Micro's,
            over `samples` and `memory_samples` inputs; `bakenn_differing` is BakeNN's, before
            the softmax, over `bakenn_samples`.
    """

    network: Network
    speed: Build
    differing: int
    samples: int
    memory: Build
    memory_differing: int
    memory_samples: int
    bakenn: BakeNN
    bakenn_differing: int
    bakenn_samples: int


def rows(found: Comparison) -> Iterator[Row]:
    """Every figure of a network."""
    for group in (_exactness, _instructions, _memory, _flash, _cycles, _peer):
        yield from group(found)


def _row(found: Comparison, what: str, value: float, unit: str, goal: float | None = None) -> Row:
    return Row(f"{found.network.title}: {what}", value, unit, "simulated", goal)


def _exactness(found: Comparison) -> Iterator[Row]:
    what = "bytes that differ from TFLite Micro, {} inputs".format
    yield _row(found, what(found.samples), found.differing, "bytes", 0)
    what = "memory-first plan, bytes that differ, {} inputs".format
    yield _row(found, what(found.memory_samples), found.memory_differing, "bytes", 0)


def _instructions(found: Comparison) -> Iterator[Row]:
    goals, ours = found.network, found.speed.instructions
    yield _row(found, "executed instructions", ours, "instructions", goals.instructions)
    slower = found.memory.instructions
    yield _row(found, "executed instructions, memory-first plan", slower, "instructions")
    share = ours / found.bakenn.instructions
    yield _row(found, "instructions over BakeNN's in this run", share, "x", 1)
    share = ours / goals.micro.instructions
    what = "instructions over TFLite Micro's, reference figure"
    yield _row(found, what, share, "x", MICRO_SHARE)


def _memory(found: Comparison) -> Iterator[Row]:
    goals, ours, small = found.network, found.speed, found.memory
    yield _row(found, "arena, speed-first plan", ours.arena_bytes, "bytes", goals.arena_bytes)
    limit = goals.small_arena_bytes
    yield _row(found, "arena, memory-first plan", small.arena_bytes, "bytes", limit)
    what = "RAM over BakeNN's in this run"
    yield _row(found, what, ours.ram_bytes / found.bakenn.ram_bytes, "x", 1)
    what = "RAM over TFLite Micro's, reference figure"
    yield _row(found, what, ours.ram_bytes / goals.micro.ram_bytes, "x", 1)
    yield _row(found, "stack", ours.stack_bytes, "bytes")


def _flash(found: Comparison) -> Iterator[Row]:
    goals, ours, small = found.network, found.speed, found.memory
    what = "flash beyond parameters"
    yield _row(found, what, ours.overhead_bytes, "bytes", goals.overhead_bytes)
    yield _row(found, f"{what}, memory-first plan", small.overhead_bytes, "bytes")
    yield _row(found, "whole flash", ours.flash_bytes, "bytes")
    share = ours.flash_bytes / found.bakenn.flash_bytes
    yield _row(found, "flash over BakeNN's in this run", share, "x", 1)
    share = ours.flash_bytes / goals.micro.flash_bytes
    yield _row(found, "flash over TFLite Micro's, reference figure", share, "x", 1)


def _cycles(found: Comparison) -> Iterator[Row]:
    """Estimates stand beside what others measured on boards; none is held against the other."""
    title, span = found.network.title, found.speed.cycles_per_mac
    published = found.network.published_cycles_per_mac
    for what, value in (
        (f"cycles per MAC (best published, on a board: {published})", span.nominal),
        ("cycles per MAC, every fast case", span.low),
        ("cycles per MAC, every slow case", span.high),
    ):
        yield Row(f"{title}: {what}", value, "", "estimated")


def _peer(found: Comparison) -> Iterator[Row]:
    peer = found.bakenn
    differing = f"BakeNN: bytes that differ before a last softmax, {found.bakenn_samples} inputs"
    for what, value, unit in (
        ("BakeNN: executed instructions", peer.instructions, "instructions"),
        (differing, found.bakenn_differing, "bytes"),
        ("BakeNN: whole flash", peer.flash_bytes, "bytes"),
        ("BakeNN: static RAM", peer.ram_bytes, "bytes"),
        ("BakeNN: stack", peer.stack_bytes, "bytes"),
        ("BakeNN: layers", peer.layers, ""),
        ("BakeNN: of them in CMSIS-NN", peer.vendor_layers, ""),
        ("BakeNN: level of the faster build, -O2 or -O3", peer.level, ""),
    ):
        yield _row(found, what, value, unit)


_LINES: tuple[tuple[str, Callable[[Comparison], tuple[float, ...]]], ...] = (
    (
        "instructions",
        lambda found: (
            found.speed.instructions,
            found.memory.instructions,
            found.bakenn.instructions,
            found.network.micro.instructions,
        ),
    ),
    (
        "flash, bytes",
        lambda found: (
            found.speed.flash_bytes,
            found.memory.flash_bytes,
            found.bakenn.flash_bytes,
            found.network.micro.flash_bytes,
        ),
    ),
    (
        "RAM, bytes",
        lambda found: (
            found.speed.ram_bytes,
            found.memory.ram_bytes,
            found.bakenn.ram_bytes,
            found.network.micro.ram_bytes,
        ),
    ),
)


def side_by_side(comparisons: Iterable[Comparison]) -> Table:
    """Instructions, flash and static RAM of every network under every engine."""
    table = Table(
        "network",
        "",
        *("edgesmith", "edgesmith, memory-first", "BakeNN + CMSIS-NN", "TFLite Micro + CMSIS-NN"),
        title="Cortex-M4, per inference; RAM without stack",
        caption="BakeNN: this run, without a last softmax. TFLite Micro: reference figures of "
        "another run on this emulator; its RAM is its arena.",
    )
    for found in comparisons:
        for line, values in _LINES:
            shown = [f"{value:,.0f}" for value in values(found)]
            table.add_row(found.network.title if line == _LINES[0][0] else "", line, *shown)
        ours = [f"{each.cycles_per_mac.nominal:.2f}" for each in (found.speed, found.memory)]
        best = f"best published, on boards: {found.network.published_cycles_per_mac}"
        table.add_row("", "cycles per MAC, estimated", *ours, "", best, end_section=True)
    return table
