"""What predictors see of a candidate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgesmith.nas.space import Candidate, Floats, Space


def at_least(space: Space, candidates: Sequence[Candidate]) -> Floats:
    """[N, sum of choices]: 1 at a gene's choice and at all that come before it.

    Choices are ordered, so those that are near share features and a few measurements tell about
    all of them: a thermometer code, of the same length as one-hot and as expressive. Inactive genes
    are all 0; the first choice's column tells that a gene is active.
    """
    rows = space.one_hot(candidates)
    for start, size in zip(np.cumsum([0, *space.sizes]), space.sizes, strict=False):
        gene = rows[:, start : start + size]
        gene[:] = gene[:, ::-1].cumsum(axis=1)[:, ::-1]
    return rows


def logarithms(metrics: Floats) -> Floats:
    """Metrics [N, M] by magnitude; their sign stays."""
    return np.sign(metrics) * np.log1p(np.abs(metrics))
