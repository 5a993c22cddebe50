"""The rungs of evidence above the search, each for fewer candidates than the one below.

    limits on what follows from shapes and formats   before anything is asked for
    sensitivity of the trained model to formats      seeds, and a feature of predictors
    a part of the selection split                    every candidate of the search
    all of it                                        members of the front
    quantization-aware training                      finalists around the choice

How well each rung ranks the candidates of the next one is Kendall's tau of the two, and logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy.stats import kendalltau

from edgesmith.nas.archive import Archive
from edgesmith.nas.choice import chosen_row, cost_of
from edgesmith.nas.driver import search
from edgesmith.nas.executors.base import Evaluation, Executor, Factory
from edgesmith.nas.executors.serial import Serial
from edgesmith.nas.found import missed, revised
from edgesmith.nas.front import nondominated
from edgesmith.nas.proxy import SENSITIVITY
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.values import ACCURACY, LOSS, Found, Metrics, Proposal, Rung, Task, Trial
from edgesmith.pipeline.errors import NothingEvaluatedError
from edgesmith.pipeline.stage import Progress
from edgesmith.quantize.allocation.allocate import spread_over

SEARCHED, ALL, TRAINED = "search", "all of the selection split", "after training"
_FEWEST = 3  # candidates that can be ranked


def searched(found: Found, samples: int) -> Rung:
    """What the search itself stands on: accuracy of every candidate, and below it sensitivity,
    which ranks by formats alone, and so little where widths decide.
    """
    known = {each.number: each.metrics for each in found.trials if not each.failed}
    accuracy, loss = _judged(known, ACCURACY), _judged(known, LOSS)
    proxy = {n: -metrics[SENSITIVITY] for n, metrics in known.items() if SENSITIVITY in metrics}
    return Rung(SEARCHED, samples, accuracy, _tau(proxy, accuracy), loss)


def confirmed(
    before: Found,
    task: Task,
    rule: str,
    make: Factory,
    executor: Executor,
    archive: Archive,
    progress: Progress,
    provenance: Mapping[str, str],
) -> tuple[Found, Rung]:
    """The search's outcome once every member of its front was scored on all samples.

    Who falls behind makes room for others, who are scored then, too.

    Args:
        before: has a front.
        task: its limits are those for all samples.
        make: gives what scores on all of them.
        provenance: of the new trials; `samples` is how many there are.

    Raises:
        NothingEvaluatedError, EvaluationError, SearchError, CacheError: see `driver.search`.
    """
    again: dict[int, Trial] = {}

    def now() -> Found:
        trials = [again.get(each.number, each) for each in before.trials]
        return revised(before, task, trials, rule)

    def asking(*_: object) -> Asking:
        while missing := [number for number in now().front if number not in again]:
            trials = yield [_proposal(task, before.trials[number]) for number in missing]
            again.update(_renumbered(trials, before, missing))

    relaxed = replace(task, seeds=(), evaluations=len(before.trials))
    label = "scoring the front on all samples"
    done = search(
        relaxed,
        _Asked(asking),
        make,
        executor,
        archive,
        progress,
        rule=rule,
        provenance=provenance,
        label=label,
    )
    found = now()
    notes = tuple(f"{label}: {note}" for note in done.notes)
    rung = _rung(ALL, int(provenance["samples"]), again, before.trials)
    return replace(found, notes=(*found.notes, *notes)), rung


def trained(
    before: Found,
    task: Task,
    rule: str,
    finalists: Sequence[int],
    evaluate: Evaluation,
    archive: Archive,
    progress: Progress,
    provenance: Mapping[str, str],
) -> tuple[Found, Rung, tuple[int, ...]]:
    """The outcome once finalists were trained; one of them that keeps all limits then is chosen.

    Their trials stay what they were, since others are compared with them untrained.

    Args:
        finalists: numbers of trials; at least one.
        evaluate: trains and scores.
        provenance: of the new trials; `samples` is how many they are scored on.

    Returns:
        The outcome, with a note where training failed for all of them; the rung; and those that
        keep all limits, the preferred ones first.

    Raises:
        EvaluationError, CacheError: see `driver.search`.
    """
    again: dict[int, Trial] = {}

    def asking(*_: object) -> Asking:
        trials = yield [_proposal(task, before.trials[number]) for number in finalists]
        again.update(_renumbered(trials, before, finalists))

    alone = replace(task, seeds=(), evaluations=len(finalists))
    label = "training finalists"
    notes: tuple[str, ...]
    try:
        done = search(
            alone,
            _Asked(asking),
            lambda: evaluate,
            Serial(),
            archive,
            progress,
            provenance=provenance,
            label=label,
        )
        notes = tuple(f"{label}: {note}" for note in done.notes)
    except NothingEvaluatedError as error:
        notes = (f"finalists could not be trained: {error.message}",)
    able = [each for each in again.values() if not each.failed]
    kept = [each for each in able if task.violation(each.metrics) <= 0]
    order, miss = preferred(task, rule, kept), before.nearest_miss
    if kept:
        miss = {}
    elif able and before.chosen is None:
        miss = missed(task, min(able, key=lambda each: task.violation(each.metrics)))
    rung = _rung(TRAINED, int(provenance["samples"]), again, before.trials)
    notes = (*before.notes, *notes)
    chosen = order[0] if order else before.chosen
    return replace(before, chosen=chosen, nearest_miss=miss, notes=notes), rung, order


def preferred(task: Task, rule: str, trials: Sequence[Trial]) -> tuple[int, ...]:
    """Numbers of trials, the one that the rule chooses first, then what it would choose without
    that one, and so on.

    Args:
        trials: all within the limits.
    """
    left, order = list(trials), []
    while left:
        losses = np.array([task.losses(each.metrics) for each in left])
        best = nondominated(losses)
        at = best[chosen_row(rule, task.objectives, losses[best])]
        order.append(left.pop(at).number)
    return tuple(order)


def finalists(
    found: Found, task: Task, rule: str, count: int, recovers_points: float
) -> tuple[int, ...]:
    """Trials to train: the choice, and cheaper ones that training may bring up to its accuracy.

    Args:
        count: at most, or one more.
        recovers_points: accuracy that training is trusted to bring.

    Returns:
        Their numbers; none where nothing comes so close to the limits.
    """
    limits = tuple(
        replace(each, limit=each.limit - recovers_points)
        if each.metric == ACCURACY and each.bound == "least"
        else each
        for each in task.constraints
    )
    near = revised(found, replace(task, constraints=limits), found.trials, rule)
    if near.chosen is None:
        return ()
    cost = cost_of(rule, task.objectives)
    # Judged by loss, the choice may be worse in everything than one that is less accurate.
    members = {*near.front, near.chosen if found.chosen is None else found.chosen}
    order = sorted(members, key=lambda number: cost.loss(found.trials[number].metrics))
    # Where nothing keeps the limits yet, the best of all is tried, too.
    dearest = order[-1] if found.chosen is None else found.chosen
    low, last = sorted(order.index(number) for number in (near.chosen, dearest))
    end = min(len(order), max(last + 1, low + count))
    span = order[max(0, min(low, end - count)) : end]
    at = span.index(dearest)
    return tuple(span[place] for place in spread_over(len(span), count, at))


@dataclass(frozen=True)
class _Asked(Sampler):
    """What a function asks for."""

    name: ClassVar[str] = "asked"
    ask: Callable[[Task, Log], Asking]

    def run(self, task: Task, log: Log) -> Asking:
        return self.ask(task, log)


def _proposal(task: Task, trial: Trial) -> Proposal:
    return Proposal(task.space.of(trial.choices), trial.origin)


def _renumbered(
    trials: Sequence[Trial], before: Found, numbers: Sequence[int]
) -> Mapping[int, Trial]:
    """Trials by the numbers that they have in the search, with their origins there."""
    return {
        number: replace(trial, number=number, origin=before.trials[number].origin)
        for number, trial in zip(numbers, trials, strict=True)
    }


def _rung(name: str, samples: int, now: Mapping[int, Trial], before: Sequence[Trial]) -> Rung:
    known = {n: each.metrics for n, each in now.items() if not each.failed}
    accuracy, loss = _judged(known, ACCURACY), _judged(known, LOSS)
    below = {n: before[n].metrics[ACCURACY] for n in accuracy}
    return Rung(name, samples, accuracy, _tau(below, accuracy), loss)


def _judged(known: Mapping[int, Metrics], metric: str) -> dict[int, float]:
    return {number: metrics[metric] for number, metrics in known.items() if metric in metrics}


def _tau(below: Mapping[int, float], above: Mapping[int, float]) -> float | None:
    """Kendall's tau-b of the candidates that both know; None where it is not defined."""
    both = [number for number in below if number in above]
    if len(both) < _FEWEST:
        return None
    tau = float(kendalltau([below[n] for n in both], [above[n] for n in both]).statistic)
    return None if np.isnan(tau) else tau
