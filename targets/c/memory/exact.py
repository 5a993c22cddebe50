"""Branch and bound over who lies below whom.

Every forbidden interval (low, high) of d = offset(b) - offset(a) is a disjunction: d >= high
or d <= low. A node has decided some of them; its plan is the least one that respects those,
found by propagating heads (least addresses) and tails (bytes that must fit from an address
to the end), as in job-shop scheduling (Carlier & Pinson, Management Science 35(2), 1989).
A disjunction of which one side no longer fits below the best known arena is decided at
once; otherwise the search branches on the violated one that costs most. Work is counted,
not seconds, so the same input gives the same plan on every computer.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgesmith.targets.c.memory.constraints import Problem
from edgesmith.targets.c.memory.placement import Offsets, aligned, arena_of

Disjunction = tuple[int, int, int, int]  # a, b, low, high


@dataclass(frozen=True)
class Outcome:
    """What the search found.

    Args:
        offsets: a plan below the limit, or None where none was found.
        complete: the search was exhaustive: `offsets` is optimal, or nothing is below the limit.
        work: disjunctions looked at.
    """

    offsets: Offsets | None
    complete: bool
    work: int


def search(problem: Problem, limit: int, goal: int, work: int) -> Outcome:
    """The smallest arena below `limit` bytes.

    Args:
        goal: stop at a plan of this size (a lower bound).
        work: give up after looking at so many disjunctions.
    """
    if limit <= goal:
        return Outcome(None, complete=True, work=0)
    tree = _Tree(problem, limit, goal, work)
    complete = tree.explore()
    return Outcome(tree.best, complete, tree.done)


class _Tree:
    """The state of one search: heads, tails, decided edges, open disjunctions."""

    def __init__(self, problem: Problem, limit: int, goal: int, work: int) -> None:
        self.problem = problem
        self.limit = limit
        self.goal = goal
        self.allowed = work
        self.done = 0
        self.best: Offsets | None = None
        count = len(problem.buffers)
        self.alignment = [buffer.alignment for buffer in problem.buffers]
        self.head = [0] * count
        self.tail = [buffer.bytes for buffer in problem.buffers]
        self.above: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        self.below: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        self.open: list[Disjunction] = [
            (a, b, low, high)
            for (a, b), intervals in problem.forbidden.items()
            for low, high in intervals
        ]

    def explore(self) -> bool:
        """Depth first without recursion; True where the whole tree was seen."""
        pending: list[tuple[_Saved, tuple[int, int, int] | None]] = [(self._save(), None)]
        while pending:
            saved, edge = pending.pop()
            self._restore(saved)
            self.done += 1 + len(self.open)
            if self.done > self.allowed:
                return False
            if edge and not self._add(*edge):
                continue
            choice = self._settle()
            if choice is None:
                continue
            if not choice:
                self.best = tuple(self.head)
                self.limit = arena_of(self.problem, self.best)
                if self.limit <= self.goal:
                    return True
                continue
            here = self._save()
            pending.extend((here, side) for side in reversed(choice))
        return True

    def _save(self) -> _Saved:
        return _Saved(
            list(self.head),
            list(self.tail),
            [list(edges) for edges in self.above],
            [list(edges) for edges in self.below],
            list(self.open),
        )

    def _restore(self, saved: _Saved) -> None:
        self.head, self.tail = list(saved.head), list(saved.tail)
        self.above = [list(edges) for edges in saved.above]
        self.below = [list(edges) for edges in saved.below]
        self.open = list(saved.open)

    def _add(self, low: int, high: int, weight: int) -> bool:
        """Decide offset(high) >= offset(low) + weight; False where that reaches the limit."""
        self.above[low].append((high, weight))
        self.below[high].append((low, weight))
        return self._raise_heads(low) and self._raise_tails(high)

    def _raise_heads(self, start: int) -> bool:
        head, tail, work = self.head, self.tail, [start]
        while work:
            node = work.pop()
            base = head[node]
            for other, weight in self.above[node]:
                if base + weight > head[other]:
                    head[other] = aligned(base + weight, self.alignment[other])
                    if head[other] + tail[other] >= self.limit:
                        return False
                    work.append(other)
        return True

    def _raise_tails(self, start: int) -> bool:
        head, tail, work = self.head, self.tail, [start]
        while work:
            node = work.pop()
            base = tail[node]
            for other, weight in self.below[node]:
                if base + weight > tail[other]:
                    tail[other] = base + weight
                    if head[other] + tail[other] >= self.limit:
                        return False
                    work.append(other)
        return True

    def _settle(self) -> list[tuple[int, int, int]] | None:
        """Decide all that is forced.

        Returns:
            None: nothing below the limit is left here. Empty: the heads are a plan.
            Else the two edges to branch on, the cheaper one first.
        """
        if any(h + t >= self.limit for h, t in zip(self.head, self.tail, strict=True)):
            return None
        while True:
            worst, choice, changed, kept = -1, [], False, []
            for disjunction in self.open:
                a, b, low, high = disjunction
                up = self.head[a] + high + self.tail[b]
                down = self.head[b] - low + self.tail[a]
                if up >= self.limit or down >= self.limit:
                    if up >= self.limit and down >= self.limit:
                        return None
                    edge = (b, a, -low) if up >= self.limit else (a, b, high)
                    if not self._add(*edge):
                        return None
                    changed = True
                    continue
                kept.append(disjunction)
                apart = self.head[b] - self.head[a]
                if low < apart < high and min(up, down) > worst:
                    worst = min(up, down)
                    sides = [(a, b, high), (b, a, -low)]
                    choice = sides if up <= down else sides[::-1]
            self.open = kept
            if not changed:
                return choice


@dataclass(frozen=True)
class _Saved:
    """A copy of a node's state."""

    head: list[int]
    tail: list[int]
    above: list[list[tuple[int, int]]]
    below: list[list[tuple[int, int]]]
    open: list[Disjunction]
