"""What the joint search brings on a Cortex-M4, against the same model's own full INT8.

Both come from the same trained model, through the same pipeline, and are counted on the emulated
core as they ship. Accuracy is that of the test split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import mean

from deployments import accuracy, deploy, spec_of, variant
from rows import Row

from edgesmith.nas.values import SearchResult
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.quantize.allocation.costs import WEIGHT_BYTES
from edgesmith.reports.search import SIMQ_NAS

CORE = "cortex-m4"


def keywords(folder: Path) -> Iterator[Row]:
    """DS-CNN on spoken digits; several seeds, because INT8 has all but one to three of the 480
    recordings right, and which those are is chance.
    """
    yield from _compared(
        "KWS", "kws-search", folder, points=0.0, fewer=2.0, smaller=2.0, seeds=(0, 1, 2)
    )


def images(folder: Path) -> Iterator[Row]:
    """ResNet-8 on CIFAR-10 as JPEG."""
    yield from _compared("IC", "ic-search", folder, points=0.5, fewer=1.5, smaller=2.0)


@dataclass(frozen=True)
class _Pair:
    """What ships of one trained model: all of it in INT8, and what a search found."""

    whole: DeploymentResult
    found: DeploymentResult

    @classmethod
    def of(cls, example: str, folder: Path, seed: int) -> _Pair:
        stages = spec_of(example)["stages"]
        return cls(
            _deployed(example, "int8", folder, [{"stage": "quantize"}], seed),
            _deployed(example, "bench", folder, stages, seed),
        )

    @property
    def accuracy(self) -> tuple[Fraction, Fraction]:
        """Percent of the test split, of the whole and of what was found."""
        return _percent(self.whole), _percent(self.found)

    def times(self, metric: str) -> float:
        """By how much what was found costs less."""
        return _on_device(self.whole, metric) / _on_device(self.found, metric)

    @property
    def lighter(self) -> float:
        """By how much what was found has fewer bytes of weights."""
        before, chosen = self._search.references["uniform int8"], self._search.trials[self._chosen]
        return before[WEIGHT_BYTES] / chosen.metrics[WEIGHT_BYTES]

    @property
    def predicted(self) -> float:
        """Percent by which the cost model is off."""
        measured = self._search.remeasured[self._chosen]["instructions"].value
        return 100 * (self._search.trials[self._chosen].metrics["instructions"] / measured - 1)

    @property
    def _search(self) -> SearchResult:
        assert self.found.search is not None
        return self.found.search

    @property
    def _chosen(self) -> int:
        assert self._search.chosen is not None
        return self._search.chosen


def _compared(
    name: str,
    example: str,
    folder: Path,
    points: float,
    fewer: float,
    smaller: float,
    seeds: Sequence[int] = (0,),
) -> Iterator[Row]:
    """A search of the examples against its model in INT8.

    Args:
        points: of accuracy that may be lost, in the mean of the seeds.
        fewer, smaller: at least so many times, in instructions and in bytes of flash, for every
            seed.
        seeds: of the specs; each trains a model of its own.
    """
    pairs = [_Pair.of(example, folder, seed) for seed in seeds]
    if len(pairs) > 1:
        for seed, pair in zip(seeds, pairs, strict=True):
            before, after = pair.accuracy
            yield Row(f"{name}: full INT8, seed {seed}", float(before), "%")
            yield Row(f"{name}: found by the search, seed {seed}", float(after), "%")
    before, after = (mean(each) for each in zip(*(pair.accuracy for pair in pairs), strict=True))
    yield Row(f"{name}: full INT8", float(before), "%")
    yield Row(f"{name}: found by the search", float(after), "%")
    yield Row(f"{name}: found below full INT8", float(before - after), "points", goal=points)
    for metric, goal, said in (
        ("instructions", fewer, "fewer instructions"),
        ("flash", smaller, "smaller"),
    ):
        ratio = min(pair.times(metric) for pair in pairs)
        row = f"{name}: found has {said}"
        yield Row(row, ratio, "times", "simulated", goal=goal, better="higher")
        published = SIMQ_NAS[metric]
        label = f"{name}: {said}, share of SimQ-NAS's {published:.2f} times"
        yield Row(label, ratio / published, "", "simulated")
    lighter = min(pair.lighter for pair in pairs)
    yield Row(f"{name}: found has fewer bytes of weights", lighter, "times")
    predicted = max((pair.predicted for pair in pairs), key=abs)
    yield Row(f"{name}: cost model against measured", predicted, "%")


def _deployed(
    example: str, kind: str, folder: Path, stages: list[dict[str, object]], seed: int
) -> DeploymentResult:
    name = f"{example}-{kind}-{seed}"
    return deploy(variant(example, name, folder, stages, [CORE], seed=seed), folder)[CORE]


def _percent(result: DeploymentResult) -> Fraction:
    """Without rounding: where two are right equally often, neither is below the other."""
    shipped = accuracy(result, "deployed")
    right = round(shipped.value / 100 * shipped.samples)
    return Fraction(100 * right, shipped.samples)


def _on_device(result: DeploymentResult, metric: str) -> float:
    assert result.device is not None
    found = getattr(result.device, metric)
    assert found is not None
    return float(found.value)
