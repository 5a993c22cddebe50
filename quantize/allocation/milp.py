"""Bit allocation as an integer linear program, solved by HiGHS.

    minimize    sum_u sum_i loss[u,i] x[u,i] + sum_uv sum_ij loss[u,i,v,j] y[u,i,v,j]
    subject to  sum_i x[u,i] = 1                        every unit has one option
                sum_j y[u,i,v,j] = x[u,i],  sum_i y[u,i,v,j] = x[v,j]
                cost_r(x, y) <= limit_r                 every limited resource
                tied units: equal sums of x per activation format
                x in {0, 1},  0 <= y <= 1

y is the product x[u,i] x[v,j]: with binary x the sums leave it no other value, and they bound
the relaxation more tightly than y >= x + x' - 1 (Adams and Sherali's linearization). Size,
bit operations, cost on the target and requantization between neighbours are all rows.

With more than `MOST_PRODUCTS` products, loss terms between units are left out of the program. Then,
and where time runs out, the better of its solution and the greedy one is improved by local search
with all terms: not proven optimal, and said so.

Sources: Yao et al., "HAWQ-V3", arXiv:2011.10680, for the program; Deng et al.,
"CLADO", arXiv:2307.05657, for the products; Adams and Sherali, 1986.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint
from scipy.sparse import coo_array

from edgesmith.pipeline.errors import AllocationError, UnreachableBudgetError
from edgesmith.quantize.allocation.highs import milp
from edgesmith.quantize.allocation.local import descend, improve
from edgesmith.quantize.allocation.problem import Pair, Picked, Problem, Solution

MOST_PRODUCTS = 6_000
SECONDS = 20.0
_SPAN = 1e4  # of the objective's coefficients: HiGHS stops at an absolute gap of 1e-6
_INFEASIBLE = 2
_MOST_CUTS = 100
_MARGIN = 3e-6

Terms = list[tuple[int, float]]


@dataclass
class _Program:
    """Columns and rows of one program."""

    problem: Problem
    objective: list[float] = field(default_factory=list)
    integral: list[int] = field(default_factory=list)
    rows: list[tuple[Terms, float, float]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    products: list[tuple[Pair, int]] = field(default_factory=list)

    def column(self, objective: float, *, integral: bool) -> int:
        self.objective.append(objective)
        self.integral.append(int(integral))
        return len(self.objective) - 1

    def row(self, terms: Terms, low: float, high: float) -> None:
        self.rows.append((terms, low, high))

    def options(self, unit: str) -> range:
        """Columns of a unit's options."""
        place = self.problem.position[unit]
        start = self.starts[place]
        return range(start, start + len(self.problem.units[place].options))

    def cost_terms(self, resource: str) -> Terms:
        terms = [
            (self.starts[place] + at, option.costs.get(resource, 0.0))
            for place, unit in enumerate(self.problem.units)
            for at, option in enumerate(unit.options)
        ]
        for pair, start in self.products:
            table = pair.costs.get(resource)
            values = [] if table is None else [value for row in table for value in row]
            terms += [(start + at, value) for at, value in enumerate(values)]
        return [(column, value) for column, value in terms if value]


def solve(
    problem: Problem, limits: Mapping[str, float] | None = None, seconds: float = SECONDS
) -> Solution:
    """The choice of least loss within the limits.

    Args:
        limits: resource -> largest total cost, `base` included.
        seconds: after that, the best choice so far.

    Raises:
        AllocationError: the problem is malformed, or nothing was found in time.
        UnreachableBudgetError: no choice is within the limits; names the nearest that is reachable.
    """
    limits = dict(limits or {})
    problem.check(limits)
    found = _within(problem, limits, seconds, margin=0.0)
    # Where very many choices lie just above a limit, by less than HiGHS' tolerance.
    found = found or _within(problem, limits, seconds, margin=_MARGIN)
    if found is None:
        raise unreachable(problem, limits, seconds)
    return found


def _within(
    problem: Problem, limits: Mapping[str, float], seconds: float, margin: float
) -> Solution | None:
    program, complete = _program(problem, limits)
    for name, limit in limits.items():
        _limit_row(program, name, limit - margin * max(abs(limit), 1.0))
    for _ in range(_MOST_CUTS):
        picked, proven = _run(program, seconds)
        if picked is None:
            return None if proven else _searched(problem, limits, (), seconds)
        if problem.within(picked, limits):
            break
        # Within HiGHS' tolerance, but over the limit: never this one again.
        _forbid(program, picked)
    else:
        return None
    if complete and proven and not margin:
        return Solution.of(problem, picked, optimal=True, method="milp")
    return _searched(problem, limits, (picked,), seconds)


def _searched(
    problem: Problem, limits: Mapping[str, float], found: tuple[Picked, ...], seconds: float
) -> Solution:
    greedy = descend(problem, limits)
    starts = found if greedy is None else (*found, greedy)
    if not starts:
        raise AllocationError(
            f"no allocation was found within {seconds:g} s",
            fix="allow more seconds, or offer fewer formats",
        )
    ends = [improve(problem, each, limits) for each in starts]
    best = min(ends, key=problem.loss)
    return Solution.of(problem, best, optimal=False, method="milp + local search")


def unreachable(
    problem: Problem, limits: Mapping[str, float], seconds: float = SECONDS
) -> UnreachableBudgetError:
    """The error for limits that no choice meets, with the nearest totals that some choice has.

    Nearest: the largest ratio of a total to its limit is least.
    """
    nearest = cheapest(problem, limits, seconds)
    asked, reached = (
        ", ".join(f"{name} {_shown(value)} {problem.resources[name]}" for name, value in each)
        for each in (limits.items(), ((name, problem.cost(name, nearest)) for name in limits))
    )
    return UnreachableBudgetError(
        f"no allocation of {len(problem.units)} groups meets {asked}; the nearest reachable is"
        f" {reached}",
        fix=f"raise the budget to {reached}, or offer narrower formats",
    )


def cheapest(problem: Problem, limits: Mapping[str, float], seconds: float = SECONDS) -> Picked:
    """The choice whose largest ratio of total to limit is least; the limits need not be met.

    Raises:
        AllocationError: nothing was found in time, or ties leave no choice.
    """
    program, _ = _program(problem, limits)
    program.objective = [0.0] * len(program.objective)
    worst = program.column(1.0, integral=False)
    for name, limit in limits.items():
        scale = max(abs(limit), 1.0)
        terms = [(column, value / scale) for column, value in program.cost_terms(name)]
        program.row([*terms, (worst, -1.0)], -np.inf, -problem.base.get(name, 0.0) / scale)
    picked, _ = _run(program, seconds, free=worst)
    if picked is None:
        raise AllocationError(
            "tied groups have no activation format in common",
            fix="offer the same activation formats for tied groups",
        )
    return picked


def _program(problem: Problem, limits: Iterable[str]) -> tuple[_Program, bool]:
    """Everything but limits; and whether no loss term had to be left out."""
    program = _Program(problem)
    for unit in problem.units:
        program.starts.append(len(program.objective))
        for option in unit.options:
            program.column(option.loss, integral=True)
        program.row([(column, 1.0) for column in program.options(unit.name)], 1.0, 1.0)
    products = sum(_size(problem, pair) for pair in problem.pairs if pair.loss is not None)
    complete = products <= MOST_PRODUCTS
    for pair in problem.pairs:
        costly = any(name in pair.costs for name in limits)
        if costly or (complete and pair.loss is not None):
            _product(program, pair, with_loss=complete)
    for tie in problem.ties:
        for other in tie.units[1:]:
            _tie(program, tie.units[0], other)
    return program, complete


def _size(problem: Problem, pair: Pair) -> int:
    first, second = (problem.units[problem.position[n]] for n in (pair.first, pair.second))
    return len(first.options) * len(second.options)


def _product(program: _Program, pair: Pair, *, with_loss: bool) -> None:
    first, second = program.options(pair.first), program.options(pair.second)
    start = len(program.objective)
    program.products.append((pair, start))
    for at in range(len(first)):
        for by in range(len(second)):
            loss = pair.loss[at][by] if with_loss and pair.loss is not None else 0.0
            program.column(loss, integral=False)
    for at, column in enumerate(first):
        row = range(start + at * len(second), start + (at + 1) * len(second))
        program.row([*((each, 1.0) for each in row), (column, -1.0)], 0.0, 0.0)
    for by, column in enumerate(second):
        row = range(start + by, start + len(first) * len(second), len(second))
        program.row([*((each, 1.0) for each in row), (column, -1.0)], 0.0, 0.0)


def _tie(program: _Program, one: str, other: str) -> None:
    units = [program.problem.units[program.problem.position[name]] for name in (one, other)]
    formats = dict.fromkeys(o.choice.activation for unit in units for o in unit.options)
    for wanted in formats:
        terms: Terms = []
        for unit, sign in zip(units, (1.0, -1.0), strict=True):
            columns = zip(program.options(unit.name), unit.options, strict=True)
            terms += [(c, sign) for c, option in columns if option.choice.activation == wanted]
        program.row(terms, 0.0, 0.0)


def _limit_row(program: _Program, name: str, limit: float) -> None:
    room = limit - program.problem.base.get(name, 0.0)
    terms = program.cost_terms(name)
    scale = max([abs(room), *(abs(value) for _, value in terms)]) or 1.0
    program.row([(column, value / scale) for column, value in terms], -np.inf, room / scale)


def _forbid(program: _Program, picked: Picked) -> None:
    terms = [(start + at, 1.0) for start, at in zip(program.starts, picked, strict=True)]
    program.row(terms, -np.inf, len(terms) - 1.0)


def _run(program: _Program, seconds: float, free: int | None = None) -> tuple[Picked | None, bool]:
    """HiGHS' choice, if any, and whether it is proven (optimal, or that there is none)."""
    count = len(program.objective)
    upper: npt.NDArray[np.float64] = np.ones(count)
    if free is not None:
        upper[free] = np.inf
    objective = np.array(program.objective)
    largest = np.abs(objective).max()
    found = milp(
        objective * (_SPAN / largest if largest else 1.0),
        integrality=np.array(program.integral),
        bounds=Bounds(np.zeros(count) if free is None else _lower(count, free), upper),
        constraints=_constraints(program, count),
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    if found.x is None:
        return None, found.status == _INFEASIBLE
    picked = tuple(
        int(np.argmax(found.x[start : start + len(unit.options)]))
        for start, unit in zip(program.starts, program.problem.units, strict=True)
    )
    return picked, found.status == 0


def _lower(count: int, free: int) -> npt.NDArray[np.float64]:
    lower = np.zeros(count)
    lower[free] = -np.inf
    return lower


def _constraints(program: _Program, count: int) -> LinearConstraint:
    entries = [
        (row, column, value)
        for row, (terms, _, _) in enumerate(program.rows)
        for column, value in terms
    ]
    rows, columns, values = (np.array(each) for each in zip(*entries, strict=True))
    matrix = coo_array((values, (rows, columns)), shape=(len(program.rows), count)).tocsr()
    low, high = (np.array([row[side] for row in program.rows]) for side in (1, 2))
    return LinearConstraint(matrix, low, high)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"
