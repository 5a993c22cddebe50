"""NSGA-II on candidates: choices have no order unless operators say so."""

from __future__ import annotations

import numpy as np
import pytest

from edgesmith.nas.samplers._evolution import Evolution, Operators, categorical, rounded
from edgesmith.nas.space import Candidate, Gene, Moot, Space

NINE = tuple(f"f{at}" for at in range(9))
WIDE = Space(
    (*(Gene(f"format:{n}", NINE) for n in range(20)), Gene("width", tuple(range(400, 0, -1))))
)
"""The width only tells candidates apart: equal ones count once."""
MOOT = Space(
    (Gene("depth:a", (1, 0)), Gene("width:a", (8, 4, 2)), Gene("width:b", (8, 4, 2))),
    (Moot("depth:a", 0, ("width:a",)),),
)


def offspring(space: Space, first: list[Candidate], operators: Operators) -> list[Candidate]:
    """Of one generation in which all are alike."""
    evolution = Evolution(space, 2, first, len(first), operators, seed=1)
    asked = evolution.ask()
    assert asked == first
    losses = np.tile([0.5, 0.5], (len(asked), 1))
    evolution.tell(asked, losses, np.zeros(len(asked)))
    return evolution.ask()


def test_categorical_offspring_have_the_choices_of_their_parents() -> None:
    """The mean of two formats is no format; one gene of each is drawn anew, from all choices."""
    drawn = 8 * np.random.default_rng(0).integers(0, 2, (400, 20))
    first = [(*row, at) for at, row in enumerate(drawn.tolist())]
    among: dict[str, list[int]] = {}
    for name, operators in (("categorical", categorical()), ("rounded", rounded())):
        genes = np.array(offspring(WIDE, first, operators))[:, :20]
        among[name] = np.bincount(genes.ravel(), minlength=9)[1:8].tolist()
    # Of a gene's 9 choices one in 9 changes nothing; 7 of the others are those of no parent.
    expected = 400 * 20 / 21 * 7 / 8
    assert sum(among["categorical"]) == pytest.approx(expected, rel=0.15)
    assert min(among["categorical"]) > 0.4 * max(among["categorical"])
    assert sum(among["rounded"]) > 3 * expected


def test_offspring_are_canonical() -> None:
    first: list[Candidate] = [(0, 1, 0), (0, 2, 1), (1, 0, 2), (0, 0, 1)]
    children = offspring(MOOT, first, categorical())
    assert children
    assert all(each == MOOT.canonical(each) for each in children)
