"""The search loop: what a sampler asks for is looked up in the archive, or else evaluated.

What another search has evaluated under the same conditions is taken over into the archive.

Trials are numbered, archived and sent to the sampler in the order of asking, whatever order their
results arrive in. So a search that was killed is simply run again: the sampler asks the same, the
archive answers as far as it goes, and the rest is evaluated. Nothing is evaluated twice but what
was under way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from edgesmith.nas.archive import Archive
from edgesmith.nas.choice import check_rule
from edgesmith.nas.executors.base import Choices, Evaluations, Executor, Factory, Outcome
from edgesmith.nas.found import commonest_error, found
from edgesmith.nas.options import KNEE
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.space import Candidate
from edgesmith.nas.values import Found, Proposal, Task, Trial
from edgesmith.pipeline.errors import NothingEvaluatedError
from edgesmith.pipeline.stage import Progress

Prepare = Callable[[Sequence[Choices]], None]
HOPELESS = 10
"""So many failures and no success yet: the search is given up."""


def search(
    task: Task,
    sampler: Sampler,
    make: Factory,
    executor: Executor,
    archive: Archive,
    progress: Progress,
    *,
    rule: str = KNEE,
    provenance: Mapping[str, str] | None = None,
    prepare: Prepare | None = None,
    label: str = "searching",
) -> Found:
    """Search until the sampler stops asking, or the task's evaluations are used up.

    A candidate whose evaluation fails, or gives a metric that is no finite number, is a failed
    trial, and the search goes on.

    Args:
        make: gives what evaluates; called once in each worker, not at all if the archive has all.
        rule: which trial of the front is chosen, see `options.Rule`.
        provenance: of every trial that is evaluated now.
        prepare: does for a whole batch what would take longer candidate by candidate.
        label: of the progress.

    Raises:
        NothingEvaluatedError: the first ten trials, all seeds, or all trials failed.
        EvaluationError: the evaluation cannot be loaded, or has a defect.
        SearchError: the rule names no objective, or the executor cannot start as configured.
        CacheError: the archive cannot be written.
    """
    check_rule(rule, task.objectives)
    log = Log()
    asking = sampler.run(task, log)
    with ExitStack() as workers:
        source = _Source(task, make, executor, archive, workers, provenance or {}, prepare)
        run = _Run(task, archive, progress, label)
        batch = next(asking, ())
        while batch and (left := task.evaluations - len(run.trials)) > 0:
            trials = [run.noted(trial) for trial in source.trials(batch[:left], len(run.trials))]
            batch = _answered(asking, trials) if len(batch) <= left else ()
    run.require_success()
    return found(task, run.trials, rule, log.predictors, archive.corrupted)


def _answered(asking: Asking, trials: Sequence[Trial]) -> Sequence[Proposal]:
    """What a sampler asks once it knows the trials; nothing when it is done."""
    try:
        return asking.send(trials)
    except StopIteration:
        return ()


class _Source:
    """Where trials come from: the archive, or workers that are started when first needed."""

    def __init__(
        self,
        task: Task,
        make: Factory,
        executor: Executor,
        archive: Archive,
        workers: ExitStack,
        provenance: Mapping[str, str],
        prepare: Prepare | None,
    ) -> None:
        self._task = task
        self._make = make
        self._executor = executor
        self._archive = archive
        self._workers = workers
        self._provenance = dict(provenance)
        self._prepare = prepare
        self._evaluations: Evaluations | None = None

    def trials(self, batch: Sequence[Proposal], start: int) -> Iterator[Trial]:
        """A trial for each proposal, numbered from `start`; new ones are in the archive."""
        space, known, others = self._task.space, self._archive.known, self._archive.others
        keys = [space.key(each.candidate) for each in batch]
        pairs = zip(keys, batch, strict=True)
        missing = {
            key: space.choices(each.candidate)
            for key, each in pairs
            if key not in known and key not in others
        }
        arriving = self._evaluated(list(missing.values()))
        order = list(missing)
        early: dict[str, Outcome] = {}
        for number, (key, proposal) in enumerate(zip(keys, batch, strict=True), start):
            if key in known:
                yield replace(known[key], number=number, origin=proposal.origin)
                continue
            while key not in early and key not in others:
                place, outcome = next(arriving)
                early[order[place]] = outcome
            outcome = early.pop(key) if key in early else Outcome(others[key].metrics)
            trial = self._trial(number, proposal, outcome)
            self._archive.append(key, trial)
            yield trial

    def _evaluated(self, batch: Sequence[Choices]) -> Iterator[tuple[int, Outcome]]:
        if not batch:
            return iter(())
        if self._prepare is not None:
            self._prepare(batch)
        if self._evaluations is None:
            self._evaluations = self._workers.enter_context(self._executor.opened(self._make))
        return self._evaluations(batch)

    def _trial(self, number: int, proposal: Proposal, outcome: Outcome) -> Trial:
        metrics: dict[str, float] = {}
        error = outcome.error
        if not error:
            computed = self._task.computed(proposal.candidate)
            metrics = outcome.metrics | {name: float(each) for name, each in computed.items()}
            error = _fault(self._task, metrics)
        choices = self._task.space.choices(proposal.candidate)
        kept = {} if error else metrics
        return Trial(number, choices, proposal.origin, kept, error, self._provenance)


def _fault(task: Task, metrics: Mapping[str, float]) -> str:
    """What is wrong with metrics; empty if nothing is."""
    needed = [each.metric for each in task.objectives] + [each.metric for each in task.constraints]
    if missing := [name for name in needed if name not in metrics]:
        return f"the evaluation gave no {missing[0]}"
    for name, value in metrics.items():
        if not math.isfinite(value):
            return f"{name} is {value}"
    return ""


class _Run:
    """The trials so far, shown and watched."""

    def __init__(self, task: Task, archive: Archive, progress: Progress, label: str) -> None:
        self.trials: list[Trial] = []
        self._task = task
        self._archive = archive
        self._progress = progress
        self._doing = label
        self._untried: set[Candidate] = {seed.candidate for seed in task.seeds}
        self._hopeful = False
        self._best = math.inf
        progress.report(label, 0, task.evaluations)

    def noted(self, trial: Trial) -> Trial:
        """Take note of a trial.

        Raises:
            NothingEvaluatedError: there is no use in going on.
        """
        self.trials.append(trial)
        self._untried.discard(self._task.space.of(trial.choices))
        if not trial.failed:
            self._hopeful = True
            if not self._task.violation(trial.metrics):
                self._best = min(self._best, self._task.objectives[0].loss(trial.metrics))
        elif len(self.trials) >= HOPELESS or (self._task.seeds and not self._untried):
            self.require_success()
        self._progress.report(self._label(), len(self.trials), self._task.evaluations)
        return trial

    def require_success(self) -> None:
        """Refuse to go on, or to end, with failures only.

        Raises:
            NothingEvaluatedError: no trial succeeded.
        """
        if self._hopeful:
            return
        if not self.trials:
            raise NothingEvaluatedError(
                "the sampler asked for no candidate", fix="allow more evaluations"
            )
        raise NothingEvaluatedError(
            f"all {len(self.trials)} evaluations failed, most often: "
            f"{commonest_error(self.trials)}",
            fix=f"correct that, then delete {self._archive.path}: it keeps failures too",
        )

    def _label(self) -> str:
        if math.isinf(self._best):
            return f"{self._doing}: nothing within the limits yet"
        first = self._task.objectives[0]
        best = self._best if first.better == "lower" else -self._best
        return f"{self._doing}: best {first.metric} {best:.4g}"
