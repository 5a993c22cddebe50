"""Random small problems, and their solution by trying everything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
from hypothesis import strategies as st

from edgesmith.quantize.allocation.problem import (
    Choice,
    Option,
    Pair,
    Picked,
    Problem,
    Table,
    Tie,
    Unit,
)

RESOURCES = {"size": "bytes", "time": "cycles"}
WEIGHTS = ("int8", "int4", "int2")
ACTIVATIONS = ("int8", "int16")


def random_problem(seed: int, units: int, *, integral: bool = False) -> Problem:
    """Pairs between some units, requantization between neighbours, two tied units."""
    rng = np.random.default_rng(seed)

    def number() -> float:
        return float(rng.integers(0, 6) if integral else rng.exponential())

    def table(rows: int, columns: int) -> Table:
        sign = 1.0 if integral else float(rng.choice([-0.3, 1.0]))
        return tuple(tuple(sign * number() for _ in range(columns)) for _ in range(rows))

    made = []
    for place in range(units):
        count = int(rng.integers(1, 4))
        choices = itertools.product(WEIGHTS[:count], ACTIVATIONS)
        options = (
            Option(choice, number(), {name: number() for name in RESOURCES})
            for choice in (Choice(*each) for each in choices)
        )
        made.append(Unit(f"u{place}", tuple(options)))
    pairs = []
    for one, other in itertools.combinations(range(units), 2):
        shape = len(made[one].options), len(made[other].options)
        if rng.random() < 0.5:
            pairs.append(Pair(f"u{one}", f"u{other}", table(*shape)))
        if other == one + 1:
            edge = tuple(tuple(abs(v) for v in row) for row in table(*shape))
            pairs.append(Pair(f"u{one}", f"u{other}", None, {"time": edge}))
    ties = (Tie(("u0", f"u{units - 1}")),) if units > 2 else ()
    return Problem(tuple(made), tuple(pairs), ties, RESOURCES, {"size": number()})


def everything(problem: Problem, limits: Mapping[str, float]) -> Iterator[Picked]:
    """Every choice that ties and limits allow, found by trying all."""
    for picked in itertools.product(*(range(len(unit.options)) for unit in problem.units)):
        if problem.respects_ties(picked) and problem.within(picked, limits):
            yield picked


def problems(*, integral: bool = False) -> st.SearchStrategy[Problem]:
    return st.builds(
        lambda seed, units: random_problem(seed, units, integral=integral),
        st.integers(0, 10_000),
        st.integers(1, 4),
    )
