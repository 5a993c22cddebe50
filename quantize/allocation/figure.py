"""What a report draws of an allocation: loss and accuracy over size, operations and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgesmith.quantize.allocation.build import policy_of
from edgesmith.quantize.allocation.front import Front
from edgesmith.quantize.allocation.problem import Choice, Problem, Solution
from edgesmith.quantize.allocation.values import Accuracy, Figure, Point
from edgesmith.quantize.sensitivity.subject import Subject


def figure(
    subject: Subject,
    problem: Problem,
    front: Front,
    *,
    accuracies: Mapping[int, Accuracy] | None = None,
    uniform: Mapping[str, Mapping[str, Choice]] | None = None,
    measure: Callable[[Solution], Accuracy] | None = None,
    chosen: int | None = None,
) -> Figure:
    """The plot data of a front.

    Args:
        accuracies: position in the front -> measured accuracy.
        uniform: label -> choices of policies to draw beside the front.
        measure: measures the uniform policies.
        chosen: position in the front.
    """
    known = accuracies or {}
    points = tuple(
        _point(subject, f"front {at}", solution, known.get(at))
        for at, solution in enumerate(front.solutions)
    )
    beside = []
    for label, choices in (uniform or {}).items():
        picked = problem.picked(choices)
        solution = Solution.of(problem, picked, optimal=False, method="uniform")
        beside.append(
            _point(subject, label, solution, None if measure is None else measure(solution))
        )
    return Figure(
        front.resource,
        dict(problem.resources),
        problem.loss_unit,
        points,
        tuple(beside),
        "" if chosen is None else f"front {chosen}",
    )


def _point(subject: Subject, label: str, solution: Solution, accuracy: Accuracy | None) -> Point:
    policy = policy_of(subject, solution.choices)
    chosen = {name for name, each in solution.choices.items() if each.activation is not None}
    return Point(
        label,
        solution.loss,
        solution.costs,
        {n: g.weight.bits for n, g in policy.groups.items() if g.weight is not None},
        {name: policy.groups[name].activation.bits for name in sorted(chosen)},
        accuracy,
    )
