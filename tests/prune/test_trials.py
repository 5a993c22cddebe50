"""Allocations that are tried: each within the cost, none twice, the best one kept."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgesmith.prune.costs import MacCosts, macs
from edgesmith.prune.options import Trials
from edgesmith.prune.selection import Choice, Limits, Selection
from edgesmith.prune.structure import structure_of
from edgesmith.prune.trials import PRICES, best_allocation, share_lost
from edgesmith.prune.values import Structure
from tests.prune.nets import make

POSITIVE = st.floats(1e-3, 1e3)


def made(structure: Structure, model: nn.Module, shape: tuple[int, ...]) -> Selection:
    assert len(structure.groups) > 2
    rng = np.random.default_rng(1)
    scores = {g.name: rng.random(len(g.units)) * (i + 1) for i, g in enumerate(structure.groups)}
    return Selection(model, structure, scores, MacCosts(shape, "none"), Limits(2))


@pytest.fixture(scope="module")
def selection() -> Selection:
    model, shape = make("residual")
    return made(structure_of(model, shape), model, shape)


@pytest.fixture(scope="module")
def channels() -> Selection:
    """Of the same network, all of whose blocks stay."""
    model, shape = make("residual")
    return made(replace(structure_of(model, shape), blocks=()), model, shape)


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


def test_trials_end_where_there_is_nothing_else_to_try(channels: Selection) -> None:
    """Of the cheapest form no neighbour costs as little."""
    floor = channels.cheapest().cost.value
    found = best_allocation(channels, floor, lambda choice: 1.0, Trials(20), seed=0)
    assert len(found.accuracies) == 1


def test_a_neighbour_is_wider_in_one_group_and_within_the_cost(
    selection: Selection, goal: float
) -> None:
    start = selection.reach(goal)
    found = [
        selection.near(start, goal, np.random.default_rng(seed), share_lost) for seed in range(20)
    ]
    for each in found:
        if each is not None:
            assert each.cost.value <= goal
            assert any(at < start.rung[name] for name, at in each.rung.items())
    assert any(each is not None and each.rung != start.rung for each in found)


def test_a_neighbour_does_not_depend_on_what_was_asked_before(
    selection: Selection, goal: float
) -> None:
    start = selection.reach(goal)
    found = []
    for price in PRICES:
        selection.reach(goal, price=price)
        found.append(selection.near(start, goal, np.random.default_rng(4), share_lost))
    assert all(each == found[0] for each in found)


def test_the_whole_model_has_no_wider_neighbour(selection: Selection, goal: float) -> None:
    whole = selection.reach(2 * goal)
    assert not any(whole.rung.values())
    assert selection.near(whole, goal, np.random.default_rng(0), share_lost) is None


@given(gone=POSITIVE, stays=POSITIVE, whole=POSITIVE)
def test_prices_are_losses(gone: float, stays: float, whole: float) -> None:
    """Never negative, nothing for nothing, more for more, and finite where nothing stays."""
    for price in PRICES:
        assert price(0.0, stays, whole) == 0
        assert price(gone, stays, whole) >= 0
        assert price(2 * gone, stays, whole) > price(gone, stays, whole)
        assert math.isfinite(price(gone, 0.0, whole))
        assert price(0.0, 0.0, whole) == 0
