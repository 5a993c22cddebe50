"""The memory planner: the smallest arena for a program, with a proof where one is found.

Bounds, plans, bounds again: the bytes alive at each call bound the arena from below;
greedy orders and a local search give a plan; where both differ, branch and bound solves
small windows of calls exactly (their optimum is a bound of the whole, as leaving buffers
out cannot cost memory), then the whole program, within a fixed amount of work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgesmith.targets.c.memory import exact
from edgesmith.targets.c.memory.check import check
from edgesmith.targets.c.memory.constraints import Problem, problem_of
from edgesmith.targets.c.memory.lifetimes import Buffer, arena_reads, span
from edgesmith.targets.c.memory.placement import Offsets, arena_of, greedy, local_search
from edgesmith.targets.c.program import MemoryPlan, Placement, Program

PLACEMENTS = 50_000
WORK = 100_000  # disjunctions looked at
QUICK = 50  # a quick plan has this part of both
WINDOW_WORK = 10_000
CROWDED = 4
WINDOWS = (1, 2, 3)


def plan_memory(program: Program, *, quick: bool = False) -> MemoryPlan:
    """Place every storage and scratch of a program.

    The contents of graph inputs may be overwritten once they are no longer read.

    Args:
        quick: with little search, for a program that is not going to be deployed: the arena may
            be larger than it has to be.

    Raises:
        StageError: the program reads what nothing wrote, or its views leave their storages.
    """
    problem = problem_of(program)
    bounds = live_bounds(program, problem.buffers)
    offsets, bound = solve(problem, bounds, QUICK if quick else 1)
    arena = arena_of(problem, offsets)
    placed = tuple(
        Placement(buffer.name, offset, buffer.bytes, buffer.first, buffer.last)
        for buffer, offset in zip(problem.buffers, offsets, strict=True)
    )
    plan = MemoryPlan(
        arena_bytes=arena,
        offsets={item.name: item.offset for item in placed},
        timeline=tuple(sorted(placed, key=lambda item: (item.first, item.last, item.name))),
        optimal=arena == bound,
        lower_bound=bound,
    )
    check(plan, program)
    return plan


def live_bounds(program: Program, placed: Sequence[Buffer]) -> dict[int, int]:
    """Call -> bytes that the arena needs at least, from what is in use during it.

    Everything in use lies apart, except that the call's first output may lie over inputs
    that die there; that saves no more than the smaller of both. -1 and `len(calls)` are
    the times before and after.
    """
    bounds = {}
    for time in range(-1, len(program.calls) + 1):
        alive = sum(buffer.alive_bytes(time) for buffer in placed)
        bounds[time] = alive - (_saving(program, time) if 0 <= time < len(program.calls) else 0)
    return bounds


def _saving(program: Program, time: int) -> int:
    call = program.calls[time]
    if not call.writes or not call.overlaps:
        return 0
    target = span(program, call.writes[0])
    sources = {span(program, name) for name in arena_reads(program, call) if name in call.overlaps}
    return min(target.end - target.start, sum(item.end - item.start for item in sources))


def solve(problem: Problem, bounds: Mapping[int, int], divisor: int = 1) -> tuple[Offsets, int]:
    """Offsets of the buffers, and a lower bound of the arena: equal where it is optimal.

    Args:
        bounds: lower bounds of the arena, by call.
        divisor: of the amount of work.
    """
    bound = max([0, *bounds.values(), *(buffer.bytes for buffer in problem.buffers)])
    order, offsets = greedy(problem, bound)
    state = _State(problem, offsets, bound)
    windows = _windows(problem, bounds)
    state.raise_bound(windows[:CROWDED], CROWDED * WINDOW_WORK // divisor)
    if not state.optimal:
        placements = PLACEMENTS // divisor
        state.offsets = local_search(problem, order, state.offsets, state.bound, placements)
    state.raise_bound(windows, WORK // divisor)
    state.search_all(WORK // divisor)
    return state.offsets, state.bound


@dataclass
class _State:
    """The best plan and the best bound so far."""

    problem: Problem
    offsets: Offsets
    bound: int

    @property
    def size(self) -> int:
        return arena_of(self.problem, self.offsets)

    @property
    def optimal(self) -> bool:
        return self.size <= self.bound

    def raise_bound(self, windows: Iterable[tuple[int, ...]], work: int) -> None:
        """Solve parts of the problem: what a part needs, or cannot go below, the whole needs."""
        for window in windows:
            if self.optimal or work <= 0:
                return
            part = self.problem.restricted(window)
            outcome = exact.search(part, self.size, self.bound, min(work, WINDOW_WORK))
            work -= outcome.work
            if outcome.complete:
                found = outcome.offsets
                self.bound = self.size if found is None else max(self.bound, arena_of(part, found))

    def search_all(self, work: int) -> None:
        """Search the whole problem for a smaller plan, or the proof that there is none."""
        if self.optimal:
            return
        outcome = exact.search(self.problem, self.size, self.bound, work)
        self.offsets = outcome.offsets or self.offsets
        if outcome.complete:
            self.bound = self.size


def _windows(problem: Problem, bounds: Mapping[int, int]) -> list[tuple[int, ...]]:
    """Buffers of one, two, three calls together, the most crowded calls first."""
    crowded = sorted(bounds, key=lambda call: (-bounds[call], call))
    alive = {call: set(problem.alive(call)) for call in bounds}
    found: dict[tuple[int, ...], None] = {}
    for width in WINDOWS:
        for call in crowded:
            calls = [near for near in range(call, call + width) if near in alive]
            found[tuple(sorted(set().union(*(alive[near] for near in calls))))] = None
    return list(found)
