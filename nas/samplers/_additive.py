"""Metrics as sums over genes, and integer programs of them, solved by HiGHS.

    minimize    sum_v loss[v] x[v]
    subject to  sum_{v of gene} x[v] <= 1                            none: the gene's first choice
                sum_v cost[v] x[v] + sum_uv cost[u,v] y[u,v] <= limit
                y[u,v] <= x[u],  y[u,v] <= x[v],  y[u,v] >= x[u] + x[v] - 1
                x in {0, 1},  0 <= y <= 1

v is a choice of a gene other than its first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint
from scipy.sparse import coo_array

from edgesmith.nas.space import Candidate, Floats, Space
from edgesmith.quantize.allocation.highs import milp

Variable = tuple[int, int]
"""Place of a gene, and index of one of its choices, at least 1."""
Row = tuple[list[tuple[int, float]], float]
"""Columns and their coefficients, and what the sum is at most."""
_SAME = 1e-9
_NODES = 5_000
"""Where branching ends with the best so far: a limit of time would not repeat."""


def variables(space: Space) -> list[Variable]:
    """All choices but the first of each gene."""
    return [(place, index) for place, size in enumerate(space.sizes) for index in range(1, size)]


def row(space: Space, chosen: Sequence[Variable]) -> Candidate:
    """The candidate with these choices, and the first of all other genes."""
    indices = dict(chosen)
    return space.canonical([indices.get(place, 0) for place in range(len(space.genes))])


@dataclass(frozen=True, eq=False)
class Additive:
    """A metric: a constant, what each choice adds, and what pairs of them add beyond that.

    Args:
        single: [variables].
        pairs: places of two variables -> what both add together.
    """

    constant: float
    single: Floats
    pairs: Mapping[tuple[int, int], float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, space: Space, metric: Callable[[Sequence[Candidate]], Floats], pairs: bool
    ) -> Additive:
        """A metric of candidates, exact up to two choices, or up to one without `pairs`."""
        own = variables(space)
        constant = float(metric([row(space, ())])[0])
        single = metric([row(space, [each]) for each in own]) - constant
        if not pairs:
            return cls(constant, single)
        both = [
            (u, v) for u, v in itertools.combinations(range(len(own)), 2) if own[u][0] != own[v][0]
        ]
        if not both:
            return cls(constant, single)
        values = metric([row(space, [own[u], own[v]]) for u, v in both])
        beyond = values - constant - np.array([single[u] + single[v] for u, v in both])
        much = _SAME * max(float(np.abs(values).max()), 1e-300)
        found = {pair: float(b) for pair, b in zip(both, beyond, strict=True) if abs(b) > much}
        return cls(constant, single, found)

    def value(self, space: Space, candidate: Candidate) -> float:
        """Of a candidate, by the model."""
        own = enumerate(variables(space))
        on = [at for at, (place, index) in own if candidate[place] == index]
        both = sum(self.pairs.get(pair, 0.0) for pair in itertools.combinations(on, 2))
        return self.constant + float(self.single[on].sum()) + both

    def times(self, factor: float) -> Additive:
        """Every term times a factor."""
        pairs = {pair: factor * value for pair, value in self.pairs.items()}
        return Additive(factor * self.constant, factor * self.single, pairs)


def solved(
    space: Space, loss: Additive, limits: Sequence[tuple[Additive, float]]
) -> Candidate | None:
    """The candidate of least loss within the limits, by the models; None if none was found."""
    own = variables(space)
    products = sorted({pair for each in (loss, *(m for m, _ in limits)) for pair in each.pairs})
    column = {pair: len(own) + at for at, pair in enumerate(products)}
    rows = [*_choices(own), *_products(column)]
    for model, limit in limits:
        terms = _terms(model, column)
        scale = max((abs(value) for _, value in terms), default=0.0) or 1.0
        scaled = [(at, value / scale) for at, value in terms]
        rows.append((scaled, (limit - model.constant) / scale))
    objective = np.zeros(len(own) + len(products))
    for at, value in _terms(loss, column):
        objective[at] = value
    found = milp(
        objective / max(float(np.abs(objective).max()), 1e-300),
        integrality=np.arange(len(objective)) < len(own),
        bounds=Bounds(0.0, 1.0),
        constraints=_constraints(rows, len(objective)),
        options={"node_limit": _NODES, "mip_rel_gap": 1e-4},
    )
    if found.x is None:
        return None
    return row(space, [each for each, x in zip(own, found.x[: len(own)], strict=True) if x > 0.5])


def _choices(own: Sequence[Variable]) -> list[Row]:
    """One choice per gene at most."""
    places = dict.fromkeys(place for place, _ in own)
    return [([(at, 1.0) for at, (gene, _) in enumerate(own) if gene == p], 1.0) for p in places]


def _products(column: Mapping[tuple[int, int], int]) -> list[Row]:
    rows: list[Row] = []
    for (u, v), y in column.items():
        rows += [([(y, 1.0), (u, -1.0)], 0.0), ([(y, 1.0), (v, -1.0)], 0.0)]
        rows.append(([(u, 1.0), (v, 1.0), (y, -1.0)], 1.0))
    return rows


def _terms(model: Additive, column: Mapping[tuple[int, int], int]) -> list[tuple[int, float]]:
    pairs = [(column[pair], value) for pair, value in model.pairs.items()]
    return [*enumerate(model.single.tolist()), *pairs]


def _constraints(rows: Sequence[Row], columns: int) -> LinearConstraint:
    entries = [(r, c, value) for r, (terms, _) in enumerate(rows) for c, value in terms]
    at, to, values = (np.array(each) for each in zip(*entries, strict=True))
    matrix = coo_array((values, (at, to)), shape=(len(rows), columns)).tocsr()
    return LinearConstraint(matrix, -np.inf, np.array([limit for _, limit in rows]))
