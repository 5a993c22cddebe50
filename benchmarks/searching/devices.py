"""What the joint search brings on a Cortex-M4, against the same model's own full INT8.

Both come from the same trained model, through the same pipeline, and are counted on the emulated
core as they ship. Accuracy is that of the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deployments import deploy, percent, spec_of, variant
from rows import Row

from edgesmith.pipeline.results import DeploymentResult
from edgesmith.quantize.allocation.costs import WEIGHT_BYTES
from edgesmith.reports.search import SIMQ_NAS

CORE = "cortex-m4"


def keywords(folder: Path) -> Iterator[Row]:
    """DS-CNN on spoken digits."""
    yield from _compared("KWS", "kws-search", folder, points=0.0, fewer=2.0, smaller=2.0)


def images(folder: Path) -> Iterator[Row]:
    """ResNet-8 on CIFAR-10 as JPEG."""
    yield from _compared("IC", "ic-search", folder, points=0.5, fewer=1.5, smaller=2.0)


def _compared(
    name: str, example: str, folder: Path, points: float, fewer: float, smaller: float
) -> Iterator[Row]:
    """A search of the examples against its model in INT8.

    Args:
        points: of accuracy that may be lost.
        fewer, smaller: at least so many times, in instructions and in bytes of flash.
    """
    stages = spec_of(example)["stages"]
    whole = _deployed(example, f"{example}-int8", folder, [{"stage": "quantize"}])
    found = _deployed(example, f"{example}-bench", folder, stages)
    result = found.search
    assert result is not None
    assert result.chosen is not None
    before, after = percent(whole, "deployed"), percent(found, "deployed")
    yield Row(f"{name}: full INT8", before, "%")
    yield Row(f"{name}: found by the search", after, "%")
    yield Row(f"{name}: found below full INT8", before - after, "points", goal=points)
    for metric, goal, said in (
        ("instructions", fewer, "fewer instructions"),
        ("flash", smaller, "smaller"),
    ):
        ratio = _on_device(whole, metric) / _on_device(found, metric)
        row = f"{name}: found has {said}"
        yield Row(row, ratio, "times", "simulated", goal=goal, better="higher")
        published = SIMQ_NAS[metric]
        label = f"{name}: {said}, share of SimQ-NAS's {published:.2f} times"
        yield Row(label, ratio / published, "", "simulated")
    trials = result.trials
    ends = result.references["uniform int8"], trials[result.chosen].metrics
    stored = [metrics[WEIGHT_BYTES] for metrics in ends]
    yield Row(f"{name}: found has fewer bytes of weights", stored[0] / stored[1], "times")
    chosen = result.remeasured[result.chosen]["instructions"].value
    predicted = trials[result.chosen].metrics["instructions"]
    yield Row(f"{name}: cost model against measured", 100 * (predicted / chosen - 1), "%")


def _deployed(
    example: str, name: str, folder: Path, stages: list[dict[str, object]]
) -> DeploymentResult:
    return deploy(variant(example, name, folder, stages, [CORE]), folder)[CORE]


def _on_device(result: DeploymentResult, metric: str) -> float:
    assert result.device is not None
    found = getattr(result.device, metric)
    assert found is not None
    return float(found.value)
