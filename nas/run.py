"""A joint search from a trained model to a re-measured front.

    importances -> super-network -> its training -> seeds -> sampler <-> evaluations -> front
      -> all of the selection split for the front, training for the finalists (`ladder.py`)
      -> every measured member built for the target -> the chosen candidate as a plain module

Everything that takes long is in the workplace's folders as soon as it is known: the same search
goes on where it was killed, and another one begins with the super-network that is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue, ValidationError
from torch import nn

from edgesmith.nas import ladder
from edgesmith.nas.choice import check_rule
from edgesmith.nas.driver import search
from edgesmith.nas.evaluation import Evaluator
from edgesmith.nas.executors.base import Executor, Factory, executors
from edgesmith.nas.executors.serial import Serial
from edgesmith.nas.joint import Joint
from edgesmith.nas.options import KNEE, SearchOptions
from edgesmith.nas.outcome import COMPUTED, Climbed, outcome, said_of, said_of_formats
from edgesmith.nas.proxy import SENSITIVITY, SensitivityProxy
from edgesmith.nas.samplers.base import samplers
from edgesmith.nas.seeds import corners, programs
from edgesmith.nas.space import Candidate
from edgesmith.nas.together import CHECKPOINT, train
from edgesmith.nas.values import ACCURACY, Constraint, Found, Objective, Rung, SearchResult, Task
from edgesmith.nas.workplace import CONFIRMED, SEARCHED, TRAINED, Workplace
from edgesmith.pipeline.errors import InfeasibleSearchError, SearchError
from edgesmith.pipeline.jsonvalue import adapter
from edgesmith.pipeline.stage import Progress, stage_seed
from edgesmith.pipeline.training.trainer import Tuned, accuracy
from edgesmith.prune.values import PrunePlan
from edgesmith.quantize.options import Override

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Chosen:
    """The candidate that goes on, and what was found on the way to it.

    Args:
        module: eval mode; smaller layers, weights of the super-network.
        plan: what makes its shapes out of the trained model.
        overrides: its formats, for `quantize`.
        archives: by what is in them.
    """

    module: nn.Module
    plan: PrunePlan
    overrides: tuple[Override, ...]
    result: SearchResult
    archives: Mapping[str, Path]


def search_jointly(workplace: Workplace, folder: Path, progress: Progress) -> Chosen:
    """Search, and choose.

    Args:
        folder: for artifacts of the front's members.

    Raises:
        NothingElasticError: nothing in the model can vary.
        SearchError: the options ask for what the target or the search does not have.
        InfeasibleSearchError: no candidate keeps all limits; the nearest miss is named.
        DivergedTrainingError, LostProcessError: the super-network cannot be trained.
        NothingEvaluatedError, EvaluationError: see `driver.search`.
        CacheError: the workplace's folder cannot be read or written.
    """
    options = workplace.options
    objectives = _objectives(workplace)
    # What is misspelled is said before anything is trained.
    rule = _rule(options, objectives)
    check_rule(rule, objectives)
    sampler = _configured(samplers().get(options.sampler), options.sampler_options)
    executor = _configured(executors().get(options.executor), options.executor_options)
    joint = workplace.joint()
    tuned = _train(workplace, joint, progress)
    evaluator = workplace.evaluator(joint)
    task = _task(workplace, joint, evaluator, objectives)
    with workplace.archive(joint, evaluator) as archive:
        found = search(
            task,
            sampler,
            _factory(workplace, joint, evaluator, executor),
            executor,
            archive,
            progress,
            rule=rule,
            provenance=_provenance(workplace, evaluator),
            prepare=evaluator.prepare,
        )
    everything = workplace.on_all_samples()
    confirming = everything.evaluator(joint)
    climb = _Climb(everything, confirming, joint, task, rule, executor, progress)
    climbed = climb.up(found, evaluator.samples)
    if climbed.found.chosen is None:
        raise _infeasible(climbed.found)
    genes = joint.genes
    less = said_of_formats(options.formats, genes.offered, genes.refused)
    said = (*said_of(tuned), *less)
    result = outcome(workplace, joint, climbed, said, folder, progress)
    assert result.chosen is not None
    choices = result.trials[result.chosen].choices
    return Chosen(
        climbed.maker(result.chosen).module(choices),
        joint.plan(joint.genes.architecture(choices)),
        joint.genes.overrides(choices),
        result,
        workplace.archives(joint, {SEARCHED: evaluator})
        | everything.archives(joint, {CONFIRMED: confirming, TRAINED: confirming}),
    )


@dataclass(eq=False)
class _Climb:
    """From the search's outcome to the choice, by the rungs that the options ask for.

    Args:
        workplace, evaluator: where candidates are scored on all samples.
        task: of the search; afterwards with the limits of the last rung.
    """

    workplace: Workplace
    evaluator: Evaluator
    joint: Joint
    task: Task
    rule: str
    executor: Executor
    progress: Progress

    def up(self, found: Found, samples: int) -> Climbed:
        """The outcome after the last rung.

        Args:
            samples: that the search scored candidates on.
        """
        evaluator, rungs = self.evaluator, [ladder.searched(found, samples)]
        if samples < evaluator.samples:
            limits = tuple(_constraints(self.workplace, self.joint, evaluator))
            self.task = replace(self.task, constraints=limits)
        # Without a front there is nothing to confirm, though training may still bring one.
        if samples < evaluator.samples and found.front:
            with self.workplace.archive(self.joint, evaluator, CONFIRMED) as archive:
                found, rung = ladder.confirmed(
                    found,
                    self.task,
                    self.rule,
                    _factory(self.workplace, self.joint, evaluator, self.executor),
                    self.executor,
                    archive,
                    self.progress,
                    _provenance(self.workplace, evaluator),
                )
            rungs.append(rung)
        return self._trained(found, rungs)

    def _trained(self, found: Found, rungs: list[Rung]) -> Climbed:
        options, evaluator = self.workplace.options, self.evaluator
        members = [found.trials[number] for number in found.front]
        order = ladder.preferred(self.task, self.rule, members)
        untrained = Climbed(found, tuple(rungs), self.task, evaluator, order)
        finishing = self.workplace.finishing(evaluator, self.progress)
        if finishing is None:
            return untrained
        count = max(1, options.finalists)
        chosen = ladder.finalists(found, self.task, self.rule, count, options.recovers_points)
        if not chosen:
            return untrained
        with self.workplace.archive(self.joint, evaluator, TRAINED) as archive:
            found, rung, best = ladder.trained(
                found,
                self.task,
                self.rule,
                chosen,
                finishing,
                archive,
                self.progress,
                _provenance(self.workplace, evaluator) | {"trained": finishing.kind},
            )
        order = tuple(dict.fromkeys((*best, *order)))
        return Climbed(found, (*rungs, rung), self.task, evaluator, order, finishing)


def _factory(
    workplace: Workplace, joint: Joint, evaluator: Evaluator, executor: Executor
) -> Factory:
    """What gives evaluators to an executor: where it is this process, there is one already."""
    if isinstance(executor, Serial):
        return lambda: evaluator
    return replace(workplace, expected=workplace.facts(joint, evaluator))


def _provenance(workplace: Workplace, evaluator: Evaluator) -> dict[str, str]:
    """What metrics rest on."""
    return {
        "target": workplace.target.name,
        "samples": str(evaluator.samples),
        "seed": str(workplace.spec.seed),
    }


def _objectives(workplace: Workplace) -> tuple[Objective, ...]:
    """What candidates are judged by, and what is to be small.

    Raises:
        SearchError: there is nothing to count by.
    """
    known = workplace.target.describe().cost_metrics
    minimize = workplace.options.minimize or known[:1]
    if not minimize:
        raise SearchError(
            f"target {workplace.target.name!r} has no cost model, so nothing says what is small",
            fix="set `minimize: [weight-bytes]` or [bit-operations], or name another `target`",
        )
    for metric in (*minimize, *workplace.options.limits):
        if metric not in (*known, *COMPUTED):
            raise SearchError(
                f"the cost model of {workplace.target.name!r} gives no {metric}",
                fix=f"choose of {', '.join((*known, *COMPUTED))}",
            )
    judge = workplace.options.judge
    first = Objective(judge, "higher" if judge == ACCURACY else "lower")
    return (first, *(Objective(each, "lower") for each in minimize))


def _train(workplace: Workplace, joint: Joint, progress: Progress) -> Tuned | None:
    """Bring the super-network's weights to where training leaves them; what it found."""
    options = workplace.options.training
    with workplace.training(joint, progress):
        if workplace.restore(joint):
            progress.report("super-network, as it was trained before", 1, 1)
            return workplace.tuned(joint)
        trained = None if options is None else train(workplace, joint, options, progress)
        workplace.save(joint, trained)
        (workplace.trained_folder(joint) / CHECKPOINT).unlink(missing_ok=True)
    return None if trained is None else trained.tuned


def _task(
    workplace: Workplace, joint: Joint, evaluator: Evaluator, objectives: tuple[Objective, ...]
) -> Task:
    options, seed = workplace.options, stage_seed(workplace.spec.seed, "search")
    found, sensitivities = programs(joint, evaluator.evidence, workplace.quantization, seed=seed)
    proxy = None if sensitivities is None else SensitivityProxy(joint.genes.space, sensitivities)

    def computed(candidate: Candidate) -> dict[str, float]:
        known = joint.counts(candidate)
        return known if proxy is None else {**known, SENSITIVITY: proxy(candidate)}

    return Task(
        joint.genes.space,
        objectives,
        tuple(_constraints(workplace, joint, evaluator)),
        computed,
        (*corners(joint), *found, *workplace.favourites(joint)),
        options.evaluations,
        seed,
    )


def _rule(options: SearchOptions, objectives: Sequence[Objective]) -> str:
    """Which candidate is deployed."""
    if options.choose is not None:
        return options.choose
    return KNEE if options.tolerance_points is None else f"best:{objectives[1].metric}"


def _constraints(workplace: Workplace, joint: Joint, evaluator: Evaluator) -> Iterator[Constraint]:
    options = workplace.options
    limits: dict[str, float] = {str(name): limit for name, limit in options.limits.items()}
    for metric, most in evaluator.memory.items():
        limits[metric] = min(limits.get(metric, math.inf), most)
    yield from (Constraint(metric, "most", limit) for metric, limit in limits.items())
    if options.tolerance_points is not None:
        trained = accuracy(joint.model, evaluator.evidence.selection)
        yield Constraint(ACCURACY, "least", trained - options.tolerance_points)


def _infeasible(found: Found) -> InfeasibleSearchError:
    missed = (
        f"{metric} {value:,.6g} against {limit:,.6g}"
        for metric, (value, limit) in found.nearest_miss.items()
    )
    fix = "raise these limits to what the nearest miss has, or allow more `evaluations`"
    if ACCURACY in found.nearest_miss:
        fix += (
            "; accuracy is that of the trained model less `tolerance_points`, and where `quantize`"
            " has `qat`, finalists may be `recovers_points` below it before they are trained"
        )
    return InfeasibleSearchError(
        f"none of {len(found.trials)} candidates keeps all limits; the nearest miss has "
        + ", ".join(missed),
        fix=fix,
    )


def _configured(kind: type[T], given: Mapping[str, JsonValue]) -> T:
    """A sampler or an executor with its options.

    Raises:
        SearchError: it has no such option, or not of that value.
    """
    try:
        return adapter(kind).validate_python(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(field.name for field in fields(kind)) or "none"  # type: ignore[arg-type]
        raise SearchError(
            f"option `{where}` of {kind.name!r}: {first['msg']}",  # type: ignore[attr-defined]
            fix=f"its options are: {known}",
        ) from error
