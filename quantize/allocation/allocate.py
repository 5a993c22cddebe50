"""Bit allocation of a model in one call: sensitivities, costs, front, and the choice from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import AllocationError
from edgesmith.pipeline.stage import Progress, SilentProgress
from edgesmith.pipeline.values import Policy
from edgesmith.quantize.allocation.bisection import Bisection, bisect
from edgesmith.quantize.allocation.build import policy_of, problem_of, rules_of, uniform
from edgesmith.quantize.allocation.costs import WEIGHT_BYTES
from edgesmith.quantize.allocation.figure import figure
from edgesmith.quantize.allocation.front import Front, front, undominated
from edgesmith.quantize.allocation.milp import solve
from edgesmith.quantize.allocation.options import AllocationOptions
from edgesmith.quantize.allocation.problem import Choice, Problem, Solution
from edgesmith.quantize.allocation.target_costs import TargetCosts
from edgesmith.quantize.allocation.values import Accuracy, Figure
from edgesmith.quantize.options import Override
from edgesmith.quantize.sensitivity.measure import measure
from edgesmith.quantize.sensitivity.subject import Subject
from edgesmith.quantize.sensitivity.values import Sensitivities

Measure = Callable[[tuple[Override, ...]], Accuracy]
"""Quantizes with these rules and measures the accuracy of the result."""


@dataclass(frozen=True)
class Allocation:
    """Everything that an allocation found.

    Args:
        budget: resource -> limit, shares resolved.
        front: over one resource, within the budgets on all others.
        solution: the choice; `policy` and `overrides` are the same choice, ready to use.
        bisection: of the accuracy bound, where one was given.
    """

    sensitivities: Sensitivities
    costs: TargetCosts | None
    problem: Problem
    budget: dict[str, float]
    front: Front
    figure: Figure
    solution: Solution
    policy: Policy
    overrides: tuple[Override, ...]
    bisection: Bisection | None = None


def allocate(
    subject: Subject,
    options: AllocationOptions,
    *,
    costs: TargetCosts | None = None,
    labels: npt.NDArray[np.int64] | None = None,
    accuracy: Measure | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Allocation:
    """Choose formats for every group of a model.

    Args:
        costs: for a budget in a target's own cost.
        labels: [N] of the calibration inputs, for the loss `labels`.
        accuracy: needed for an accuracy bound, and to measure the front.

    Raises:
        AllocationError: accuracy is needed but cannot be measured, or a budget's resource or
            the formats that its share is of are not among those of the problem.
        UnreachableBudgetError, UnreachableAccuracyError: the budget or bound cannot be met.
    """
    shown = progress or SilentProgress()
    if accuracy is None and (options.least_accuracy_percent is not None or options.measure_front):
        raise AllocationError(
            "an accuracy bound or a measured front needs accuracy to be measured",
            fix="give `accuracy`, or leave out `least_accuracy_percent` and `measure_front`",
        )
    formats = options.weights, options.activations
    sensitivities = measure(
        subject, *formats, options.sensitivity, labels=labels, seed=seed, progress=shown
    )
    problem = problem_of(subject, sensitivities, costs)
    budget = resolved_budget(subject, problem, options)
    points = _front(problem, budget, options)
    allowed = _within(points, budget)
    chosen, search, known = len(allowed.solutions) - 1, None, _Known(subject, accuracy)
    if options.least_accuracy_percent is not None:
        bound, most = options.least_accuracy_percent, options.measurements
        search = bisect(allowed, bound, known.percent, most=most)
        search.require()
        chosen = search.chosen
    if options.measure_front:
        # The cheapest come first, so that positions among the allowed are those of the front.
        spread = spread_over(len(points.solutions), options.measure_front, chosen)
        for at in shown.track(spread, "accuracy of the front"):
            known.percent(points.solutions[at])
    solution = allowed.solutions[chosen]
    drawn = _figure(subject, problem, points, known, chosen)
    drawn = replace(drawn, budget=budget, method=options.sensitivity.method)
    if costs is not None:
        kinds = {str(costs.metric): costs.kind}
        drawn = replace(drawn, kinds=kinds, costs_of=costs.target)
    return Allocation(
        sensitivities,
        costs,
        problem,
        budget,
        points,
        drawn,
        solution,
        policy_of(subject, solution.choices),
        rules_of(subject, solution.choices),
        search,
    )


def spread_over(points: int, wanted: int | bool, always: int) -> tuple[int, ...]:
    """Positions of a front to measure: its ends, `always`, and others between them evenly.

    Args:
        wanted: how many, about; True for all of them.
    """
    if wanted is True or wanted >= points:
        return tuple(range(points))
    even = np.linspace(0, points - 1, max(int(wanted), 1)).round().astype(int)
    return tuple(sorted({always, *even.tolist()}))


def resolved_budget(
    subject: Subject, problem: Problem, options: AllocationOptions
) -> dict[str, float]:
    """Limits in the units of their resources; of a limit and a share, the lower one.

    Raises:
        AllocationError: the quantization's own formats are none of those to choose from, or the
            problem has no such resource.
    """
    budget: dict[str, float] = {name: limit for name, limit in options.budget.items()}  # noqa: C416
    if options.budget_share:
        totals = problem.costs(problem.picked(own_formats(subject, problem)))
        for name, part in options.budget_share.items():
            if name in totals:
                limit = part * totals[name]
                budget[name] = min(limit, budget.get(name, limit))
            else:
                budget[name] = part  # refused below
    problem.check(budget)
    return budget


def own_formats(subject: Subject, problem: Problem) -> dict[str, Choice]:
    """The quantization's own formats, for all groups."""
    several = any(option.choice.activation for unit in problem.units for option in unit.options)
    return uniform(
        problem, subject.options.weights, subject.options.activations if several else None
    )


def _front(problem: Problem, budget: dict[str, float], options: AllocationOptions) -> Front:
    """With the optimum within the budget as one of its points."""
    along: str = options.resource or next(iter([*budget, WEIGHT_BYTES]))
    best = solve(problem, budget, options.seconds)
    others = {name: limit for name, limit in budget.items() if name != along}
    found = front(problem, along, others, options.points, options.seconds)
    return replace(found, solutions=undominated((*found.solutions, best), along))


def _within(points: Front, budget: dict[str, float]) -> Front:
    limit = budget.get(points.resource, float("inf"))
    kept = (each for each in points.solutions if each.costs[points.resource] <= limit)
    return replace(points, solutions=tuple(kept), complete=False)


class _Known:
    """Measured accuracies, each choice once."""

    def __init__(self, subject: Subject, accuracy: Measure | None) -> None:
        self._subject, self._accuracy = subject, accuracy
        self._found: dict[tuple[tuple[str, Choice], ...], Accuracy] = {}

    def percent(self, solution: Solution) -> float:
        return self.measure(solution).percent

    def measure(self, solution: Solution) -> Accuracy:
        assert self._accuracy is not None
        choices = tuple(solution.choices.items())
        if choices not in self._found:
            self._found[choices] = self._accuracy(rules_of(self._subject, solution.choices))
        return self._found[choices]

    def get(self, solution: Solution) -> Accuracy | None:
        return self._found.get(tuple(solution.choices.items()))

    def measured(self) -> bool:
        return bool(self._found)


def _figure(
    subject: Subject, problem: Problem, points: Front, known: _Known, chosen: int
) -> Figure:
    beside = {}
    first = problem.units[0].options
    activations = dict.fromkeys(option.choice.activation for option in first)
    weights = dict.fromkeys(
        option.choice.weight
        for unit in problem.units
        for option in unit.options
        if option.choice.weight is not None
    )
    for weight in weights:
        for activation in activations:
            label = f"uniform {Choice(weight, activation)}"
            beside[label] = uniform(problem, weight, activation)
    found = {at: known.get(each) for at, each in enumerate(points.solutions)}
    return figure(
        subject,
        problem,
        points,
        accuracies={at: each for at, each in found.items() if each is not None},
        uniform=beside,
        measure=known.measure if known.measured() else None,
        chosen=chosen,
    )
