"""Searches whose answers are known: made-up accuracy, exact cost, no model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgesmith.nas.front import nondominated
from edgesmith.nas.samplers.base import Log, Sampler
from edgesmith.nas.space import Candidate, Floats, Gene, Moot, Space
from edgesmith.nas.values import ACCURACY, Constraint, Metrics, Objective, Proposal, Task, Trial

COST = "bit-operations"
BYTES = "weight-bytes"
OBJECTIVES = (Objective(ACCURACY, "higher"), Objective(COST, "lower"))
_BITS = {"int8": 8, "int4": 4, "int2": 2}
_HURT = {"int8": 0.0, "int4": 0.25, "int2": 1.0}


@dataclass(frozen=True)
class Network:
    """A residual network that does not exist: blocks of a width, maybe dropped, of some formats.

    Accuracy saturates in the sum of what every choice loses, of what neighbouring narrow layers
    lose together, and of noise that is the same whenever a candidate is measured. Cost is exact.

    Args:
        noise: deviation of accuracy, in points.
    """

    blocks: int = 6
    widths: tuple[int, ...] = (64, 48, 32, 16)
    formats: tuple[str, ...] = ("int8", "int4", "int2")
    noise: float = 0.2
    seed: int = 0

    @cached_property
    def space(self) -> Space:
        architecture, formats, moot = [], [], []
        for block in range(self.blocks):
            inside = [f"width:{block}", f"weights:{block}", f"activations:{block}"]
            architecture.append(Gene(inside[0], self.widths))
            formats += [Gene(name, self.formats) for name in inside[1:]]
            if block % 2:
                architecture.append(Gene(f"depth:{block}", (1, 0)))
                moot.append(Moot(f"depth:{block}", 0, tuple(inside)))
        return Space((*architecture, *formats), tuple(moot))

    @cached_property
    def _weights(self) -> dict[str, Floats]:
        generator = np.random.default_rng(self.seed)
        size = generator.lognormal(0.0, 0.8, self.blocks)
        matters = {
            what: np.sqrt(size) * generator.lognormal(0.0, 0.5, self.blocks)
            for what in ("width", "weights", "activations", "depth", "pair")
        }
        return {"macs": size, **matters}

    def cost(self, candidate: Candidate) -> Metrics:
        """Bit operations and bytes."""
        chosen, size = self.space.choices(candidate), self._weights["macs"]
        cost = stored = 0.0
        before = 64
        for block in range(self.blocks):
            if chosen.get(f"depth:{block}", 1) == 0:
                continue
            width, bits, inputs = self._of(chosen, block)
            macs = size[block] * width * before
            cost += macs * _BITS[bits] * _BITS[inputs]
            stored += macs * _BITS[bits] / 8
            before = width
        return {COST: cost + 1e3, BYTES: stored + 100.0}

    def accuracy(self, candidate: Candidate) -> float:
        """Percent, from 10."""
        chosen, weight = self.space.choices(candidate), self._weights
        lost, before = 0.0, 0.0
        for block in range(self.blocks):
            if chosen.get(f"depth:{block}", 1) == 0:
                lost += 0.8 * weight["depth"][block]
                before += 0.3
                continue
            width, bits, inputs = self._of(chosen, block)
            narrow = np.log2(self.widths[0] / width) ** 1.5 / 4
            here = (
                weight["width"][block] * narrow
                + weight["weights"][block] * _HURT[bits]
                + 0.7 * weight["activations"][block] * _HURT[inputs]
                + 0.6 * weight["pair"][block] * narrow * _HURT[bits]
                + 0.8 * weight["pair"][block] * before * _HURT[inputs]
            )
            lost += here
            before = min(here, 1.5)
        key = np.frombuffer(repr(candidate).encode(), dtype=np.uint8).astype(np.uint32)
        noise = np.random.default_rng([self.seed, *key]).normal(0.0, self.noise)
        return float(10 + 85 * np.exp(-lost / (1.2 * self.blocks)) + noise)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        """Everything about a candidate."""
        return {ACCURACY: self.accuracy(candidate), **self.cost(candidate)}

    def task(
        self,
        evaluations: int,
        seed: int = 0,
        constraints: tuple[Constraint, ...] = (),
        objectives: tuple[Objective, ...] = OBJECTIVES,
    ) -> Task:
        space = self.space
        return Task(
            space, objectives, constraints, self.cost, tuple(corners(space)), evaluations, seed
        )

    def _of(self, chosen: Mapping[str, int | str], block: int) -> tuple[int, str, str]:
        width = chosen[f"width:{block}"]
        bits, inputs = chosen[f"weights:{block}"], chosen[f"activations:{block}"]
        return int(width), str(bits), str(inputs)


def corners(space: Space) -> list[Proposal]:
    """Largest, smallest, each uniform format of the trained model."""
    last = space.canonical([size - 1 for size in space.sizes])
    found = {space.canonical([0] * len(space.genes)): "seed: largest", last: "seed: smallest"}
    formats = {c: None for gene in space.genes for c in gene.choices if isinstance(c, str)}
    for each in formats:
        chosen = {g.name: each for g in space.genes if each in g.choices}
        found.setdefault(space.of(chosen), f"seed: uniform {each}")
    return [Proposal(candidate, origin) for candidate, origin in found.items()]


def everything(space: Space) -> list[Candidate]:
    """All candidates, once each."""
    rows = itertools.product(*(range(size) for size in space.sizes))
    return list(dict.fromkeys(space.canonical(row) for row in rows))


def true_front(network: Network) -> Floats:
    """Losses [N, 2] of the whole space's front."""
    task = network.task(1)
    losses = np.array([task.losses(network.measure(each)) for each in everything(network.space)])
    return losses[nondominated(losses)]


Measure = Callable[[Candidate], Mapping[str, float]]


def trial(space: Space, number: int, proposal: Proposal, measure: Measure) -> Trial:
    """A finished trial; one whose measuring raises ArithmeticError failed."""
    choices = space.choices(proposal.candidate)
    try:
        metrics = dict(measure(proposal.candidate))
    except ArithmeticError as error:
        return Trial(number, choices, proposal.origin, {}, error=str(error))
    return Trial(number, choices, proposal.origin, metrics)


def searched(
    sampler: Sampler, task: Task, measure: Measure, log: Log | None = None
) -> tuple[list[list[Proposal]], list[Trial]]:
    """Batches that were asked for, and all trials."""
    batches: list[list[Proposal]] = []
    trials: list[Trial] = []
    asking = sampler.run(task, log or Log())
    try:
        batch: Sequence[Proposal] = next(asking)
        while True:
            batches.append(list(batch))
            start = len(trials)
            trials += [trial(task.space, start + i, p, measure) for i, p in enumerate(batch)]
            batch = asking.send(trials[start:])
    except StopIteration:
        return batches, trials
