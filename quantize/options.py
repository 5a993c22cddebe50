"""What the `quantize` stage can be told: frozen dataclasses whose fields are its YAML keys.

Imports no torch, so that specs are linted quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.pipeline.values import (
    INT4_WEIGHT,
    INT8_ACTIVATION,
    INT8_WEIGHT,
    INT16_ACTIVATION,
    Granularity,
    QFormat,
)

Count = Annotated[int, Field(ge=1)]
WeightFormat = Literal["int8", "int4", "int8-per-tensor", "int4-per-tensor"]
ActivationFormat = Literal["int8", "int16"]
RangeMethod = Literal["mse", "percentile", "min-max"]

WEIGHT_FORMATS: dict[str, QFormat] = {
    "int8": INT8_WEIGHT,
    "int4": INT4_WEIGHT,
    "int8-per-tensor": replace(INT8_WEIGHT, granularity=Granularity.PER_TENSOR),
    "int4-per-tensor": replace(INT4_WEIGHT, granularity=Granularity.PER_TENSOR),
}
ACTIVATION_FORMATS: dict[str, QFormat] = {"int8": INT8_ACTIVATION, "int16": INT16_ACTIVATION}


@dataclass(frozen=True)
class Override:
    """One rule of an ordered list; for every group the last rule that matches wins.

    Args:
        name: shell-style pattern of group names (`layer1.*`), matched case-sensitively.
        op: shell-style pattern of operator kinds (`conv2d`, `linear`, `add`, `*`).
        weights: weight format of the matched groups; None leaves it as it is.
        activations: output format of the matched groups; None leaves it as it is.
    """

    name: str = "*"
    op: str = "*"
    weights: WeightFormat | None = None
    activations: ActivationFormat | None = None

    def __str__(self) -> str:
        return f"(name {self.name!r}, op {self.op!r})"


@dataclass(frozen=True)
class LearnedRounding:
    """Learn, layer by layer, which weights round up and which down (AdaRound).

    Args:
        iterations: optimizer steps per layer.
        learning_rate: of Adam.
        samples: calibration samples used, at most.
        batch_size: samples per step.
        regularization: weight of the term that drives every decision to 0 or 1, relative
            to the error of rounding to nearest.
    """

    iterations: Count = 300
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3
    samples: Count = 256
    batch_size: Count = 32
    regularization: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0


@dataclass(frozen=True)
class PTQOptions:
    """INT8 post-training quantization.

    Args:
        weights: default weight format; per output channel and symmetric unless it says otherwise.
        activations: default activation format; int8 has a zero point, int16 is symmetric.
        ranges: how activation ranges are chosen. `mse` also searches weight scales;
            the other two take the largest magnitude of each weight channel.
        percentile: percent of calibration values that `ranges: percentile` keeps per tail.
        equalize: cross-layer equalization before calibration.
        bias_correction: shift biases so that quantized weights keep every channel's mean.
        learned_rounding: None rounds weights to nearest.
        overrides: per-group formats, last match wins.
        batch_size: calibration samples per forward pass.
    """

    weights: WeightFormat = "int8"
    activations: ActivationFormat = "int8"
    ranges: RangeMethod = "mse"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    equalize: bool = True
    bias_correction: bool = True
    learned_rounding: LearnedRounding | None = None
    overrides: tuple[Override, ...] = ()
    batch_size: Count = 64

    def check(self) -> None:
        """Refuse values that no run can use.

        Raises:
            QuantizationError: a field is outside its range or names an unknown format.
        """
        if not 50.0 < self.percentile <= 100.0:
            raise QuantizationError(
                f"percentile is {self.percentile}; it keeps that many percent of each tail",
                fix="choose a value above 50 and at most 100, such as 99.99",
            )
        counts = {"batch_size": self.batch_size}
        if self.learned_rounding is not None:
            learned = self.learned_rounding
            counts["learned_rounding.iterations"] = learned.iterations
            counts["learned_rounding.samples"] = learned.samples
            counts["learned_rounding.batch_size"] = learned.batch_size
        for name, count in counts.items():
            if count < 1:
                raise QuantizationError(f"{name} is {count}", fix=f"choose a {name} of at least 1")
        _known("ranges", self.ranges, ("mse", "percentile", "min-max"))
        for weights in (self.weights, *(rule.weights for rule in self.overrides)):
            _known("weights", weights, tuple(WEIGHT_FORMATS))
        for activations in (self.activations, *(rule.activations for rule in self.overrides)):
            _known("activations", activations, tuple(ACTIVATION_FORMATS))


def _known(field: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise QuantizationError(
            f"{field} is {value!r}, which is none of {', '.join(choices)}",
            fix=f"set {field} to one of them",
        )
