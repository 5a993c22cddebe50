"""What follows from the trials of a search, whatever was searched."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgesmith.nas.choice import chosen_row
from edgesmith.nas.front import hypervolume_curve, nondominated
from edgesmith.nas.space import Floats
from edgesmith.nas.values import Found, PredictorQuality, Task, Trial

_SEED = "seed: "


def found(
    task: Task,
    trials: Sequence[Trial],
    rule: str,
    predictors: Sequence[PredictorQuality] = (),
    corrupted: Sequence[int] = (),
) -> Found:
    """What trials amount to. The box of the hypervolume spans the feasible ones and the seeds.

    Args:
        trials: numbered from 0; at least one did not fail.
        rule: which trial of the front is chosen, as `check_rule` accepts it.
        corrupted: lines of the archive that could not be read.
    """
    losses, violations = _losses(task, trials), _violations(task, trials)
    feasible = np.flatnonzero(violations <= 0)
    front = feasible[nondominated(losses[feasible])]
    front = front[np.lexsort(losses[front].T[::-1])]
    marks = _marks(task, trials)
    boxed = sorted({*feasible.tolist(), *marks.values()})
    ideal = losses[boxed].min(axis=0).tolist() if boxed else ()
    nadir = losses[boxed].max(axis=0).tolist() if boxed else ()
    chosen = front[chosen_row(rule, task.objectives, losses[front])] if len(front) else None
    return Found(
        trials=tuple(trials),
        front=tuple(front.tolist()),
        chosen=None if chosen is None else int(chosen),
        marks=marks,
        hypervolume=tuple(hypervolume_curve(losses, violations, ideal, nadir)),
        ideal=tuple(ideal),
        nadir=tuple(nadir),
        predictors=tuple(predictors),
        nearest_miss={} if len(front) else missed(task, trials[int(violations.argmin())]),
        notes=(*_failures(trials), *_damage(corrupted)),
        corrupted=len(corrupted),
    )


def revised(before: Found, task: Task, trials: Sequence[Trial], rule: str) -> Found:
    """What follows from the same trials where some of them are better known, or limits differ."""
    now = found(task, trials, rule, before.predictors)
    return replace(now, notes=before.notes, corrupted=before.corrupted)


def commonest_error(trials: Sequence[Trial]) -> str:
    """Why most of the failed trials failed; of equally common reasons the first."""
    return Counter(trial.error for trial in trials if trial.failed).most_common(1)[0][0]


def _losses(task: Task, trials: Sequence[Trial]) -> Floats:
    """[N, K]; of failed trials 0."""
    none = (0.0,) * len(task.objectives)
    return np.array([none if each.failed else task.losses(each.metrics) for each in trials])


def _violations(task: Task, trials: Sequence[Trial]) -> Floats:
    """[N]; of failed trials infinite."""
    return np.array([math.inf if each.failed else task.violation(each.metrics) for each in trials])


def _marks(task: Task, trials: Sequence[Trial]) -> dict[str, int]:
    """What each seed stands for -> its trial, where that did not fail."""
    numbers = {task.space.of(trial.choices): trial.number for trial in trials}
    return {
        seed.origin.removeprefix(_SEED): numbers[seed.candidate]
        for seed in task.seeds
        if seed.candidate in numbers and not trials[numbers[seed.candidate]].failed
    }


def missed(task: Task, trial: Trial) -> dict[str, tuple[float, float]]:
    """The limits that a trial exceeds: metric -> (found, limit)."""
    return {
        each.metric: (trial.metrics[each.metric], each.limit)
        for each in task.constraints
        if each.excess(trial.metrics) > 0
    }


def _failures(trials: Sequence[Trial]) -> tuple[str, ...]:
    count = sum(trial.failed for trial in trials)
    if not count:
        return ()
    return (f"{count} of {len(trials)} evaluations failed, most often: {commonest_error(trials)}",)


def _damage(corrupted: Sequence[int]) -> tuple[str, ...]:
    if not corrupted:
        return ()
    lines = ", ".join(map(str, corrupted))
    return (f"lines of the archive that cannot be read, and were skipped: {lines}",)
