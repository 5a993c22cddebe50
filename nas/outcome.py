"""What a search came to, as its report and its log tell it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgesmith.nas.counts import MACS
from edgesmith.nas.evaluation import Evaluator
from edgesmith.nas.finishing import Finishing
from edgesmith.nas.genes import Offered, Refused
from edgesmith.nas.joint import Joint
from edgesmith.nas.options import Formats, SearchOptions
from edgesmith.nas.proxy import SENSITIVITY
from edgesmith.nas.references import references
from edgesmith.nas.remeasure import Member, deployed
from edgesmith.nas.values import ACCURACY, LOSS, ON, Found, Rung, SearchResult, Task
from edgesmith.nas.workplace import Workplace
from edgesmith.pipeline.errors import EdgesmithError, InfeasibleSearchError
from edgesmith.pipeline.stage import Progress
from edgesmith.pipeline.training.trainer import Tuned
from edgesmith.pipeline.values import Kind
from edgesmith.quantize.allocation.allocate import spread_over
from edgesmith.quantize.allocation.costs import UNITS
from edgesmith.quantize.ptq import QuantizedModel
from edgesmith.targets.base import Target

COMPUTED = (*UNITS, MACS)
"""Costs that follow from shapes and formats, whatever the target."""
_UNITS = {
    **UNITS,
    ACCURACY: "%",
    LOSS: "nats per sample",
    MACS: "multiply-accumulates",
    "instructions": "instructions",
    "cycles": "cycles",
    "time": "ms",
    "flash": "bytes",
    "arena": "bytes",
    SENSITIVITY: "nats per sample",
}
_KINDS = {
    **dict.fromkeys((ACCURACY, LOSS, *COMPUTED), Kind.MEASURED),
    SENSITIVITY: Kind.ESTIMATED,
}
"""Others are of the kind that the target's cost model gives."""
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Climbed:
    """What a search came to on the last rung of its ladder.

    Args:
        task: with the limits of the last rung.
        evaluator: scores on as many samples as the choice was scored on.
        order: numbers of trials that may be deployed, the choice first, then what the rule would
            choose without it, and so on.
        finishing: what made the candidates of the last rung, if they were trained.
    """

    found: Found
    rungs: tuple[Rung, ...]
    task: Task
    evaluator: Evaluator
    order: tuple[int, ...]
    finishing: Finishing | None = None

    def maker(self, number: int) -> Evaluator | Finishing:
        """What makes a candidate as it was scored last."""
        if self.finishing is not None and number in self.rungs[-1].accuracy:
            return self.finishing
        return self.evaluator

    def quantized(self, number: int) -> QuantizedModel:
        """A candidate as it was scored last."""
        return self.maker(number).quantized(self.found.trials[number].choices)


def outcome(
    workplace: Workplace,
    joint: Joint,
    climbed: Climbed,
    said: Sequence[str],
    folder: Path,
    progress: Progress,
) -> SearchResult:
    """A search's result; members of its front are built and measured for it. A choice that cannot
    be built, or exceeds a limit then, makes room for the next one.

    Args:
        said: notes to begin with.
        folder: where members of the front are built, each in `member_folder` of its number.

    Raises:
        InfeasibleSearchError: whatever could be chosen exceeds a limit once it is built.
    """
    evaluator, task, target = climbed.evaluator, climbed.task, workplace.target
    building = Building(climbed, target, folder)
    chosen = building.choice()
    found = replace(climbed.found, chosen=chosen)
    for number in progress.track(_spread(found, workplace.options), "deploying the front"):
        building.member(number)
    kinds = {**_KINDS, **evaluator.kinds(found.trials[chosen].choices)}
    built, metrics = building.built, {name for trial in found.trials for name in trial.metrics}
    return SearchResult(
        target=target.name,
        sampler=workplace.options.sampler,
        objectives=task.objectives,
        constraints=task.constraints,
        units={name: _UNITS[name.partition(ON)[0]] for name in sorted(metrics)},
        kinds={name: kinds[name].value for name in sorted(metrics)},
        log10_size=task.space.log10_size,
        remeasured={number: each.measured for number, each in built.items()},
        proven={number: each.compared for number, each in built.items()},
        frozen={layer: each.reason for each in joint.elastic.frozen for layer in each.layers},
        moot=task.space.moot,
        references=references(evaluator, joint.genes.offered, workplace.descriptions),
        rungs=climbed.rungs,
        **{**vars(found), "notes": (*said, *found.notes, *building.notes)},
    )


def member_folder(number: int) -> str:
    """The name of the folder with the artifact of a trial of the front."""
    return f"candidate-{number}"


@dataclass(eq=False)
class Building:
    """Builds candidates for the target, each once.

    Args:
        folder: where they are built, each in `member_folder` of its number.
    """

    climbed: Climbed
    target: Target
    folder: Path
    built: dict[int, Member] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _failed: set[int] = field(default_factory=set)

    def choice(self) -> int:
        """The first in order that keeps all limits as it is built; where nothing can be built, the
        first of all, which `compile` then says more about.

        Raises:
            InfeasibleSearchError: whatever can be built exceeds a limit then.
        """
        order = self.climbed.order
        for number in order:
            member = self.member(number)
            over = None if member is None else self._exceeded(member)
            if over is None:
                continue
            if not over:
                return number
            self.notes.append(f"candidate {number} is not deployed: as it was built, it has {over}")
        if not self.built:
            return order[0]
        raise InfeasibleSearchError(
            f"none of {len(order)} candidates that were predicted to keep all limits keeps them as"
            f" it is built; candidate {order[0]} has {self._exceeded(self.built[order[0]])}",
            fix="raise these limits to what the candidate has, or lower them for the search by what"
            " the cost model lacks; nothing is evaluated twice",
        )

    def member(self, number: int) -> Member | None:
        """A candidate, built; None where that failed."""
        if number in self.built or number in self._failed:
            return self.built.get(number)
        own = self.folder / member_folder(number)
        own.mkdir(parents=True)
        try:
            made = deployed(self.climbed.quantized(number), self.target, own)
        except EdgesmithError as error:
            self.notes.append(f"candidate {number} was not deployed: {error.message}")
            self._failed.add(number)
            shutil.rmtree(own)
            return None
        self.built[number] = made
        return made

    def _exceeded(self, member: Member) -> str:
        """The limits that a candidate exceeds, with what it has; empty where it keeps all."""
        measured = {name: each.value for name, each in member.measured.items()}
        return ", ".join(
            f"{each.metric} {measured[each.metric]:,.6g} against a limit of {each.limit:,.6g}"
            for each in self.climbed.task.constraints
            if each.metric in measured and each.excess(measured) > 0
        )


def _spread(found: Found, options: SearchOptions) -> tuple[int, ...]:
    """Members of the front to measure, the chosen one among them."""
    assert found.chosen is not None
    members = found.deployable
    at = members.index(found.chosen)
    return tuple(members[i] for i in spread_over(len(members), options.measure_front, at))


def said_of_formats(wanted: Formats, held: Offered, refused: Refused) -> Iterator[str]:
    """Where there was less to choose than the options offer.

    Args:
        held: what every target takes.
        refused: of it, for some genes.
    """
    lost = [
        f"{kind} {', '.join(missing)}"
        for kind in ("weights", "activations")
        if (missing := [n for n in getattr(wanted, kind) if n not in getattr(held, kind)])
    ]
    if lost:
        said = " and ".join(lost)
        yield f"not every target takes {said} beside whatever else is offered: nowhere offered"
    if not refused:
        return
    shown = [f"{gene} ({', '.join(sorted(refused[gene]))})" for gene in sorted(refused)[:_SHOWN]]
    more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    yield (
        f"a target refuses some of the formats at {len(refused)} of the choices, so they were not"
        f" offered there: {'; '.join(shown)}{more}"
    )


def said_of(tuned: Tuned | None) -> tuple[str, ...]:
    """What has to be known of the super-network's training."""
    if tuned is None or not tuned.diverged:
        return ()
    return (
        f"training of the super-network ended in epoch {tuned.epochs}: its loss was no number, or"
        f" accuracy fell below half; the weights of its best epoch are used"
        f" ({tuned.accuracy:.4g} % on average over sub-networks)",
    )
