"""What a search asks and finds, as values that round-trip to JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgesmith.nas.space import Candidate, Choice, Moot, Space
from edgesmith.pipeline.values import Measurement

Metrics = Mapping[str, float]
ACCURACY, LOSS = "accuracy", "loss"
FLOAT, UNIFORM = "float", "uniform "
"""Names of references: the trained model as it is, and before the name of a format."""
ON = " on "
"""Between a metric and the target that it is of, if that is another than the search's."""


@dataclass(frozen=True)
class Objective:
    """A metric that is to become better."""

    metric: str
    better: Literal["lower", "higher"]

    @property
    def is_cost(self) -> bool:
        """Whether it is no measure of how good candidates are."""
        return self.metric not in (ACCURACY, LOSS)

    def loss(self, metrics: Metrics) -> float:
        """The metric, signed so that less is better."""
        return metrics[self.metric] if self.better == "lower" else -metrics[self.metric]


@dataclass(frozen=True)
class Constraint:
    """A limit that a deployed candidate has to keep."""

    metric: str
    bound: Literal["most", "least"]
    limit: float

    def excess(self, metrics: Metrics) -> float:
        """How far beyond the limit, as a fraction of it; 0 within."""
        beyond = metrics[self.metric] - self.limit
        return max(beyond if self.bound == "most" else -beyond, 0.0) / max(abs(self.limit), 1e-12)


@dataclass(frozen=True)
class Trial:
    """One evaluation: appended to the archive, never rewritten.

    Args:
        number: in the order of asking, from 0.
        choices: gene -> choice, canonical.
        origin: what proposed it: `seed: uniform int8`, `predicted front`, `exploration`, ...
        metrics: of what was evaluated; empty where it failed.
        error: why it failed; empty where it did not.
        provenance: what the metrics rest on: samples, target, seed.
    """

    number: int
    choices: dict[str, Choice]
    origin: str
    metrics: dict[str, float]
    error: str = ""
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return bool(self.error)


@dataclass(frozen=True)
class Proposal:
    """A candidate that a sampler asks for, and why."""

    candidate: Candidate
    origin: str


@dataclass(frozen=True, eq=False)
class Task:
    """What a sampler works on.

    Args:
        objectives: at least one; those in `computed` are never predicted.
        constraints: hard; candidates are ranked by feasibility first.
        computed: metrics that need no evaluation (weight bytes, MACs, bit operations), exact.
        seeds: candidates to begin with: largest, smallest, each uniform format, solutions of an
            integer program.
        evaluations: how many there may be.
    """

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    computed: Callable[[Candidate], Metrics]
    seeds: tuple[Proposal, ...]
    evaluations: int
    seed: int

    def losses(self, metrics: Metrics) -> tuple[float, ...]:
        """All objectives, less is better."""
        return tuple(each.loss(metrics) for each in self.objectives)

    def violation(self, metrics: Metrics) -> float:
        """Sum of relative excesses over the constraints whose metrics are known; 0 if feasible."""
        return sum(each.excess(metrics) for each in self.constraints if each.metric in metrics)


@dataclass(frozen=True)
class PredictorQuality:
    """How well an objective was predicted, after so many evaluations.

    Args:
        used: predictors that cross-validation chose, the best first; their average is used.
        tau: Kendall's rank correlation in cross-validation, of each predictor and, under
            `proxy`, of multiply-accumulates times bits.
    """

    metric: str
    evaluations: int
    used: tuple[str, ...]
    tau: dict[str, float]


@dataclass(frozen=True)
class Rung:
    """Candidates that were looked at with more evidence than others.

    Args:
        name: what accuracy rests on here.
        samples: of the selection split.
        accuracy: number of a trial -> percent.
        tau: Kendall's rank correlation with accuracy on the rung below, of these candidates; None
            where there are too few of them or all are alike.
        loss: number of a trial -> nats per sample.
    """

    name: str
    samples: int
    accuracy: dict[int, float]
    tau: float | None
    loss: dict[int, float] = field(default_factory=dict)

    def interval(self, number: int) -> tuple[float, float]:
        """Where a candidate's accuracy on all such samples lies, in percent: 95 % confidence
        (Wilson). Few samples leave it wide, and candidates within it are alike.
        """
        from scipy.stats import binomtest

        right = round(self.accuracy[number] / 100 * self.samples)
        found = binomtest(right, self.samples).proportion_ci(method="wilson")
        return 100.0 * float(found.low), 100.0 * float(found.high)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What follows from the trials of a search, whatever was searched.

    Args:
        front: numbers of the trials that no feasible other dominates, by the first objective.
        chosen: number of the trial that is deployed; None where nothing is feasible.
        marks: label -> number: the trained model and each uniform format, where evaluated.
        hypervolume: after each evaluation, of the box between `ideal` and `nadir`.
        nearest_miss: where nothing is feasible, metric -> (found, limit) of the least violation.
        corrupted: lines of the archive that could not be read.
    """

    trials: tuple[Trial, ...]
    front: tuple[int, ...]
    chosen: int | None
    marks: dict[str, int]
    hypervolume: tuple[float, ...]
    ideal: tuple[float, ...]
    nadir: tuple[float, ...]
    predictors: tuple[PredictorQuality, ...]
    nearest_miss: dict[str, tuple[float, float]]
    notes: tuple[str, ...]
    corrupted: int = 0

    @property
    def deployable(self) -> tuple[int, ...]:
        """The front, and the choice if training has brought that within the limits only then."""
        chosen = () if self.chosen is None else (self.chosen,)
        return tuple(dict.fromkeys((*self.front, *chosen)))


@dataclass(frozen=True, kw_only=True)
class SearchResult(Found):
    """What a joint search found.

    Args:
        units, kinds: of every metric.
        remeasured: number of a trial of the front -> metrics of its own artifact.
        proven: of the same -> tensors of the artifact that are, bit for bit, those that were
            scored; all of them are.
        moot: which genes change nothing, and when.
        references: the trained model itself, `float` and `uniform int8`, ... -> metrics, on as many
            samples as the choice.
        frozen: layer -> why nothing in it can vary.
        rungs: of the ladder of evidence, the one that the search itself stands on first. On the
            last one the choice was made.
    """

    target: str
    sampler: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    units: dict[str, str]
    kinds: dict[str, str]
    log10_size: float
    remeasured: dict[int, dict[str, Measurement]]
    frozen: dict[str, str]
    proven: dict[int, int] = field(default_factory=dict)
    moot: tuple[Moot, ...] = ()
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    rungs: tuple[Rung, ...] = ()

    @property
    def judged(self) -> Rung | None:
        """The last rung that the choice was judged on."""
        return None if self.chosen is None else self._last_rung(self.chosen)

    def accuracy(self, number: int) -> float:
        """Percent that a trial had right on the last rung that it was judged on: after training,
        where it was trained.
        """
        rung = self._last_rung(number)
        return self.trials[number].metrics[ACCURACY] if rung is None else rung.accuracy[number]

    def _last_rung(self, number: int) -> Rung | None:
        return next((each for each in reversed(self.rungs) if number in each.accuracy), None)

    @property
    def chosen_metrics(self) -> Metrics:
        """Of the choice, with the accuracy and loss that it was chosen for: after training, where
        finalists were trained.
        """
        assert self.chosen is not None
        metrics, rung = dict(self.trials[self.chosen].metrics), self.judged
        if rung is not None:
            metrics[ACCURACY] = rung.accuracy[self.chosen]
            if self.chosen in rung.loss:
                metrics[LOSS] = rung.loss[self.chosen]
        return metrics

    def summary(self) -> list[str]:
        """What a log and a report say."""
        assert self.chosen is not None
        failed = sum(trial.failed for trial in self.trials)
        chosen = self.trials[self.chosen]
        told = [
            f"searched {len(self.trials)} of 10^{self.log10_size:.0f} candidates with"
            f" {self.sampler} for {self.target}{f', {failed} of them failed' if failed else ''};"
            f" {len(self.front)} are on the front",
            f"chosen: candidate {chosen.number} ({chosen.origin}), "
            + self._said(self.chosen_metrics),
        ]
        told += [
            f"the trained model, {name}: {self._said(metrics)}"
            for name, metrics in self.references.items()
        ]
        below = ("sensitivity", *(rung.name for rung in self.rungs))
        pairs = zip(self.rungs, below, strict=False)
        told += [_climbed(rung, self.chosen, name) for rung, name in pairs]
        return [*told, *self.notes]

    def _said(self, metrics: Metrics) -> str:
        names = dict.fromkeys((ACCURACY, *(each.metric for each in self.objectives)))
        return ", ".join(
            f"{name} {metrics[name]:,.6g} {self.units[name]}" for name in names if name in metrics
        )


def _climbed(rung: Rung, chosen: int, below: str) -> str:
    """`search: 200 candidates, the chosen one 99.2 % (97 to 99.8 with 95 % confidence: 240
    samples); rank correlation with sensitivity 0.67`.
    """
    said = f"{rung.name}: {len(rung.accuracy)} candidates"
    if chosen in rung.accuracy:
        low, high = (f"{each:.3g}" for each in rung.interval(chosen))
        said += (
            f", the chosen one {rung.accuracy[chosen]:.4g} % ({low} to {high} with 95 % confidence:"
            f" {rung.samples:,} samples)"
        )
    return said if rung.tau is None else f"{said}; rank correlation with {below} {rung.tau:.2f}"
