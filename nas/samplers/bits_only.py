"""Formats only, by integer programs: the baseline without any choice of architecture.

As HAWQ-V3 (Yao et al., arXiv:2011.10680) allocates bits, with measured effects in place of
Hessians: first each change of one format alone, then programs on the sums of what was learned.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgesmith.nas.predictors._threads import one_thread
from edgesmith.nas.predictors.ridge import Ridge
from edgesmith.nas.samplers._additive import Additive, solved
from edgesmith.nas.samplers._record import Record, metrics_of
from edgesmith.nas.samplers._subspace import Subspace, format_genes
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.space import Candidate, Floats, neighbours
from edgesmith.nas.values import Proposal, Task

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class BitsOnly(Sampler):
    """The trained model's architecture; measured metrics as sums over formats, computed ones exact.

    Each program has the least of the first objective within a budget of another one. After each
    round the sums are learned anew, and budgets lie elsewhere. Where programs find little that is
    new, the round is filled with what lies one format beside the front.

    Args:
        budgets: programs per round and objective, spread evenly; and candidates per round.
    """

    name: ClassVar[str] = "bits-only"
    budgets: Annotated[int, Field(ge=1)] = 12

    def run(self, task: Task, log: Log) -> Asking:
        outer = Record(task)
        base = task.space.canonical([0] * len(task.space.genes))
        part = Subspace(task.space, base, tuple(format_genes(task.space)))
        inner = part.record(outer, task.evaluations, task.seed)
        yield from part.relayed(self._searched(inner), outer)

    def _searched(self, record: Record) -> Asking:
        space, generator = record.task.space, np.random.default_rng([record.task.seed])
        widest = space.canonical([0] * len(space.genes))
        yield from record.ask([Proposal(widest, "widest formats")])
        single = list(neighbours(space, widest))
        yield from record.ask(Proposal(each, "one format changed") for each in single)
        programs = _Programs(record) if single else None
        number = 0
        while record.left:
            found: list[Candidate] = []
            if programs is not None and len(record.measured) >= 2:
                offset = (number * _GOLDEN) % 1
                found = programs.solutions((np.arange(self.budgets) + offset) / self.budgets)
            new = [each for each in found if each not in record.asked][: self.budgets]
            near = _beside(record, self.budgets - len(new), generator, new)
            drawn = record.drawn(self.budgets - len(new) - len(near), generator, [*new, *near])
            if not new and not near and not drawn:
                return
            yield from record.ask(Proposal(each, "integer program") for each in new)
            yield from record.ask(Proposal(each, "beside the front") for each in near)
            yield from record.ask(Proposal(each, "random") for each in drawn)
            number += 1


def _beside(
    record: Record, count: int, generator: np.random.Generator, taken: Collection[Candidate]
) -> list[Candidate]:
    """New candidates that differ in one format from the best that were measured."""
    best = record.best(2 * count) if record.measured else []
    found = {other: None for each in best for other in neighbours(record.task.space, each)}
    new = [each for each in found if each not in record.asked and each not in taken]
    return [new[at] for at in generator.permutation(len(new))[:count]]


class _Programs:
    """Integer programs of one search, of what is known by now."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._task = record.task
        computed = record.computed(next(iter(record.asked)))
        self._exact = {
            name: self._of_computed(name) for name in metrics_of(self._task) if name in computed
        }

    def solutions(self, shares: Floats) -> list[Candidate]:
        """For budgets of each objective but the first, at these shares of the way from the least
        that there is to the most that was measured.
        """
        learned = [name for name in metrics_of(self._task) if name not in self._exact]
        models = self._exact | {name: self._learned(name) for name in learned}
        limits = [
            (models[each.metric].times(sign), sign * each.limit)
            for each in self._task.constraints
            for sign in [1.0 if each.bound == "most" else -1.0]
        ]
        losses = [
            models[each.metric].times(1.0 if each.better == "lower" else -1.0)
            for each in self._task.objectives
        ]
        space, (first, *others) = self._task.space, losses
        found = [] if others else [solved(space, first, limits)]
        for other, high in zip(others, self._record.losses().max(axis=0)[1:], strict=True):
            least = solved(space, other, limits)
            if least is not None:
                low = other.value(space, least)
                budgets = (low + shares * (high - low)).tolist()
                found += [solved(space, first, [*limits, (other, each)]) for each in budgets]
        return list(dict.fromkeys(each for each in found if each is not None))

    def _of_computed(self, name: str) -> Additive:
        def values(candidates: Sequence[Candidate]) -> Floats:
            return np.array([self._task.computed(each)[name] for each in candidates])

        return Additive.of(self._task.space, values, pairs=True)

    def _learned(self, name: str) -> Additive:
        space, measured = self._task.space, self._record.measured
        values = np.array([metrics[name] for metrics in measured.values()])
        with one_thread():
            fitted = Ridge().fit(space.one_hot(list(measured)), values)
            return Additive.of(space, lambda c: fitted.predict(space.one_hot(c)), pairs=False)
