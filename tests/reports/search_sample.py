"""A search for the tests of the report, made from a seed. Every figure is invented."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgesmith.nas.found import found
from edgesmith.nas.space import Candidate, Gene, Moot, Space
from edgesmith.nas.values import (
    ACCURACY,
    Constraint,
    Metrics,
    Objective,
    PredictorQuality,
    Proposal,
    Rung,
    SearchResult,
    Task,
    Trial,
)
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.values import Kind, Measurement
from tests.reports.sample import HOSTILE, Sample, device_result, measured, sample_result

TRIALS, FAILED = 40, 17
UNITS = {
    "accuracy": "%",
    "instructions": "instructions",
    "flash": "bytes",
    "macs": "multiply-accumulates",
    "time": "ms",
}
KINDS = {
    "accuracy": "measured",
    "instructions": "simulated",
    "flash": "measured",
    "macs": "measured",
    "time": "estimated",
}
BITS = {"int8": 8, "int4": 4, "int2": 2}


def searched_result(sample: Sample | None = None) -> DeploymentResult:
    """The sample's result of a device, of a model that a search chose."""
    sample = sample or Sample()
    search = sample_search(hostile=sample.hostile)
    result = (device_result if sample.device else sample_result)(sample)
    return replace(result, search=search, notes=(*search.summary(), *result.notes))


def sample_search(*, hostile: bool = False, evaluations: int = TRIALS) -> SearchResult:
    """Forty candidates of two blocks, one of them failed; the last quarter is near the front."""
    draw = random.Random(7)
    space = _space(HOSTILE if hostile else ())
    seeds = _seeds(space)
    asked = [(each.candidate, each.origin) for each in seeds]
    while len(asked) < evaluations:
        candidate = space.canonical([draw.randrange(size) for size in space.sizes])
        late = len(asked) > 0.7 * evaluations
        asked.append((candidate, "predicted front" if late else "exploration"))
    trials = [_trial(space, at, each, origin) for at, (each, origin) in enumerate(asked)]
    task = Task(
        space,
        (Objective(ACCURACY, "higher"), Objective("instructions", "lower")),
        (Constraint("flash", "most", 30_000.0), Constraint(ACCURACY, "least", 85.0)),
        lambda candidate: _metrics(space, candidate),
        seeds,
        evaluations,
        7,
    )
    what = found(task, trials, "knee", _predictors(evaluations), corrupted=(3, 9))
    return SearchResult(
        **vars(what),
        target=HOSTILE[0] if hostile else "cortex-m4",
        sampler="linas",
        objectives=task.objectives,
        constraints=task.constraints,
        units=UNITS,
        kinds=KINDS,
        log10_size=space.log10_size,
        remeasured=(again := _remeasured(what.front, trials)),
        proven=dict.fromkeys(again, 12),
        frozen={HOSTILE[1] if hostile else "classifier": "it makes the model's output"},
        moot=space.moot,
        references=_references(what.marks, trials),
        rungs=_rungs(what.front, what.chosen, trials, HOSTILE[0] if hostile else "after training"),
    )


def _references(marks: Mapping[str, int], trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """The trained model is a little better than the largest sub-network."""
    found = {"float": {ACCURACY: 99.7}}
    for name, number in marks.items():
        if name.startswith("uniform"):
            metrics = trials[number].metrics
            found[name] = {**metrics, ACCURACY: metrics[ACCURACY] + 0.1}
    return found


def _rungs(
    front: Sequence[int], chosen: int | None, trials: Sequence[Trial], last: str
) -> tuple[Rung, ...]:
    """The search, the front on all samples, and the choice trained."""
    accuracy = {each.number: each.metrics[ACCURACY] for each in trials if not each.failed}
    assert chosen is not None
    return (
        Rung("search", 1000, accuracy, 0.31),
        Rung("all of the selection split", 5000, {n: accuracy[n] - 0.5 for n in front}, -0.2),
        Rung(last, 5000, {chosen: accuracy[chosen] + 0.25}, None),
    )


def _space(hostile: Sequence[str]) -> Space:
    layers = ("stem", "block1.first", "block1.second", "block2.first", "head")
    widths = tuple(Gene(f"width:{name}", (16, 12, 8, 4)) for name in (*layers[:2], layers[3]))
    blocks = tuple(Gene(f"depth:block{n}", (1, 0)) for n in (1, 2))
    weights = tuple(Gene(f"weights:{name}", tuple(BITS)) for name in (*layers, *hostile))
    activations = (Gene("activations:stem", ("int16", "int8")),)
    moot = tuple(
        Moot(
            block.name,
            0,
            tuple(g.name for g in (*widths, *weights) if f":{block.name[6:]}." in g.name),
        )
        for block in blocks
    )
    return Space((*widths, *blocks, *weights, *activations), moot)


def _seeds(space: Space) -> tuple[Proposal, ...]:
    """The trained model in each format, and the smallest candidate."""
    uniform = [
        (space.of({g.name: name for g in space.genes if name in g.choices}), f"uniform {name}")
        for name in BITS
    ]
    smallest = space.canonical([size - 1 for size in space.sizes])
    named = [*uniform, (smallest, "smallest, int2")]
    return tuple(Proposal(candidate, f"seed: {name}") for candidate, name in named)


def _trial(space: Space, number: int, candidate: Candidate, origin: str) -> Trial:
    choices = space.choices(candidate)
    if number == FAILED:
        return Trial(number, choices, origin, {}, "EvaluationError: a <b>worker</b> died")
    provenance = {"target": "cortex-m4", "samples": "500"}
    return Trial(number, choices, origin, dict(_metrics(space, candidate)), "", provenance)


def _metrics(space: Space, candidate: Candidate) -> Metrics:
    choices = space.choices(candidate)
    size = sum(int(c) for name, c in choices.items() if name.startswith("width:")) / 48
    size *= 0.25 + 0.375 * sum(int(choices[f"depth:block{n}"]) for n in (1, 2))
    bits = [BITS[str(c)] for name, c in choices.items() if name.startswith("weights:")]
    mean = sum(bits) / len(bits)
    instructions = round(3e6 * size**1.5 * (1.3 - mean / 26))
    return {
        ACCURACY: round(99.5 - 40 * (1 - size) ** 2 - 45 * (1 - mean / 8) ** 2, 1),
        "instructions": float(instructions),
        "flash": float(6_000 + round(28_000 * size * mean / 8)),
        "macs": float(round(2.8e6 * size**1.5)),
        "time": instructions / 180_000,
    }


def _predictors(evaluations: int) -> tuple[PredictorQuality, ...]:
    """Two fits of two metrics."""
    return tuple(
        PredictorQuality(
            metric,
            after,
            ("trees", "ridge"),
            {"ridge": 0.4 + after / 100, "proxy": 0.6, "trees": 0.5 + after / 100},
        )
        for after in (evaluations // 2, 3 * evaluations // 4)
        for metric in (ACCURACY, "instructions")
    )


def _remeasured(front: Sequence[int], trials: Sequence[Trial]) -> dict[int, dict[str, Measurement]]:
    """Every second member: instructions as predicted, flash 2 % more, time of this machine and not
    estimated, and an arena beside it.
    """
    return {
        number: {
            "instructions": _simulated(trials[number].metrics["instructions"]),
            "flash": measured("flash", 1.02 * trials[number].metrics["flash"], "bytes", 1),
            "time": measured("time", trials[number].metrics["time"], "ms", 200),
            "arena": measured("arena", 12_696.0, "bytes", 1),
        }
        for number in front[::2]
    }


def _simulated(value: float) -> Measurement:
    return Measurement("instructions", value, "instructions", Kind.SIMULATED, "cortex-m4", 4)
