"""Quantization-aware training against the float model that it starts from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployments import deploy, percent, variant
from rows import Row

from compression.trained import TRAINING, Trained, trained
from edgesmith.pipeline.results import DeploymentResult

TARGET = "cpu-litert"
IMAGES: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 128,
    "distillation": 0.7,
    "temperature": 3.0,
    "flip": True,
    "shift": 3,
}


def qat(folder: Path) -> Iterator[Row]:
    """IC with 4-bit weights, after training and with training; KWS down to one bit."""
    start = trained(folder)
    plain = _image_classifier("ic-tuned-w4a8", folder, start, {})
    aware = _image_classifier("ic-qat-w4a8", folder, start, {"qat": IMAGES})
    floating = percent(aware, "float")
    yield Row("IC: float, fine-tuned", floating, "%")
    yield Row("IC: W4A8, PTQ, nearest rounding", percent(plain, "deployed"), "%")
    yield Row("IC: W4A8, QAT", percent(aware, "deployed"), "%")
    below = floating - percent(aware, "deployed")
    yield Row("IC: W4A8, QAT, below float", below, "points", goal=0.5)
    for bits in (4, 2, 1):
        for name, more in (("PTQ", {}), ("QAT", {"qat": {"epochs": 12}})):
            stage = {"stage": "quantize", "weights": f"int{bits}", **more}
            spec = variant("kws", f"kws-{name.lower()}-w{bits}a8", folder, [stage], ["c-host"])
            result = deploy(spec, folder)["c-host"]
            yield Row(f"KWS: W{bits}A8, {name}", percent(result, "deployed"), "%")


def _image_classifier(
    name: str, folder: Path, start: Trained, more: dict[str, Any]
) -> DeploymentResult:
    stage = {"stage": "quantize", "weights": "int4", **more}
    spec = variant(
        "ic", name, folder, [stage], [TARGET], data=TRAINING, checkpoint=start.checkpoint
    )
    return deploy(spec, folder)[TARGET]
