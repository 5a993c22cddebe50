"""The inner search of LINAS: NSGA-II on predictors, of which every candidate is kept."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np

from edgesmith.nas.front import improving, ranked
from edgesmith.nas.samplers._evolution import Evolution
from edgesmith.nas.space import Candidate, Floats

Predict = Callable[[Sequence[Candidate]], tuple[Floats, Floats]]
"""Candidates -> losses [N, K] and violations [N]."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Predicted candidates, all different.

    Args:
        losses: [N, K].
        violations: [N].
    """

    candidates: list[Candidate]
    losses: Floats
    violations: Floats

    def without(self, candidates: Container[Candidate]) -> Pool:
        """The others."""
        rows = [row for row, each in enumerate(self.candidates) if each not in candidates]
        return Pool([self.candidates[at] for at in rows], self.losses[rows], self.violations[rows])

    def best(self, count: int, known: Floats) -> list[Candidate]:
        """Those that add most hypervolume to the known front [M, K]; then the rest of the best."""
        feasible = np.flatnonzero(self.violations <= 0)
        first = feasible[improving(self.losses[feasible], known, count)]
        others = np.setdiff1d(np.arange(len(self.candidates)), first)
        wanted = count - len(first)
        then = others[ranked(self.losses[others], self.violations[others], wanted)]
        return [self.candidates[at] for at in (*first, *then[:wanted])]


def evolved(evolution: Evolution, predict: Predict, evaluations: int) -> Pool:
    """What an evolution comes across in so many predicted evaluations, or until it ends."""
    candidates: list[Candidate] = []
    losses, violations = [], []
    while len(candidates) < evaluations and (asked := evolution.ask()):
        found, beyond = predict(asked)
        evolution.tell(asked, found, beyond)
        candidates += asked
        losses.append(found)
        violations.append(beyond)
    rows = list({each: row for row, each in enumerate(candidates)}.values())
    return Pool(
        [candidates[row] for row in rows], np.vstack(losses)[rows], np.concatenate(violations)[rows]
    )
