"""LINAS, improved: predictors learn from every measurement and steer an inner NSGA-II.

Sources: Cummings et al., "A Hardware-Aware Framework for Accelerating Neural Architecture Search
Across Modalities", arXiv:2205.10358, for the loop (`linas_plain.py`). What differs from it:

- genes of dropped blocks are masked: equal models are one candidate, with the same features;
- operators are categorical, not rounded real ones;
- nothing is asked for twice, and a batch is what adds most predicted hypervolume together;
- it begins with the task's seeds, and with candidates of all sizes of every kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgesmith.nas.predictors._features import at_least, logarithms
from edgesmith.nas.predictors._threads import one_thread
from edgesmith.nas.samplers._evolution import Evolution, categorical
from edgesmith.nas.samplers._inner import Pool, evolved
from edgesmith.nas.samplers._record import Record, seeds
from edgesmith.nas.samplers._surrogate import LEAST, Surrogate
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.space import Candidate, Floats
from edgesmith.nas.values import Proposal, Task

Count = Annotated[int, Field(ge=1)]
_LEAST_BATCH = 3
_SHARE = 5


@dataclass(frozen=True)
class Linas(Sampler):
    """Predictors learn from every measurement and steer an inner NSGA-II.

    Args:
        first: candidates that are measured before anything is predicted, the seeds among them.
        batch: candidates between two times of learning, at most; a fifth of what is known.
        explore: share of a batch that is random, rounded down: nothing while batches are small.
        population: of the inner search.
        predicted_evaluations: of each inner search.
        folds: of the cross-validation that chooses predictors.
    """

    name: ClassVar[str] = "linas"
    first: Count = 16
    batch: Count = 15
    explore: Annotated[float, Field(ge=0, le=1)] = 0.15
    population: Annotated[int, Field(ge=4)] = 100
    predicted_evaluations: Count = 5_000
    folds: Annotated[int, Field(ge=2)] = 5

    def run(self, task: Task, log: Log) -> Asking:
        record = Record(task)
        yield from record.ask(seeds(task))
        yield from self.continued(record, log)

    def continued(self, record: Record, log: Log) -> Asking:
        """Go on from what is known, until the record's evaluations are used up."""
        generator = np.random.default_rng([record.task.seed])
        drawn = record.of_all_sizes(self.first - len(record.asked), generator)
        yield from record.ask(Proposal(each, "first population") for each in drawn)
        while proposals := self._proposals(record, log, generator):
            yield from record.ask(proposals)

    def _proposals(
        self, record: Record, log: Log, generator: np.random.Generator
    ) -> list[Proposal]:
        # While little is known, predictors learn again soon.
        count = min(self.batch, max(len(record.measured) // _SHARE, _LEAST_BATCH), record.left)
        best: list[Candidate] = []
        if len(record.measured) >= LEAST and count:
            wanted = count - math.floor(self.explore * count)
            best = self._pool(record, log, generator).best(wanted, record.front())
        proposals = [Proposal(each, "predicted front") for each in best]
        drawn = record.drawn(count - len(best), generator, best)
        return proposals + [Proposal(each, "exploration") for each in drawn]

    def _pool(self, record: Record, log: Log, generator: np.random.Generator) -> Pool:
        """New candidates that the inner search came across."""
        task, space = record.task, record.task.space
        known = list(record.measured)
        features = Features(record, known)
        first = dict.fromkeys(record.best(self.population // 2))
        for _ in range(self.population - len(first)):
            first[space.drawn(generator)] = None
        evolution = Evolution(
            space,
            len(task.objectives),
            list(first),
            self.population,
            categorical(),
            int(generator.integers(1 << 31)),
        )
        with one_thread():
            computed = [record.computed(each) for each in known]
            learned = Surrogate.learned(
                task, features(known), list(record.measured.values()), computed, log, self.folds
            )
            return evolved(
                evolution,
                lambda asked: learned(features(asked), [record.computed(each) for each in asked]),
                self.predicted_evaluations,
            ).without(record.asked)


class Features:
    """Choices, and computed metrics in deviations of the known candidates: by magnitude, which
    accuracy follows, and as they are, since costs are close to sums of them.
    """

    def __init__(self, record: Record, known: Sequence[Candidate]) -> None:
        self._record = record
        self._names = sorted(record.computed(known[0]))
        computed = self._computed(known)
        self._mean = computed.mean(axis=0)
        deviation = computed.std(axis=0)
        self._deviation = np.where(deviation > 0, deviation, 1.0)

    def __call__(self, candidates: Sequence[Candidate]) -> Floats:
        """[candidates, features]."""
        computed = (self._computed(candidates) - self._mean) / self._deviation
        return np.hstack([at_least(self._record.task.space, candidates), computed])

    def _computed(self, candidates: Sequence[Candidate]) -> Floats:
        metrics = [self._record.computed(each) for each in candidates]
        values = np.array([[each[name] for name in self._names] for each in metrics])
        return np.hstack([logarithms(values), values])
