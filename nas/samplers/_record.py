"""What a sampler has asked for and been told."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from scipy.stats import qmc

from edgesmith.nas.front import nondominated, ranked
from edgesmith.nas.space import Candidate, Floats, Space, neighbours
from edgesmith.nas.values import Metrics, Proposal, Task, Trial

_TRIES = 200
"""Draws in a row that bring nothing new, before what is left is looked for one by one."""
_FEASIBLE_TRIES = 20
_CACHED = 1 << 17
_LEAN = 12.0
"""How closely choices keep to their level: at 0 not at all."""


class Record:
    """Keeps a sampler from asking twice, and what it may learn from.

    Args:
        task: of the sampler.

    Attributes:
        left: evaluations that there still may be.
        asked: failed ones too, in order.
        measured: metrics, computed ones among them, in the order of asking.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.left = task.evaluations
        self.asked: dict[Candidate, None] = {}
        self.measured: dict[Candidate, Metrics] = {}
        self.computed = lru_cache(maxsize=_CACHED)(task.computed)

    def ask(
        self, proposals: Iterable[Proposal]
    ) -> Generator[Sequence[Proposal], Sequence[Trial], Sequence[Trial]]:
        """Ask for those that are new, as many as there may be; nothing happens without any.

        Returns:
            Their trials, in order.
        """
        new = {each.candidate: each for each in reversed(list(proposals))}
        batch = [each for at, each in reversed(new.items()) if at not in self.asked][: self.left]
        if not batch:
            return ()
        self.left -= len(batch)
        trials = yield batch
        for proposal, trial in zip(batch, trials, strict=True):
            self.note(proposal.candidate, None if trial.failed else trial.metrics)
        return trials

    def note(self, candidate: Candidate, metrics: Metrics | None) -> None:
        """Take note of what a candidate measures; None where that failed."""
        self.asked[candidate] = None
        if metrics is not None:
            self.measured[candidate] = {**metrics, **self.computed(candidate)}

    def losses(self) -> Floats:
        """[measured, objectives]."""
        rows = [self.task.losses(metrics) for metrics in self.measured.values()]
        return np.array(rows).reshape(len(rows), len(self.task.objectives))

    def violations(self) -> Floats:
        """[measured]."""
        return np.array([self.task.violation(metrics) for metrics in self.measured.values()])

    def best(self, count: int) -> list[Candidate]:
        """Measured candidates, feasible and undominated ones first."""
        known = list(self.measured)
        return [known[at] for at in ranked(self.losses(), self.violations(), count)]

    def front(self) -> Floats:
        """Losses [N, K] of the measured candidates that are feasible and undominated."""
        losses = self.losses()[self.violations() <= 0]
        return losses[nondominated(losses)]

    def excess(self, candidate: Candidate) -> float:
        """Violation of the constraints on computed metrics."""
        return self.task.violation(self.computed(candidate))

    def drawn(
        self, count: int, generator: np.random.Generator, taken: Iterable[Candidate] = ()
    ) -> list[Candidate]:
        """New random candidates, all different; feasible as far as computed metrics tell.

        Where few or none are feasible, those that exceed their limits least among a few draws.
        Fewer than `count` only where there are no more.

        Args:
            taken: candidates that do not count as new.
        """
        return self._drawn([None] * count, generator, set(taken))

    def of_all_sizes(self, count: int, generator: np.random.Generator) -> list[Candidate]:
        """As `drawn`, but from all first to all last choices, of every kind apart: by chance alone
        all are of medium size in medium formats, and predictors have to know the ends and tell the
        kinds apart. Levels are points of a scrambled Halton sequence with an axis for each kind.
        """
        kinds = [gene.kind for gene in self.task.space.genes]
        axes = sorted(set(kinds))
        points = qmc.Halton(len(axes), rng=generator).random(max(count, 0))
        return self._drawn(list(points[:, [axes.index(kind) for kind in kinds]]), generator, set())

    def _drawn(
        self,
        levels: Sequence[Floats | None],
        generator: np.random.Generator,
        taken: set[Candidate],
    ) -> list[Candidate]:
        found: list[Candidate] = []
        for own in levels[: self.left]:
            each = self._draw(own, generator, taken)
            if each is None:
                each = next(self._remaining(taken), None)
            if each is None:
                break
            taken.add(each)
            found.append(each)
        return found

    def _draw(
        self, levels: Floats | None, generator: np.random.Generator, taken: set[Candidate]
    ) -> Candidate | None:
        """The first of some draws that is feasible, or the best of them; None if none is new."""
        new: dict[Candidate, float] = {}
        for _ in range(_TRIES):
            # What is too large for a limit is drawn again with smaller choices.
            lean = None if levels is None else levels + (1 - levels) * len(new) / _FEASIBLE_TRIES
            candidate = _leaning(self.task.space, lean, generator)
            if candidate in self.asked or candidate in taken:
                continue
            new[candidate] = self.excess(candidate)
            if new[candidate] <= 0 or len(new) == _FEASIBLE_TRIES:
                break
        return min(new, key=lambda each: new[each], default=None)

    def _remaining(self, taken: set[Candidate]) -> Iterator[Candidate]:
        """New candidates beside known ones: as all are connected, none only if none is left."""
        for each in sorted({*self.asked, *taken}):
            for other in neighbours(self.task.space, each):
                if other not in self.asked and other not in taken:
                    yield other


def seeds(task: Task) -> list[Proposal]:
    """The task's seeds in canonical form."""
    return [Proposal(task.space.canonical(each.candidate), each.origin) for each in task.seeds]


def _leaning(space: Space, levels: Floats | None, generator: np.random.Generator) -> Candidate:
    """A random candidate; where a gene's level [genes] is 0 it leans to the first choice, where it
    is 1 to the last.
    """
    if levels is None:
        return space.drawn(generator)
    sizes = np.array(space.sizes)
    shares = generator.beta(1 + _LEAN * levels, 1 + _LEAN * (1 - levels))
    return space.canonical(np.minimum(shares * sizes, sizes - 1).astype(int).tolist())


def metrics_of(task: Task) -> tuple[str, ...]:
    """What objectives and constraints are about, once each."""
    objectives = [each.metric for each in task.objectives]
    return tuple(dict.fromkeys([*objectives, *(each.metric for each in task.constraints)]))
