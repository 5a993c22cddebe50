"""NSGA-II (Deb et al., 2002), as pymoo has it, on candidates: rows of indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.problems.static import StaticProblem

from edgesmith.nas.space import Candidate, Floats, Space

Rows = npt.NDArray[np.int64]


class Evolution:
    """Ask and tell.

    Args:
        first: the first population; it is asked for first.
        size: of the population.
        operators: what makes offspring.
        seed: of all that is random.
    """

    def __init__(
        self,
        space: Space,
        objectives: int,
        first: Sequence[Candidate],
        size: int,
        operators: Operators,
        seed: int,
    ) -> None:
        high = np.array(space.sizes) - 1
        self._problem = Problem(
            n_var=len(high), n_obj=objectives, n_ieq_constr=1, xl=0 * high, xu=high, vtype=int
        )
        self._algorithm = NSGA2(
            pop_size=size,
            sampling=np.array(first),
            crossover=operators[0],
            mutation=operators[1],
            repair=_Canonical(space),
        )
        self._algorithm.setup(self._problem, seed=seed, termination=("n_gen", np.inf))

    def ask(self) -> list[Candidate]:
        """The next generation, canonical; empty where offspring cannot be new any more."""
        if not self._algorithm.has_next():
            return []
        asked = self._algorithm.ask()
        rows = [] if asked is None else asked.get("X").tolist()
        return [tuple(row) for row in rows]

    @property
    def population(self) -> list[Candidate]:
        """Who survived, as often as it did."""
        return [tuple(row) for row in self._algorithm.pop.get("X").tolist()]

    def tell(self, candidates: Sequence[Candidate], losses: Floats, violations: Floats) -> None:
        """What became of them, or of any others.

        Args:
            losses: [N, K]; anything where infeasible.
            violations: [N], 0 where feasible.
        """
        told = Population.new("X", np.array(candidates))
        static = StaticProblem(self._problem, F=losses, G=violations[:, None])
        Evaluator().eval(static, told)
        self._algorithm.tell(infills=told)


Operators = tuple[Crossover, Mutation]


def categorical() -> Operators:
    """Each gene from either parent; one gene in each offspring, on average, drawn anew."""
    return UX(prob=0.9), _Reset()


def rounded() -> Operators:
    """Simulated binary crossover and polynomial mutation of indices as if they were numbers."""
    return (
        SBX(prob=0.9, eta=3.0, vtype=float, repair=RoundingRepair()),
        PM(eta=3.0, vtype=float, repair=RoundingRepair()),
    )


class _Reset(Mutation):  # type: ignore[misc]
    """Draws genes anew from all their choices."""

    def _do(
        self, problem: Problem, rows: Rows, *, random_state: np.random.Generator, **_: Any
    ) -> Rows:
        # Of a gene's n choices one in n changes nothing.
        share = np.minimum(1.0, (problem.xu + 1) / np.maximum(problem.xu, 1) / problem.n_var)
        redrawn = random_state.integers(0, problem.xu + 1, rows.shape)
        return np.where(random_state.random(rows.shape) < share, redrawn, rows)


class _Canonical(Repair):  # type: ignore[misc]
    """Inactive genes are 0, so that duplicates are seen to be."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self._space = space

    def _do(self, problem: Problem, rows: Rows, **_: Any) -> Rows:
        return np.array([self._space.canonical(row) for row in rows.tolist()])
