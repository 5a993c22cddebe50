"""Heuristic plans: place buffers one by one at the lowest address that fits, in many orders.

Placing in ascending order of an optimal plan's addresses gives a plan as good, as long as
constraints only push buffers upwards; so searching orders is enough in nearly all cases,
and `exact.py` covers the rest. Simple orders come first (greedy by size and by lifetime:
Pisarchyk & Lee, arXiv:2001.03288), then a seeded local search that moves buffers at the
top of the arena to earlier places of the order.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from edgesmith.targets.c.memory.constraints import Problem

SEED = 3
Offsets = tuple[int, ...]
Order = tuple[int, ...]


def aligned(address: int, alignment: int) -> int:
    """The next multiple of the alignment."""
    return -(-address // alignment) * alignment


def first_fit(problem: Problem, order: Sequence[int]) -> Offsets:
    """Place in this order, each buffer at the lowest address that respects those before."""
    offsets = [-1] * len(problem.buffers)
    neighbours = problem.neighbours
    for index in order:
        blocked = []
        for other, intervals in neighbours[index]:
            base = offsets[other]
            if base >= 0:
                blocked.extend([(base + low, base + high) for low, high in intervals])
        blocked.sort()
        alignment = problem.buffers[index].alignment
        address = 0
        for low, high in blocked:
            if low >= address:
                break
            if high > address:
                address = aligned(high, alignment)
        offsets[index] = address
    return tuple(offsets)


def arena_of(problem: Problem, offsets: Sequence[int]) -> int:
    """Bytes of the arena: the largest end."""
    ends = (offset + buffer.bytes for offset, buffer in zip(offsets, problem.buffers, strict=True))
    return max(ends, default=0)


def simple_orders(problem: Problem) -> Iterator[Order]:
    """Greedy orders: by size, by lifetime, by time, by how crowded a buffer's time is."""
    buffers = problem.buffers
    indices = range(len(buffers))
    crowd = [0] * (problem.calls + 2)
    for buffer in buffers:
        for call in range(buffer.first, buffer.last + 1):
            crowd[call + 1] += buffer.alive_bytes(call)

    def peak(index: int) -> int:
        buffer = buffers[index]
        return max(crowd[buffer.first + 1 : buffer.last + 2], default=0)

    def lifetime(index: int) -> int:
        return buffers[index].last - buffers[index].first

    yield tuple(sorted(indices, key=lambda i: (-buffers[i].bytes, buffers[i].first)))
    yield tuple(sorted(indices, key=lambda i: (-buffers[i].bytes, -buffers[i].first)))
    yield tuple(sorted(indices, key=lambda i: (-peak(i), -buffers[i].bytes, buffers[i].first)))
    yield tuple(sorted(indices, key=lambda i: (-peak(i), -buffers[i].bytes, -buffers[i].first)))
    yield tuple(sorted(indices, key=lambda i: (-lifetime(i), -buffers[i].bytes)))
    yield tuple(sorted(indices, key=lambda i: -buffers[i].bytes * (1 + lifetime(i))))
    yield tuple(sorted(indices, key=lambda i: (buffers[i].first, -buffers[i].bytes)))
    yield tuple(sorted(indices, key=lambda i: (-buffers[i].last, -buffers[i].bytes)))


def greedy(problem: Problem, goal: int) -> tuple[Order, Offsets]:
    """The best of the simple orders, and its plan; stops at one of `goal` bytes."""
    best: tuple[int, Order, Offsets] | None = None
    for order in simple_orders(problem):
        offsets = first_fit(problem, order)
        size = arena_of(problem, offsets)
        if best is None or size < best[0]:
            best = size, order, offsets
        if size <= goal:
            break
    assert best is not None
    return best[1:]


def local_search(
    problem: Problem, start: Order, best: Offsets, goal: int, placements: int
) -> Offsets:
    """Move a buffer at the arena's top, or any, to an earlier place; keep what is not worse.

    Args:
        start, best: an order and its plan.
        goal: a lower bound; the search ends when a plan reaches it.
        placements: buffers to place, over all orders: the time limit.
    """
    rng = random.Random(SEED)
    count = len(problem.buffers)
    order, size = list(start), arena_of(problem, best)
    current, offsets = size, best
    for step in range(placements // max(1, count)):
        top = [i for i in range(count) if offsets[i] + problem.buffers[i].bytes == current]
        moved = rng.choice(top) if rng.random() < 0.7 else rng.randrange(count)
        place = order.index(moved)
        trial = order[:place] + order[place + 1 :]
        trial.insert(rng.randrange(max(1, place)), moved)
        found = first_fit(problem, trial)
        arena = arena_of(problem, found)
        if arena <= current or step % 50 == 49:
            order, current, offsets = trial, arena, found
        if arena < size:
            best, size = found, arena
            if size <= goal:
                break
    return best
