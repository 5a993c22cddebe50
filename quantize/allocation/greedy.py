"""The greedy baseline: give up bits where a unit of excess costs least loss, until all fits.

Start from the option of least loss of every unit; while a limit is exceeded, make the move with
the least rise of loss per reduction of the largest excess. No proof of anything: it is there to
be compared with.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgesmith.quantize.allocation.local import descend
from edgesmith.quantize.allocation.milp import unreachable
from edgesmith.quantize.allocation.problem import Problem, Solution


def greedy(problem: Problem, limits: Mapping[str, float]) -> Solution:
    """A choice within the limits.

    Raises:
        AllocationError: the problem is malformed.
        UnreachableBudgetError: it got stuck above a limit; names the nearest that is reachable.
    """
    problem.check(limits)
    picked = descend(problem, limits)
    if picked is None:
        raise unreachable(problem, limits)
    return Solution.of(problem, picked, optimal=False, method="greedy")
