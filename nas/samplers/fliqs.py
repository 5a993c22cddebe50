"""FLIQS' controller: a policy of independent choices, learned from rewards.

Source: Dotzel et al., "FLIQS: One-Shot Mixed-Precision Floating-Point and Integer Quantization
Search", arXiv:2308.03290. There the weights are trained at the same time and the policy takes a
hundred thousand steps; here they are those of a trained super-network and steps are evaluations,
so that the policy learns faster and from standardized advantages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgesmith.nas.controller import Controller
from edgesmith.nas.samplers._record import Record
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.space import Candidate, Floats
from edgesmith.nas.values import ACCURACY, Proposal, Task

Share = Annotated[float, Field(gt=0, le=1)]
_TINY = 1e-8
_FRUITLESS = 10
"""Steps in a row without a new candidate, after which a policy has decided."""


@dataclass(frozen=True)
class Fliqs(Sampler):
    """A policy for each target, one after the other; each ends by asking for its argmax.

    The reward is the first objective's gain, of accuracy as a share, less `beta` * |1 -
    cost/target|, where the cost is the second objective. With one objective there is one policy and
    no cost.

    Args:
        targets: shares of the trained model's cost; of the largest that is known if that has none.
        beta: weight of missing the target.
        batch: samples per step.
        rate: of Adam.
        average: how much of the mean reward stays at each step.
        entropy: its weight at the end; from 0 it rises by a half cosine.
    """

    name: ClassVar[str] = "fliqs"
    targets: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.1, 0.25, 0.5)
    beta: Annotated[float, Field(ge=0)] = 1.0
    batch: Annotated[int, Field(ge=1)] = 5
    rate: Annotated[float, Field(gt=0)] = 0.2
    average: Annotated[float, Field(ge=0, lt=1)] = 0.9
    entropy: Annotated[float, Field(ge=0)] = 0.5

    def run(self, task: Task, log: Log) -> Asking:
        record, generator = Record(task), np.random.default_rng([task.seed])
        yield from record.ask([Proposal(_whole(task), "trained model")])
        targets = self.targets if len(task.objectives) > 1 else self.targets[:1]
        for number, target in enumerate(targets):
            share = record.left // (len(targets) - number)
            yield from self._learned(record, target, share, generator)

    def _learned(
        self, record: Record, target: float, share: int, generator: np.random.Generator
    ) -> Asking:
        """Ask for what a policy samples, until it has decided or its evaluations are used up."""
        space, start = record.task.space, record.left
        policy = Controller(space, self.rate)
        mean = spread = None
        fruitless = 0
        while start - record.left < share - 1 and fruitless < _FRUITLESS:
            room = share - 1 - (start - record.left)
            samples = [policy.sample(generator) for _ in range(min(self.batch, room))]
            fruitless = 0 if any(each not in record.asked for each in samples) else fruitless + 1
            yield from record.ask(Proposal(each, f"policy for {target:g}") for each in samples)
            rewards = self._rewards(record, samples, target)
            mean = _moved(mean, float(rewards.mean()), self.average)
            spread = _moved(spread, float(np.abs(rewards - mean).mean()), self.average)
            done = (start - record.left) / share
            weight = self.entropy * (1 - np.cos(np.pi * done)) / 2
            policy.step(samples, (rewards - mean) / max(spread, _TINY), weight)
        yield from record.ask([Proposal(policy.argmax(), f"argmax of policy for {target:g}")])

    def _rewards(self, record: Record, samples: Sequence[Candidate], target: float) -> Floats:
        """[samples]; failed ones have the least of all that were measured."""
        known = {each: self._reward(record, each, target) for each in record.measured}
        least = min(known.values(), default=0.0)
        return np.array([known.get(each, least) for each in samples])

    def _reward(self, record: Record, candidate: Candidate, target: float) -> float:
        task, metrics = record.task, record.measured[candidate]
        first = task.objectives[0]
        gain = -first.loss(metrics) / (100.0 if first.metric == ACCURACY else 1.0)
        reward = gain - self.beta * task.violation(metrics)
        if len(task.objectives) == 1:
            return reward
        name = task.objectives[1].metric
        costs = {each: known[name] for each, known in record.measured.items()}
        goal = target * costs.get(_whole(task), max(costs.values()))
        return reward - self.beta * abs(1 - metrics[name] / goal)


def _whole(task: Task) -> Candidate:
    """The trained model in its widest formats."""
    return task.space.canonical([0] * len(task.space.genes))


def _moved(mean: float | None, value: float, average: float) -> float:
    """An exponential moving average that begins with its first value."""
    return value if mean is None else average * mean + (1 - average) * value
