"""Greedy descent and local search: what there is when the exact program would be too large.

Moves: one unit to another option (with the units that are tied to it), or two units at once,
which exchanges bits between them. Steepest descent; a move has to keep within the limits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

from edgesmith.quantize.allocation.problem import Picked, Problem

Move = tuple[tuple[int, int], ...]
"""Units, by position, and their new options."""

_MOST_PAIRS = 200_000


def improve(problem: Problem, start: Picked, limits: Mapping[str, float]) -> Picked:
    """A choice within the limits from which no single or double move lowers the loss.

    Args:
        start: within the limits.
    """
    best, loss = start, problem.loss(start)
    while True:
        found = _best_neighbour(problem, best, loss, limits)
        if found is None:
            return best
        best, loss = found


def _best_neighbour(
    problem: Problem, picked: Picked, loss: float, limits: Mapping[str, float]
) -> tuple[Picked, float] | None:
    singles = list(moves(problem, picked))
    for candidates in (((move,) for move in singles), _doubles(singles)):
        best: tuple[Picked, float] | None = None
        for combined in candidates:
            tried = applied(picked, *combined)
            found = problem.loss(tried)
            lowest = loss if best is None else best[1]
            if found < lowest and problem.within(tried, limits):
                best = tried, found
        if best is not None:
            return best
    return None


def _doubles(singles: list[Move]) -> Iterator[tuple[Move, Move]]:
    pairs = (
        (one, other)
        for one, other in itertools.combinations(singles, 2)
        if not {unit for unit, _ in one} & {unit for unit, _ in other}
    )
    return itertools.islice(pairs, _MOST_PAIRS)


def moves(problem: Problem, picked: Picked) -> Iterator[Move]:
    """Every change of one unit; where it changes a tied activation format, of all tied units."""
    for place, unit in enumerate(problem.units):
        for at, option in enumerate(unit.options):
            if at == picked[place]:
                continue
            same = option.choice.activation == unit.options[picked[place]].choice.activation
            followers = None if same else _followers(problem, picked, place, at)
            if same:
                yield ((place, at),)
            elif followers is not None:
                yield ((place, at), *followers)


def applied(picked: Picked, *changes: Move) -> Picked:
    """A choice after some moves."""
    after = list(picked)
    for move in changes:
        for place, at in move:
            after[place] = at
    return tuple(after)


def _followers(problem: Problem, picked: Picked, place: int, at: int) -> Move | None:
    """What tied units have to change to, keeping their weight formats; None where they cannot."""
    wanted = problem.units[place].options[at].choice.activation
    found: dict[int, int] = {}
    waiting, seen = [problem.units[place].name], {problem.units[place].name}
    while waiting:
        name = waiting.pop()
        for tie in problem.ties:
            for other in tie.units if name in tie.units else ():
                if other in seen:
                    continue
                seen.add(other)
                waiting.append(other)
                there = problem.position[other]
                weight = problem.units[there].options[picked[there]].choice.weight
                options = [option.choice for option in problem.units[there].options]
                fitting = [
                    position
                    for position, choice in enumerate(options)
                    if choice.activation == wanted and choice.weight == weight
                ]
                if not fitting:
                    return None
                found[there] = fitting[0]
    return tuple(found.items())


def descend(problem: Problem, limits: Mapping[str, float]) -> Picked | None:
    """Greedily from the least loss of every unit to a choice within the limits, if it gets there.

    Each move has the least rise of loss per reduction of the excess.
    """
    picked = _start(problem)
    while not problem.within(picked, limits):
        following = _step(problem, picked, limits)
        if following is None:
            return None
        picked = following
    return picked


def _start(problem: Problem) -> Picked:
    """Least loss per unit; tied units share the activation format of least total loss."""
    picked = tuple(
        min(range(len(unit.options)), key=lambda at, u=unit: u.options[at].loss)  # type: ignore[misc]
        for unit in problem.units
    )
    for tie in problem.ties:
        tied = [problem.position[name] for name in tie.units]
        formats = [{o.choice.activation for o in problem.units[at].options} for at in tied]
        best: tuple[float, dict[int, int]] | None = None
        for wanted in sorted(set.intersection(*formats), key=str):
            chosen = {at: _least(problem, at, wanted) for at in tied}
            loss = math.fsum(problem.units[at].options[o].loss for at, o in chosen.items())
            if best is None or loss < best[0]:
                best = loss, chosen
        if best is not None:
            picked = applied(picked, tuple(best[1].items()))
    return picked


def _least(problem: Problem, place: int, activation: str | None) -> int:
    options = problem.units[place].options
    fitting = [at for at, o in enumerate(options) if o.choice.activation == activation]
    return min(fitting, key=lambda at: options[at].loss)


def _step(problem: Problem, picked: Picked, limits: Mapping[str, float]) -> Picked | None:
    loss, excess = problem.loss(picked), _excess(problem, picked, limits)
    best: tuple[float, Picked] | None = None
    for move in moves(problem, picked):
        tried = applied(picked, move)
        gained = excess - _excess(problem, tried, limits)
        if gained <= 0:
            continue
        price = (problem.loss(tried) - loss) / gained
        if best is None or price < best[0]:
            best = price, tried
    return None if best is None else best[1]


def _excess(problem: Problem, picked: Picked, limits: Mapping[str, float]) -> float:
    """How far above the limits, as a fraction of them, summed."""
    return math.fsum(
        max(0.0, problem.cost(name, picked) - limit) / max(abs(limit), 1.0)
        for name, limit in limits.items()
    )
