"""The whole front of loss against one resource, and the figures that a report draws of it.

Epsilon-constraint method: the least loss under a limit on the resource, for limits that fall. The
exact front continues each time below the last total until nothing is reachable, so it misses no
point; with `points`, limits are spread evenly instead. Dominated points are removed.

Source: Haimes, Lasdon and Wismer, "On a Bicriterion Formulation of the Problems of Integrated
System Identification and System Optimization", 1971.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgesmith.pipeline.errors import UnreachableBudgetError
from edgesmith.quantize.allocation.milp import SECONDS, solve
from edgesmith.quantize.allocation.problem import Problem, Solution

MOST_POINTS = 500


@dataclass(frozen=True)
class Front:
    """Choices of which none is better in loss and in the resource at once; cheapest first.

    Args:
        resource, unit: what is traded for loss.
        complete: it is the exact front; else points were spread over it.
    """

    resource: str
    unit: str
    loss_unit: str
    solutions: tuple[Solution, ...]
    complete: bool

    def within(self, limit: float) -> Solution:
        """The choice of least loss whose total is at most `limit`.

        Raises:
            UnreachableBudgetError: even the cheapest is above it.
        """
        fitting = [each for each in self.solutions if each.costs[self.resource] <= limit]
        if not fitting:
            least = self.solutions[0].costs[self.resource]
            raise UnreachableBudgetError(
                f"no allocation has {self.resource} of {limit:,.6g} {self.unit}; the nearest"
                f" reachable is {least:,.6g}",
                fix=f"raise the budget to {least:,.6g} {self.unit}, or offer narrower formats",
            )
        return fitting[-1]


def front(
    problem: Problem,
    resource: str,
    limits: Mapping[str, float] | None = None,
    points: int | None = None,
    seconds: float = SECONDS,
) -> Front:
    """The front of the loss over a resource.

    Args:
        limits: on resources, kept for all points.
        points: how many limits are tried between the cheapest and the most expensive point;
            None for every point of the front, `MOST_POINTS` at most.
        seconds: per point.

    Raises:
        AllocationError, UnreachableBudgetError: as `solve`, for the limits alone.
    """
    given = dict(limits or {})
    best = solve(problem, given, seconds)
    problem.check({resource: 0.0})
    if points is None:
        found, complete = _descend(problem, resource, given, best, seconds)
    else:
        found, complete = [best], False
        least = _least(problem, resource, given, seconds)
        for limit in np.linspace(least, best.costs[resource], points, endpoint=False):
            found.append(solve(problem, _also(given, resource, float(limit)), seconds))
    kept = undominated(found, resource)
    complete = complete and all(each.optimal for each in kept)
    return Front(resource, problem.resources[resource], problem.loss_unit, kept, complete)


def undominated(solutions: Sequence[Solution], resource: str) -> tuple[Solution, ...]:
    """Without those that another one equals or beats in both, cheapest first."""
    kept: list[Solution] = []
    for each in sorted(solutions, key=lambda one: (one.costs[resource], one.loss)):
        if not kept or each.loss < kept[-1].loss:
            kept.append(each)
    return tuple(kept)


def _descend(
    problem: Problem, resource: str, limits: dict[str, float], best: Solution, seconds: float
) -> tuple[list[Solution], bool]:
    found = [best]
    while len(found) < MOST_POINTS:
        below = float(np.nextafter(found[-1].costs[resource], -np.inf))
        try:
            found.append(solve(problem, _also(limits, resource, below), seconds))
        except UnreachableBudgetError:
            return found, True
    return found, False


def _least(problem: Problem, resource: str, limits: dict[str, float], seconds: float) -> float:
    """The smallest total of a resource within the limits: the same program with it as the loss."""
    units = tuple(
        replace(
            unit,
            options=tuple(replace(o, loss=o.costs.get(resource, 0.0)) for o in unit.options),
        )
        for unit in problem.units
    )
    pairs = tuple(replace(pair, loss=pair.costs.get(resource)) for pair in problem.pairs)
    found = solve(replace(problem, units=units, pairs=pairs), limits, seconds)
    return found.costs[resource]


def _also(limits: dict[str, float], resource: str, limit: float) -> dict[str, float]:
    return {**limits, resource: min(limit, limits.get(resource, limit))}
