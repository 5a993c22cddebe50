"""NSGA-II on measurements, without any predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgesmith.nas.samplers._evolution import Evolution, categorical
from edgesmith.nas.samplers._record import Record, seeds
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.space import Candidate, Floats
from edgesmith.nas.values import Proposal, Task

_PATIENCE = 20
"""Generations in a row without a new candidate, before random ones are asked for."""
_FAILED = 1e6


@dataclass(frozen=True)
class Nsga2(Sampler):
    """Offspring that are known already, or exceed a limit by a computed metric, cost no evaluation.

    Args:
        population: and offspring per generation.
        seeded: begin with the task's seeds.
    """

    name: ClassVar[str] = "nsga2"
    population: Annotated[int, Field(ge=4)] = 50
    seeded: bool = True

    def run(self, task: Task, log: Log) -> Asking:
        record, generator = Record(task), np.random.default_rng([task.seed])
        proposals = seeds(task)[: self.population] if self.seeded else []
        yield from record.ask(proposals)
        drawn = record.drawn(max(self.population - len(proposals), 0), generator)
        yield from record.ask(Proposal(each, "first population") for each in drawn)
        first = [*(each.candidate for each in proposals), *drawn]
        if not first:
            return
        evolution = Evolution(
            task.space,
            len(task.objectives),
            first,
            self.population,
            categorical(),
            int(generator.integers(1 << 31)),
        )
        idle = 0
        while record.left:
            offspring = evolution.ask()
            new = [each for each in offspring if each not in record.asked]
            fit = [each for each in new if record.excess(each) <= 0]
            origin, idle = "offspring", 0 if fit else idle + 1
            if not offspring or idle > _PATIENCE:
                offspring = fit = record.drawn(self.population, generator)
                origin, idle = "random: no new offspring", 0
            if not offspring:
                return
            yield from record.ask(Proposal(each, origin) for each in fit)
            evolution.tell(offspring, *_results(record, offspring))


def _results(record: Record, candidates: Sequence[Candidate]) -> tuple[Floats, Floats]:
    """Losses [N, K] and violations [N]; what was not measured is infeasible by what is known."""
    losses = np.zeros((len(candidates), len(record.task.objectives)))
    violations = np.empty(len(candidates))
    for at, each in enumerate(candidates):
        metrics = record.measured.get(each)
        if metrics is None:
            violations[at] = _FAILED if each in record.asked else record.excess(each)
        else:
            losses[at] = record.task.losses(metrics)
            violations[at] = record.task.violation(metrics)
    return losses, violations
