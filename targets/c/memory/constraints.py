"""What the planner must respect: which differences of two addresses are forbidden.

For buffers a and b let d = offset(b) - offset(a). Byte ranges [s, e) of a and [u, v) of b
that are in use at the same time clash exactly if s - v < d < e - u. So every pair has a
set of open intervals that d must avoid: the union over its ranges. A kernel that may write
over its dying input (`Overlap`) shrinks such an interval: with the input in a and the
output in b it allows d <= t, hence forbids only t < d < e - u; an exact overlap cuts the
point t out instead. Everything else (placement, search, bounds) knows only intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from edgesmith.targets.c.memory.lifetimes import (
    Buffer,
    LiveRange,
    Span,
    arena_reads,
    buffers,
    span,
)
from edgesmith.targets.c.program import Overlap, Program

Interval = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Problem:
    """Buffers to place.

    Args:
        buffers: sizes and alignments.
        forbidden: (a, b) with a < b -> open intervals, ascending and disjoint, that
            offset(b) - offset(a) must avoid. Pairs that never meet are absent.
        calls: number of calls of the program.
    """

    buffers: tuple[Buffer, ...]
    forbidden: Mapping[tuple[int, int], tuple[Interval, ...]]
    calls: int

    @cached_property
    def neighbours(self) -> tuple[tuple[tuple[int, tuple[Interval, ...]], ...], ...]:
        """For every buffer: the others that it meets, with the intervals that
        offset(this) - offset(other) must avoid.
        """
        found: list[list[tuple[int, tuple[Interval, ...]]]] = [[] for _ in self.buffers]
        for (a, b), intervals in self.forbidden.items():
            found[b].append((a, intervals))
            found[a].append((b, tuple((-high, -low) for low, high in reversed(intervals))))
        return tuple(tuple(others) for others in found)

    def alive(self, call: int) -> tuple[int, ...]:
        """Indices of the buffers of which some byte is in use at a call."""
        return tuple(
            index
            for index, buffer in enumerate(self.buffers)
            if any(part.alive(call) for part in buffer.ranges)
        )

    def restricted(self, kept: Iterable[int]) -> Problem:
        """The problem of some of the buffers: its optimum is a lower bound of the whole."""
        chosen = sorted(kept)
        position = {index: place for place, index in enumerate(chosen)}
        forbidden = {
            (position[a], position[b]): intervals
            for (a, b), intervals in self.forbidden.items()
            if a in position and b in position
        }
        return Problem(tuple(self.buffers[index] for index in chosen), forbidden, self.calls)


def problem_of(program: Program) -> Problem:
    """Derive buffers and forbidden differences from a program."""
    placed = buffers(program)
    rules = [_CallRules.of(program, time) for time in range(len(program.calls))]
    forbidden = {}
    for (i, a), (j, b) in combinations(enumerate(placed), 2):
        if a.last < b.first or b.last < a.first:
            continue
        intervals = _pair(a, b, rules)
        if intervals:
            forbidden[i, j] = intervals
    return Problem(placed, forbidden, len(program.calls))


@dataclass(frozen=True)
class _CallRules:
    """Spans that one call reads and writes, and how its first output may lie over inputs."""

    time: int
    reads: tuple[tuple[Span, Overlap | None], ...]
    writes: tuple[Span, ...]

    @classmethod
    def of(cls, program: Program, time: int) -> _CallRules:
        call = program.calls[time]
        reads = tuple(
            (span(program, name), call.overlaps.get(name)) for name in arena_reads(program, call)
        )
        return cls(time, reads, tuple(span(program, name) for name in call.writes))

    def allowance(
        self, source: str, dying: LiveRange, target: str, born: LiveRange
    ) -> tuple[int, bool] | None:
        """How the output range may lie over the input range, or None where it may not.

        (t, exact) with d = offset(target) - offset(source): d <= t is allowed, or d == t.
        """
        if dying.last != self.time or born.first != self.time or not self.writes:
            return None
        first = self.writes[0]
        if first.storage != target or not first.covers(born.start, born.end):
            return None
        others = (*self.writes[1:], *(where for where, _ in self.reads))
        if any(_inside(where, target, born) for where in others):
            return None
        if any(_inside(where, source, dying) for where in self.writes):
            return None
        limits = []
        for where, overlap in self.reads:
            if not _inside(where, source, dying):
                continue
            if overlap is None:
                return None
            limits.append((where.start - first.start - overlap.distance, overlap.exact))
        return _strictest(limits)


def _inside(where: Span, storage: str, part: LiveRange) -> bool:
    return where.meets(Span(storage, part.start, part.end))


def _strictest(limits: list[tuple[int, bool]]) -> tuple[int, bool] | None:
    """What several limits (t, exact) allow together."""
    if not limits:
        return None
    least = min(limit for limit, _ in limits)
    points = {limit for limit, exact in limits if exact}
    if not points:
        return least, False
    point = points.pop()
    return (point, True) if not points and point <= least else None


def _pair(a: Buffer, b: Buffer, rules: list[_CallRules]) -> tuple[Interval, ...]:
    found: set[Interval] = set()
    for part_a in a.ranges:
        for part_b in b.ranges:
            first, last = max(part_a.first, part_b.first), min(part_a.last, part_b.last)
            if first > last:
                continue
            clash = (part_a.start - part_b.end, part_a.end - part_b.start)
            if first == last and 0 <= first < len(rules):
                found.update(_shrunk(clash, a.name, part_a, b.name, part_b, rules[first]))
            else:
                found.add(clash)
    return _union(found)


def _shrunk(
    clash: Interval, a: str, part_a: LiveRange, b: str, part_b: LiveRange, rules: _CallRules
) -> list[Interval]:
    """The clash of two ranges that meet in one call only, less what the call allows."""
    forward = rules.allowance(a, part_a, b, part_b)
    if forward:
        return _less(clash, *forward)
    backward = rules.allowance(b, part_b, a, part_a)
    if backward:
        low, high = clash
        return [(-right, -left) for left, right in _less((-high, -low), *backward)]
    return [clash]


def _less(clash: Interval, limit: int, exact: bool) -> list[Interval]:
    low, high = clash
    if exact:
        return [(low, limit), (limit, high)] if low < limit < high else [clash]
    return [(max(low, limit), high)] if limit < high else []


def _union(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Open intervals joined where they share a point; end to end ones leave their border free."""
    merged: list[Interval] = []
    for low, high in sorted(intervals):
        if merged and low < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        elif low < high:
            merged.append((low, high))
    return tuple(merged)
