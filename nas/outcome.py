"""What a search came to, as its report and its log tell it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from edgesmith.nas.counts import MACS
from edgesmith.nas.evaluation import Evaluator
from edgesmith.nas.genes import Offered, Refused
from edgesmith.nas.joint import Joint
from edgesmith.nas.options import Formats, SearchOptions
from edgesmith.nas.proxy import SENSITIVITY
from edgesmith.nas.references import references
from edgesmith.nas.remeasure import Member, deployed
from edgesmith.nas.values import ACCURACY, LOSS, ON, Found, Rung, SearchResult, Task
from edgesmith.nas.workplace import Workplace
from edgesmith.pipeline.errors import EdgesmithError
from edgesmith.pipeline.stage import Progress
from edgesmith.pipeline.training.trainer import Tuned
from edgesmith.pipeline.values import Kind
from edgesmith.quantize.allocation.allocate import spread_over
from edgesmith.quantize.allocation.costs import UNITS

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


def outcome(
    workplace: Workplace,
    joint: Joint,
    task: Task,
    found: Found,
    rungs: tuple[Rung, ...],
    evaluator: Evaluator,
    folder: Path,
    progress: Progress,
) -> SearchResult:
    """A search's result; members of its front are built and measured for it.

    Args:
        task: with the limits of the last rung.
        evaluator: scores on as many samples as the choice was scored on.
        folder: where members of the front are built, each in `member_folder` of its number.
    """
    assert found.chosen is not None
    target = workplace.target
    metrics = {name for trial in found.trials for name in trial.metrics}
    built, notes = _built(found, task, evaluator, workplace, folder, progress)
    kinds = {**_KINDS, **evaluator.kinds(found.trials[found.chosen].choices)}
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
        rungs=rungs,
        **{**vars(found), "notes": (*found.notes, *notes)},
    )


def member_folder(number: int) -> str:
    """The name of the folder with the artifact of a trial of the front."""
    return f"candidate-{number}"


def _built(
    found: Found,
    task: Task,
    evaluator: Evaluator,
    workplace: Workplace,
    folder: Path,
    progress: Progress,
) -> tuple[dict[int, Member], list[str]]:
    """Members of the front as they were built, and what has to be said of it."""
    built: dict[int, Member] = {}
    notes = []
    for number in progress.track(_spread(found, workplace.options), "deploying the front"):
        choices, own = found.trials[number].choices, folder / member_folder(number)
        own.mkdir(parents=True)
        try:
            built[number] = deployed(evaluator, choices, workplace.target, own)
        except EdgesmithError as error:
            notes.append(f"candidate {number} of the front was not deployed: {error.message}")
            shutil.rmtree(own)
    of_choice = built[found.chosen].measured if found.chosen in built else {}
    measured = {name: each.value for name, each in of_choice.items()}
    notes += [
        f"the choice, as it was built, has {each.metric} {measured[each.metric]:,.6g} against a"
        f" limit of {each.limit:,.6g}"
        for each in task.constraints
        if each.metric in measured and each.excess(measured) > 0
    ]
    return built, notes


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
