"""What a report draws of an allocation: loss and accuracy over size, operations and latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgesmith.quantize.allocation.build import policy_of
from edgesmith.quantize.allocation.front import Front
from edgesmith.quantize.allocation.problem import Choice, Problem, Solution
from edgesmith.quantize.sensitivity.subject import Subject


@dataclass(frozen=True)
class Accuracy:
    """Percent of correct predictions of the quantized module, measured."""

    percent: float
    samples: int
    split: str


@dataclass(frozen=True)
class Point:
    """One policy.

    Args:
        label: `uniform int8`, or its number in the front.
        loss: predicted rise of the loss.
        costs: total per resource.
        weight_bits: layer -> bits per weight.
        activation_bits: group -> bits; empty where there was one activation format.
        accuracy: None where it was not measured.
    """

    label: str
    loss: float
    costs: dict[str, float]
    weight_bits: dict[str, int]
    activation_bits: dict[str, int]
    accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Figure:
    """A front and the uniform policies beside it.

    Args:
        resource: what the front trades for loss.
        units: of every resource.
        chosen: label of the policy that the run goes on with; empty where none is.
    """

    resource: str
    units: dict[str, str]
    loss_unit: str
    front: tuple[Point, ...]
    uniform: tuple[Point, ...]
    chosen: str = ""


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
