"""Bisection to an accuracy bound: few measurements, noise, and the best so far."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.errors import UnreachableAccuracyError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.quantize.allocation.bisection import Bisection, Trial, bisect
from edgesmith.quantize.allocation.front import Front
from edgesmith.quantize.allocation.problem import Choice, Solution


def front_of(count: int) -> Front:
    solutions = tuple(
        Solution({"a": Choice(f"int{at}")}, float(count - at), {"size": float(at)}, True, "milp")
        for at in range(count)
    )
    return Front("size", "bytes", "nats", solutions, complete=True)


def measured(accuracies: list[float]) -> tuple[list[int], Bisection]:
    order: list[int] = []

    def evaluate(solution: Solution) -> float:
        order.append(int(solution.costs["size"]))
        return accuracies[order[-1]]

    return order, bisect(front_of(len(accuracies)), 0.5, evaluate, most=len(accuracies))


@given(st.integers(0, 40), st.integers(1, 40))
def test_the_cheapest_point_that_passes_is_found_in_few_measurements(first: int, more: int) -> None:
    count = first + more
    order, found = measured([float(at >= first) for at in range(count)])
    assert found.met
    assert found.chosen == first
    assert found.accuracy == 1.0
    assert len(order) == len(set(order)) <= math.ceil(math.log2(count + 1)) + 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_with_noise_the_choice_is_the_cheapest_measured_point_that_passes(
    accuracies: list[float],
) -> None:
    order, found = measured(accuracies)
    assert order == [trial.point for trial in found.trials]
    passing = [point for point in order if accuracies[point] >= 0.5]
    assert found.met == bool(passing)
    best = max(accuracies[point] for point in order)
    assert found.chosen == min(passing or [p for p in order if accuracies[p] == best])
    assert from_json(Bisection, to_json(found)) == found


def test_a_cheaper_point_that_passes_takes_the_place_of_one_that_fails() -> None:
    _, found = measured([0.0, 0.0, 0.9, 0.4, 0.9, 0.9, 0.9])
    assert found.chosen == 2


def test_a_bound_out_of_reach_names_the_best_measured_accuracy() -> None:
    _, found = measured([0.1, 0.2, 0.3])
    assert not found.met
    assert found.chosen == 2
    with pytest.raises(UnreachableAccuracyError, match=r"the best one, number 2.*has 0.3"):
        found.require()


def test_out_of_measurements_the_best_so_far_is_kept() -> None:
    seen: list[Trial] = []
    found = bisect(front_of(64), 0.5, lambda s: s.costs["size"] / 64, most=3, seen=seen.append)
    assert tuple(seen) == found.trials
    assert len(seen) == 3
    assert found.met
    assert found.chosen == min(each.point for each in seen if each.accuracy >= 0.5)
    found.require()
