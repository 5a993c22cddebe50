"""Fronts against brute force and volumes against counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgesmith.nas.front import (
    hypervolume,
    hypervolume_curve,
    improving,
    knee,
    nondominated,
    ranked,
    spread,
)
from edgesmith.nas.space import Floats

FEW = settings(max_examples=80, deadline=None)
LOSSES = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(0, 5).map(float))
)


def dominates(one: Floats, other: Floats) -> bool:
    return bool((one <= other).all() and (one < other).any())


@FEW
@given(LOSSES)
def test_nondominated_rows_are_those_of_the_definition(losses: Floats) -> None:
    found = nondominated(losses).tolist()
    assert found == [
        at for at, row in enumerate(losses) if not any(dominates(other, row) for other in losses)
    ]


@FEW
@given(LOSSES, st.integers(0, 99))
def test_ranking_puts_feasibility_first(losses: Floats, seed: int) -> None:
    violations = np.random.default_rng(seed).choice([0.0, 0.0, 0.5, 1.0], len(losses))
    order = ranked(losses, violations)
    assert sorted(order) == list(range(len(losses)))
    assert (np.diff(violations[order]) >= 0).all()
    for at, better in enumerate(order):
        for worse in order[at + 1 :]:
            if violations[better] == 0 == violations[worse]:
                assert not dominates(losses[worse], losses[better])
    assert len(ranked(losses, violations, 3)) == min(3, len(losses))


@FEW
@given(LOSSES)
def test_hypervolume_is_the_share_of_cells_that_are_dominated(losses: Floats) -> None:
    """Losses are integers, so each cell of the grid is dominated as a whole or not at all."""
    count = losses.shape[1]
    cells = np.stack(np.meshgrid(*[np.arange(4)] * count, indexing="ij"), -1).reshape(-1, count)
    reached = (losses[None, :, :] - 1 <= cells[:, None, :]).all(axis=2)
    share = float(np.mean(reached.max(axis=1)))
    assert hypervolume(losses, [1.0] * count, [5.0] * count) == pytest.approx(share)


@FEW
@given(LOSSES, st.integers(0, 99))
def test_the_curve_is_the_hypervolume_of_every_prefix(losses: Floats, seed: int) -> None:
    violations = np.random.default_rng(seed).choice([0.0, 0.3, np.inf], len(losses))
    ideal, nadir = [0.0] * losses.shape[1], [5.0] * losses.shape[1]
    expected = [
        hypervolume(losses[: n + 1][violations[: n + 1] == 0], ideal, nadir)
        for n in range(len(losses))
    ]
    assert hypervolume_curve(losses, violations, ideal, nadir) == pytest.approx(expected)


def test_a_side_without_length_is_reached_at_its_end() -> None:
    assert hypervolume(np.array([[1.0, 2.0]]), [0.0, 2.0], [2.0, 2.0]) == 0.5
    assert hypervolume(np.array([[1.0, 2.1]]), [0.0, 2.0], [2.0, 2.0]) == 0.0
    assert hypervolume(np.empty((0, 2)), [0.0, 0.0], [1.0, 1.0]) == 0.0


def test_the_knee_is_farthest_below_the_chord() -> None:
    front = np.array([[0.0, 10.0], [1.0, 3.0], [2.0, 2.5], [10.0, 0.0]])
    assert knee(front) == 1
    assert knee(front * [1.0, 1e6]) == 1
    assert knee(front[[0, 3]]) == 0
    with pytest.raises(ValueError, match="an empty front has no knee"):
        knee(front[:0])


def test_spread_takes_the_ends_and_then_what_is_farthest() -> None:
    front = np.stack([np.arange(11.0), 10 - np.arange(11.0)], axis=1)
    assert spread(front, 3).tolist() == [0, 10, 5]
    assert spread(front, 1).tolist() == [0]
    assert sorted(spread(front, 99)) == list(range(11))
    assert spread(front, 0).tolist() == []


def test_improving_rows_are_those_that_add_most_together() -> None:
    known = np.array([[0.0, 10.0], [10.0, 0.0]])
    twins = np.array([[4.0, 4.0], [4.0, 4.0], [9.0, 9.0], [1.0, 8.0], [0.0, 10.0]])
    assert improving(twins, known, 5).tolist() == [0, 3]
    assert improving(twins, known, 1).tolist() == [0]
    assert improving(twins, known[:0], 1).tolist() == [3]
    assert improving(twins[:0], known, 1).tolist() == []
