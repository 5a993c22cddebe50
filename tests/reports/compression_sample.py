"""A result of a model that was pruned, trained and given formats layer by layer."""

from __future__ import annotations

from dataclasses import replace

from edgesmith.pipeline.results import DeploymentResult, LayerFormats, LayerRow
from edgesmith.pipeline.values import Kind
from edgesmith.prune.values import CostFigure, Frozen, LayerWidth, PruneResult, Round
from edgesmith.quantize.allocation.values import Accuracy, Figure, Point
from edgesmith.quantize.qat.values import QATResult
from edgesmith.reports.overview import TargetEntry
from tests.reports.sample import HOSTILE, Sample, bare_result, device_result, sample_result

FORMATS = ("int8", "int4", "int3")


def compressed_result(sample: Sample | None = None) -> DeploymentResult:
    """The sample's result with everything that compression adds."""
    sample = sample or Sample()
    result = sample_result(sample)
    layers = tuple(with_formats(layer) for layer in result.layers)
    pruning, training = sample_pruning(sample), sample_training()
    told = (*pruning.summary(), *training.summary())
    return replace(
        result,
        layers=layers,
        pruning=pruning,
        training=training,
        allocation=sample_front(layers, sample),
        notes=(*told, *result.notes),
    )


def with_formats(layer: LayerRow) -> LayerRow:
    """Every third layer int3 in int4, every third int4; a zero code in every ninth weight."""
    if layer.weight_bits is None:
        return replace(layer, formats=LayerFormats("int8", "int8", None, False, 0, 0, 0))
    name = FORMATS[layer.index % 3]
    weights = 4 * (layer.weight_bytes or 1)
    found = LayerFormats(
        reads="int8",
        writes="int16" if layer.index % 5 == 4 else "int8",
        weight=name,
        per_channel=True,
        weights=weights,
        zeros=weights // 9,
        code_bytes=weights if name == "int8" else weights // 2,
        channels=(16, 16 - 2 * (layer.index % 4)),
    )
    return replace(layer, formats=found)


def sample_pruning(sample: Sample) -> PruneResult:
    """Three rounds, of which the second was rolled back."""
    layer = HOSTILE[1] if sample.hostile else "fc"
    return PruneResult(
        target=HOSTILE[0] if sample.hostile else "cortex-m4",
        before=CostFigure(12_000_000.0, "instructions", Kind.SIMULATED, "counted in QEMU"),
        after=CostFigure(6_600_000.0, "instructions", Kind.SIMULATED, "counted in QEMU"),
        goal=6_000_000.0,
        reached=False,
        accuracy_before=98.5,
        accuracy_after=97.25,
        rounds=(
            Round(9e6, 8.9e6, 90.0, 98.0, True, 4),
            Round(6e6, 5.9e6, 60.0, 91.0, False, 4),
            Round(7e6, 6.6e6, 80.0, 97.25, True, 3),
        ),
        widths=(LayerWidth("stage1.0.conv2d", 16, 10, 0.1), LayerWidth(layer, 10, 10)),
        frozen=(Frozen((layer,), "makes the model's output"),),
        notes=(f"zero weights: no gain on {layer}",),
    )


def sample_training() -> QATResult:
    return QATResult(98.5, 96.0, 98.25, 6, improved=True, diverged=False, samples=500)


def sample_front(layers: tuple[LayerRow, ...], sample: Sample) -> Figure:
    """Six candidates, every second one measured, and two uniform formats."""
    names = [layer.name for layer in layers if layer.weight_bits is not None] or ["only"]
    front = tuple(_point(f"front {at}", at, names, measured=at % 2 == 1) for at in range(6))
    uniform = (
        _point("uniform int4", 0, names, measured=True),
        _point("uniform int8", 6, names, measured=True),
    )
    return Figure(
        resource="weight-bytes",
        units={"weight-bytes": "bytes", "bit-operations": "bit operations", "time": "ms"},
        loss_unit="nats per sample",
        front=front,
        uniform=uniform,
        chosen="front 3",
        budget={"weight-bytes": 65_000.0},
        kinds={"time": Kind.ESTIMATED},
        costs_of=HOSTILE[0] if sample.hostile else "cortex-m4",
        method="cross-terms",
    )


def _point(label: str, at: int, names: list[str], *, measured: bool) -> Point:
    accuracy = Accuracy(95.0 + 0.5 * at, 500, "selection") if measured else None
    bits = {name: 8 if at >= 6 or (index < at) else 4 for index, name in enumerate(names)}
    costs = {
        "weight-bytes": 40_000.0 + 8_000 * at,
        "bit-operations": 4e8 + 6e7 * at,
        "time": 12.0 - 0.5 * at,
    }
    return Point(label, 0.5 / 4**at, costs, bits, {}, accuracy)


def entries() -> list[TargetEntry]:
    """Targets of a run in every state."""
    return [
        TargetEntry("cpu-litert", compressed_result()),
        TargetEntry("cortex-m4@nucleo-f446re", device_result()),
        TargetEntry("bare", bare_result()),
        TargetEntry("gone", None, error="ES411: no such operator"),
        TargetEntry("cuda-fp8", None, skipped="no CUDA device with FP8"),
    ]
