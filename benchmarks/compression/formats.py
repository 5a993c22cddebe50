"""Post-training quantization to every format, deployed: accuracy, parity, and what ships."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments import deploy, percent, variant
from rows import Row

from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.stages.score import FIXED_POINT_FORM
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import Granularity
from edgesmith.quantize.options import ACTIVATION_FORMATS, WEIGHT_FORMATS
from edgesmith.quantize.target_formats import TakenFormats

INTEGERS, FLOATS = "c-host", "cpu-onnxruntime-fp8"
LEARNED: dict[str, Any] = {"learned_rounding": {}}


@dataclass(frozen=True)
class Recipe:
    """One way to quantize.

    Args:
        stage: parameters of the stage `quantize`.
        goal: largest loss of accuracy, points; None states it without judging.
    """

    name: str
    stage: dict[str, Any]
    target: str = INTEGERS
    goal: float | None = None


def _recipe(weights: str, activations: str, goal: float | None = None, **more: Any) -> Recipe:
    floating = activations in {"fp8-e4m3", "fp8-e5m2", "float32"}
    stage = {"weights": weights, "activations": activations, **more}
    scales = ", scales powers of two" if more.get("power_of_two_scales") else ""
    return Recipe(
        f"{weights} x {activations}{scales}", stage, FLOATS if floating else INTEGERS, goal
    )


JUDGED = {
    "INT8": _recipe("int8", "int8", 0.3),
    "W4A8": _recipe("int4", "int8", 1.5, **LEARNED),
    "FP8 E4M3": _recipe("fp8-e4m3", "fp8-e4m3", 0.3),
}


def _sweep(target: str, usual: str) -> Iterator[Recipe]:
    """All weight formats that a target takes, and per channel all activation formats with them.

    Args:
        usual: the activation format of those with one scale per tensor.
    """
    taken = TakenFormats.of(get_target(target).describe())
    for weights in taken.weight_names():
        per_tensor = WEIGHT_FORMATS[weights].granularity is Granularity.PER_TENSOR
        for activations in (usual,) if per_tensor else taken.activation_names():
            if taken.takes(ACTIVATION_FORMATS.get(activations), WEIGHT_FORMATS[weights]):
                yield _recipe(weights, activations)


_JUDGED_NAMES = {recipe.name for recipe in JUDGED.values()}
SWEEP = (
    *(each for each in _sweep(INTEGERS, "int8") if each.name not in _JUDGED_NAMES),
    *(each for each in _sweep(FLOATS, "fp8-e4m3") if each.name not in _JUDGED_NAMES),
    _recipe("int8", "int8", power_of_two_scales=True),
    _recipe("int4", "int8", power_of_two_scales=True),
)


def formats(folder: Path) -> Iterator[Row]:
    """IC and KWS in the formats that have a goal; KWS in every format."""
    found: list[DeploymentResult] = []
    for example in ("ic", "kws"):
        for name, recipe in JUDGED.items():
            result = deployed(example, recipe, folder)
            found.append(result)
            floating = percent(result, "float")
            if name == "INT8":
                yield Row(f"{example.upper()}: float accuracy", floating, "%")
            drop = floating - percent(result, "deployed")
            title = f"{example.upper()}: {name}, PTQ, below float"
            yield Row(title, drop, "points", goal=recipe.goal)
    for recipe in SWEEP:
        result = deployed("kws", recipe, folder)
        found.append(result)
        yield Row(f"KWS: {recipe.name}, PTQ", percent(result, "deployed"), "%")
    yield from shipped(found)


def deployed(example: str, recipe: Recipe, folder: Path) -> DeploymentResult:
    """An example with its official weights, quantized by a recipe and run on its target."""
    name = f"{example}-{recipe.name}".replace(" x ", "-").replace(", ", "-").replace(" ", "-")
    spec = variant(example, name, folder, [{"stage": "quantize", **recipe.stage}], [recipe.target])
    return deploy(spec, folder)[recipe.target]


def shipped(results: list[DeploymentResult]) -> Iterator[Row]:
    """That what was scored is what ships, over many deployments."""
    parity = [each.parity for each in results if each.parity is not None]
    if len(parity) != len(results):
        raise ValueError("a deployment without a parity report")
    many = f"{len(results)} deployments"
    different = sum(each.different for each in parity)
    yield Row(f"{many}: tensors that differ in parity reports", different, "tensors", goal=0)
    yield Row(f"{many}: tensors compared", sum(each.compared for each in parity), "tensors")
    title = f"{many}: deployed against fake-quantized"
    yield Row(
        f"{title} with the target's rounding, worst", max(map(_apart, results)), "points", goal=0.1
    )
    ideal = max(abs(percent(r, "deployed") - percent(r, "fake-quantized")) for r in results)
    yield Row(f"{title} with ONNX's rounding, worst", ideal, "points")


def _apart(result: DeploymentResult) -> float:
    """Points between what ships and what was scored, with the rounding of the target."""
    forms = {row.form for row in result.accuracy}
    scored = FIXED_POINT_FORM if FIXED_POINT_FORM in forms else "fake-quantized"
    return abs(percent(result, "deployed") - percent(result, scored))
