"""What measuring sensitivity is told, and what it says. Imports no torch, so specs lint quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Method = Literal["hessian-trace", "fisher", "output-error", "divergence", "cross-terms"]
LossName = Literal["divergence", "squared-error", "labels"]

UNITS: dict[LossName, str] = {
    "divergence": "nats per sample",
    "squared-error": "half squared output error per sample",
    "labels": "nats per sample",
}
RELATIVE = "noise power / signal power"


@dataclass(frozen=True)
class SensitivityOptions:
    """How sensitivity is estimated.

    Args:
        method: `hessian-trace` (HAWQ), `fisher`, `output-error` of each layer, `divergence`
            (the loss measured with one group quantized at a time), `cross-terms` (the
            quadratic form of the Hessian, with the terms between layers).
        loss: what rises. `divergence` of the quantized from the float model's predictions
            and `squared-error` of its outputs need no labels.
        samples: calibration samples used, at most.
        probes: random vectors of `hessian-trace`.
        batch_size: samples per forward pass.
    """

    method: Method = "cross-terms"
    loss: LossName = "divergence"
    samples: Count = 256
    probes: Count = 32
    batch_size: Count = 64


@dataclass(frozen=True)
class Sensitivity:
    """Estimated rise of the loss when one group alone has a format.

    Args:
        group: a layer for weights, the first tensor of a tied set for activations.
        format: name of the format, as specs write it.
        loss: rise of the mean loss, in the unit of the `Sensitivities`.
    """

    group: str
    format: str
    loss: float


@dataclass(frozen=True)
class CrossTerm:
    """What the loss rises beyond the sum of both when two layers have these weight formats."""

    first: str
    first_format: str
    second: str
    second_format: str
    loss: float


@dataclass(frozen=True)
class Sensitivities:
    """All estimates for one model; the loss of a policy is the sum of those that it chooses.

    Args:
        unit: of every `loss` in it.
        samples: calibration samples that they were estimated on.
        activations: measured, whatever the method; empty when not asked for.
        cross: empty but for the method `cross-terms`.
    """

    method: Method
    unit: str
    samples: int
    seed: int
    weights: tuple[Sensitivity, ...]
    activations: tuple[Sensitivity, ...] = ()
    cross: tuple[CrossTerm, ...] = ()
