"""Allocations that are tried: each within the cost, none twice, the best one kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.prune.costs import MacCosts, macs
from edgesmith.prune.options import Trials
from edgesmith.prune.selection import Choice, Limits, Selection
from edgesmith.prune.structure import structure_of
from edgesmith.prune.trials import PRICES, best_allocation
from tests.prune.nets import make

POSITIVE = st.floats(1e-3, 1e3)


@pytest.fixture(scope="module")
def selection() -> Selection:
    model, shape = make("residual")
    structure = structure_of(model, shape)
    assert len(structure.groups) > 2
    rng = np.random.default_rng(1)
    scores = {g.name: rng.random(len(g.units)) * (i + 1) for i, g in enumerate(structure.groups)}
    return Selection(model, structure, scores, MacCosts(shape, "none"), Limits(2))


@pytest.fixture(scope="module")
def goal() -> float:
    return 0.5 * macs(*make("residual"))


@pytest.mark.parametrize("candidates", [2, 4, 7])
def test_the_best_of_as_many_as_were_asked_for(
    candidates: int, selection: Selection, goal: float
) -> None:
    seen: list[Choice] = []

    def accuracy(choice: Choice) -> float:
        seen.append(choice)
        return float(choice.rung[min(choice.rung)])

    found = best_allocation(selection, goal, accuracy, Trials(candidates), seed=0)
    assert len(seen) == len(found.accuracies) == candidates
    assert len({repr(each.plan) for each in seen}) == candidates
    assert all(each.cost.value <= goal for each in seen)
    assert seen[0].plan == selection.reach(goal).plan
    assert found.accuracies[seen.index(found.choice)] == max(found.accuracies)


def test_the_same_seed_tries_the_same(selection: Selection, goal: float) -> None:
    def plans(seed: int) -> list[Choice]:
        seen: list[Choice] = []

        def accuracy(choice: Choice) -> float:
            seen.append(choice)
            return choice.cost.value

        best_allocation(selection, goal, accuracy, Trials(8), seed=seed)
        return seen

    assert plans(0) == plans(0)
    assert plans(0)[0] == plans(1)[0]
    assert plans(0) != plans(1)


def test_trials_end_where_there_is_nothing_else_to_try(selection: Selection) -> None:
    """Of the cheapest form no neighbour costs as little."""
    floor = selection.cheapest().cost.value
    found = best_allocation(selection, floor, lambda choice: 1.0, Trials(20), seed=0)
    assert len(found.accuracies) == 1


@given(before=POSITIVE, kept=st.floats(0.01, 1), whole=POSITIVE)
def test_prices_are_losses(before: float, kept: float, whole: float) -> None:
    """Never negative, nothing for nothing, and more for more."""
    for price in PRICES:
        assert price(before, before, whole) == 0
        assert price(before, kept * before, whole) >= 0
        assert price(before, kept * before / 2, whole) > price(before, kept * before, whole)
        assert math.isfinite(price(before, 0.0, whole))
        assert price(0.0, 0.0, whole) == 0
