"""Samplers on the table of real evaluations: what they find, and after how many of them.

Hypervolume is of the box between the best and the worst figure of the true front, which is known
because every candidate was evaluated; 1 is that front itself. Five seeds each.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from rows import Row

from edgesmith.nas.front import hypervolume, hypervolume_curve, nondominated
from edgesmith.nas.samplers.base import Log, Sampler, samplers
from edgesmith.nas.space import Candidate, Floats
from edgesmith.nas.values import ACCURACY, Metrics, Objective, Proposal, Task, Trial
from searching.curves import plot
from searching.recorded import LAYERS, SPACE, Table

SEEDS = range(1000, 1005)
"""No sampler was tuned with these."""
EVALUATIONS = 500
OBJECTIVES = (
    Objective(ACCURACY, "higher"),
    Objective("instructions", "lower"),
    Objective("flash", "lower"),
)
COMPUTED = ("bit-operations", "macs", "weight-bytes")
OURS, PLAIN, SEQUENTIAL = "linas", "linas-plain", "sequential"
RIVALS = ("random", "nsga2", PLAIN, SEQUENTIAL)
KNOWN = 100
SHARE = 0.9
"""Of the true front's hypervolume."""
FEWER = 2.3


@dataclass(frozen=True, eq=False)
class Problem:
    """The table as a task, and what there is to reach.

    Args:
        losses: [candidates, objectives].
        front: of them, [M, objectives].
    """

    rows: dict[Candidate, Metrics]
    losses: Floats
    front: Floats

    @classmethod
    def of(cls, table: Table) -> Problem:
        losses = np.array([_losses(each) for each in table.rows.values()])
        return cls(table.rows, losses, losses[nondominated(losses)])

    def task(self, seed: int, evaluations: int = EVALUATIONS) -> Task:
        return Task(SPACE, OBJECTIVES, (), self.computed, _corners(), evaluations, seed)

    def computed(self, candidate: Candidate) -> Metrics:
        """What follows from shapes and formats."""
        return {name: self.rows[candidate][name] for name in COMPUTED}

    def reached(self, losses: Floats) -> float:
        """Share of the true front's hypervolume."""
        return self._volume(losses) / self._volume(self.front)

    def curve(self, sampler: str, seed: int, evaluations: int = EVALUATIONS) -> list[float]:
        """That share after each evaluation of a search that may have so many."""
        losses = _searched(samplers().get(sampler)(), self.task(seed, evaluations), self.rows)
        found = hypervolume_curve(losses, np.zeros(len(losses)), *self._box)
        whole = self._volume(self.front)
        return [each / whole for each in found]

    def uniform(self, weight: str) -> float:
        """That share of the best there is with all layers in one format."""
        places = [SPACE.places[name] for name in LAYERS]
        index = SPACE.genes[places[0]].choices.index(weight)
        active = [SPACE.active(each) for each in self.rows]
        alike = [
            all(candidate[place] == index for place in places if on[place])
            for candidate, on in zip(self.rows, active, strict=True)
        ]
        return self.reached(self.losses[np.array(alike)])

    def _volume(self, losses: Floats) -> float:
        return hypervolume(losses, *self._box)

    @property
    def _box(self) -> tuple[list[float], list[float]]:
        return self.front.min(axis=0).tolist(), self.front.max(axis=0).tolist()


def sampled(folder: Path) -> Iterator[Row]:
    """All rows that need the table."""
    problem = Problem.of(Table.read())
    curve = cache(problem.curve)

    def reached(name: str, seed: int, evaluations: int) -> float:
        # Its halves depend on how many there are; what others find first does not.
        alone = name == SEQUENTIAL and evaluations < EVALUATIONS
        found = curve(name, seed, evaluations) if alone else curve(name, seed)
        return found[evaluations - 1]

    yield Row(
        "table: candidates evaluated", len(problem.rows), "candidates", goal=5_000, better="higher"
    )
    yield Row("table: members of the true front", len(problem.front), "candidates")
    for at in (KNOWN, EVALUATIONS):
        for name in (OURS, *RIVALS):
            mean = statistics.mean(reached(name, seed, at) for seed in SEEDS)
            yield Row(f"hypervolume after {at} evaluations, {name}", 100 * mean, "% of the front's")
        for name in RIVALS:
            above = (reached(OURS, s, at) > reached(name, s, at) for s in SEEDS)
            yield won(f"hypervolume after {at} evaluations above {name}", above)
    yield from _speed(curve)
    uniform = {str(weight): problem.uniform(str(weight)) for weight in SPACE.genes[-1].choices}
    for weight, best in uniform.items():
        yield Row(
            f"uniform {weight}, the best of all architectures", 100 * best, "% of the front's"
        )
        above = (curve(OURS, seed)[-1] > best for seed in SEEDS)
        yield won(f"joint search above every uniform {weight}", above)
    curves = {name: [curve(name, seed) for seed in SEEDS] for name in (OURS, *RIVALS)}
    levels = {f"best in uniform {weight}": best for weight, best in uniform.items()}
    print(f"plotted in {plot(curves, levels)}")


def _speed(curve: Callable[[str, int], list[float]]) -> Iterator[Row]:
    """Evaluations until nine tenths of the front's hypervolume are there."""
    means = {}
    for name in (OURS, *RIVALS):
        needed = [_needed(curve(name, seed)) for seed in SEEDS]
        means[name] = statistics.mean(needed)
        yield Row(f"evaluations to {SHARE:.0%} of the front, {name}", means[name], "evaluations")
    fewer = means[PLAIN] / means[OURS]
    label = f"evaluations to {SHARE:.0%} of the front, {PLAIN} over {OURS}"
    yield Row(label, fewer, "times", goal=FEWER, better="higher")


def _needed(curve: list[float]) -> int:
    """Evaluations to `SHARE`; one more than there were where they did not suffice."""
    return next((n for n, each in enumerate(curve, 1) if each >= SHARE), len(curve) + 1)


def won(label: str, above: Iterable[bool]) -> Row:
    """With how many seeds, where it has to be with all."""
    goal = float(len(SEEDS))
    return Row(label, sum(above), f"of {len(SEEDS)} seeds", goal=goal, better="higher")


def _losses(metrics: Metrics) -> tuple[float, ...]:
    return tuple(each.loss(metrics) for each in OBJECTIVES)


def _corners() -> tuple[Proposal, ...]:
    """What every search begins with: the trained model and the smallest one, in either format."""
    whole = (0,) * len(SPACE.genes)
    last = SPACE.canonical([size - 1 for size in SPACE.sizes])
    places = {SPACE.places[name] for name in LAYERS}
    narrow = tuple(int(place in places) for place in range(len(whole)))
    wide = tuple(0 if place in places else each for place, each in enumerate(last))
    named = {"uniform int8": whole, "uniform int4": narrow, "smallest": wide, "least": last}
    return tuple(Proposal(SPACE.canonical(each), f"seed: {n}") for n, each in named.items())


def _searched(sampler: Sampler, task: Task, rows: dict[Candidate, Metrics]) -> Floats:
    """Losses [evaluations, objectives] in the order of asking."""
    found: list[tuple[float, ...]] = []
    asking = sampler.run(task, Log())
    batch = next(asking, ())
    while batch:
        trials = []
        for proposal in batch:
            metrics = dict(rows[proposal.candidate])
            choices = SPACE.choices(proposal.candidate)
            trials.append(Trial(len(found), choices, proposal.origin, metrics))
            found.append(_losses(metrics))
        try:
            batch = asking.send(trials)
        except StopIteration:
            break
    return np.array(found)
