"""The loop of LINAS as published, which `linas.py` improves: a baseline of its benchmark. Its
predictors are those of `linas.py`, so that what is compared is the loop.

Source: Cummings et al., "A Hardware-Aware Framework for Accelerating Neural Architecture Search
Across Modalities", arXiv:2205.10358: a random population; then, again and again, predictors are
fitted to all measurements, NSGA-II runs on them, and its last population is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgesmith.nas.predictors._threads import one_thread
from edgesmith.nas.samplers._evolution import Evolution, rounded
from edgesmith.nas.samplers._inner import evolved
from edgesmith.nas.samplers._record import Record
from edgesmith.nas.samplers._surrogate import LEAST, Surrogate
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.space import Candidate
from edgesmith.nas.values import Proposal, Task


@dataclass(frozen=True)
class PlainLinas(Sampler):
    """Genes of dropped blocks count like others, and indices like numbers.

    Members of the last population that are equal, or measured already, are not measured again;
    random candidates take their place.

    Args:
        population: measured at a time, and that of the inner search.
        predicted_evaluations: of each inner search.
        folds: of the cross-validation that chooses predictors.
    """

    name: ClassVar[str] = "linas-plain"
    population: Annotated[int, Field(ge=4)] = 50
    predicted_evaluations: Annotated[int, Field(ge=1)] = 10_000
    folds: Annotated[int, Field(ge=2)] = 5

    def run(self, task: Task, log: Log) -> Asking:
        record, generator = Record(task), np.random.default_rng([task.seed])
        unmasked = replace(task.space, moot=())
        genomes = {}
        population = [unmasked.drawn(generator) for _ in range(self.population)]
        while record.left:
            named = {task.space.canonical(each): each for each in reversed(population)}
            new = [each for each in reversed(named) if each not in record.asked]
            drawn = record.drawn(self.population - len(new), generator, new)
            if not new and not drawn:
                return
            genomes.update({each: named.get(each, each) for each in (*new, *drawn)})
            yield from record.ask(Proposal(each, "predicted population") for each in new)
            yield from record.ask(Proposal(each, "random") for each in drawn)
            if record.left:
                population = self._evolved(record, genomes, log, generator)

    def _evolved(
        self,
        record: Record,
        genomes: dict[Candidate, Candidate],
        log: Log,
        generator: np.random.Generator,
    ) -> list[Candidate]:
        """The last population of an inner search that begins with the best measured genomes.

        Args:
            genomes: by candidate, as they were before their inactive genes became 0.
        """
        task = record.task
        if len(record.measured) < LEAST:
            return []
        unmasked = replace(task.space, moot=())
        evolution = Evolution(
            unmasked,
            len(task.objectives),
            [genomes[each] for each in record.best(self.population)],
            self.population,
            rounded(),
            int(generator.integers(1 << 31)),
        )
        with one_thread():
            learned = Surrogate.learned(
                task,
                unmasked.one_hot([genomes[each] for each in record.measured]),
                list(record.measured.values()),
                [record.computed(each) for each in record.measured],
                log,
                self.folds,
            )
            evolved(
                evolution,
                lambda asked: learned(
                    unmasked.one_hot(asked),
                    [record.computed(task.space.canonical(each)) for each in asked],
                ),
                self.predicted_evaluations,
            )
        return evolution.population
