"""What the `quantize` stage can be told: frozen dataclasses whose fields are its YAML keys.

Imports no torch, so that specs are linted quickly.
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.pipeline.values import (
    FLOAT32,
    FP8_E4M3,
    FP8_E5M2,
    INT4_ACTIVATION,
    INT8_ACTIVATION,
    INT8_WEIGHT,
    INT16_ACTIVATION,
    Granularity,
    Policy,
    QFormat,
    minifloat,
)


def _weight_formats() -> dict[str, QFormat]:
    """Weight formats by name: of files that hold them exactly, per channel and per tensor."""
    integers = [replace(INT8_WEIGHT, bits=bits) for bits in range(1, 9)]
    floats = [FP8_E4M3, FP8_E5M2]
    # E4M3 whose codes are all finite lies in no 8-bit float of ONNX.
    floats += [minifloat(e, m) for e in (2, 3, 4) for m in range(4) if (e, m) != (4, 3)]
    channels = [replace(each, granularity=Granularity.PER_CHANNEL) for each in floats]
    found = {fmt.name: fmt for fmt in (*integers, *channels)}
    return found | {
        f"{name}-per-tensor": replace(fmt, granularity=Granularity.PER_TENSOR)
        for name, fmt in found.items()
    }


WEIGHT_FORMATS: dict[str, QFormat] = _weight_formats()
ACTIVATION_FORMATS: dict[str, QFormat] = {
    fmt.name: fmt
    for fmt in (INT4_ACTIVATION, INT8_ACTIVATION, INT16_ACTIVATION, FP8_E4M3, FP8_E5M2, FLOAT32)
}


def _one_of(choices: Mapping[str, QFormat]) -> AfterValidator:
    """A name that has to be among the choices; wrong ones are reported as pydantic's literals."""

    def check(name: str) -> str:
        if name not in choices:
            expected = ", ".join(f"'{choice}'" for choice in choices)
            raise PydanticCustomError(
                "literal_error", "Input should be {expected}", {"expected": expected}
            )
        return name

    return AfterValidator(check)


Count = Annotated[int, Field(ge=1)]
WeightFormat = Annotated[
    str,
    _one_of(WEIGHT_FORMATS),
    WithJsonSchema({"type": "string", "enum": list(WEIGHT_FORMATS)}),
]
ActivationFormat = Annotated[
    str,
    _one_of(ACTIVATION_FORMATS),
    WithJsonSchema({"type": "string", "enum": list(ACTIVATION_FORMATS)}),
]
RangeMethod = Literal["mse", "percentile", "min-max"]


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
    """Post-training quantization.

    Args:
        weights: default weight format; per output channel and symmetric unless it says otherwise.
        activations: default activation format; int4 and int8 have a zero point, others not.
            An 8-bit float is the format of what convolutions, linear layers and matrix
            products read; other tensors are float32 then, which is what they compute.
        power_of_two_scales: scales are powers of two, biases' too, so that requantizing is a
            shift; zero points are kept.
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
    power_of_two_scales: bool = False
    ranges: RangeMethod = "mse"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    equalize: bool = True
    bias_correction: bool = True
    learned_rounding: LearnedRounding | None = None
    overrides: tuple[Override, ...] = ()
    batch_size: Count = 64

    def weight_format(self, name: str) -> QFormat:
        """The weight format of a name, with these options' kind of scales."""
        return replace(WEIGHT_FORMATS[name], power_of_two_scale=self.power_of_two_scales)

    def activation_format(self, name: str) -> QFormat:
        """The activation format of a name, with these options' kind of scales."""
        return replace(ACTIVATION_FORMATS[name], power_of_two_scale=self.power_of_two_scales)

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


def overrides_of(policy: Policy, groups: Collection[str]) -> tuple[Override, ...]:
    """A policy as rules, one per group, so that `PTQOptions(overrides=...)` carries it out.

    Args:
        groups: the network's groups (`Placement.groups`); a policy's other groups, which are
            requantizers between formats, follow from these.

    Raises:
        QuantizationError: a format that the options have no name for, or no such group.
    """
    unknown = [name for name in groups if name not in policy.groups]
    if unknown:
        raise QuantizationError(
            f"the policy has no formats for the group {unknown[0]!r}",
            fix="give every group a format, or quantize with overrides for those that differ",
        )
    return tuple(
        Override(
            glob.escape(name),
            weights=weight_name(formats.weight) if formats.weight is not None else None,
            activations=_named(formats.activation, ACTIVATION_FORMATS, "activation"),
        )
        for name, formats in policy.groups.items()
        if name in groups
    )


def weight_name(fmt: QFormat) -> str:
    """The name of a weight format in specs.

    Raises:
        QuantizationError: it has none.
    """
    return _named(fmt, WEIGHT_FORMATS, "weight")


def _named(fmt: QFormat, choices: Mapping[str, QFormat], what: str) -> str:
    plain = replace(fmt, power_of_two_scale=False)
    for name, choice in choices.items():
        if choice == plain:
            return name
    raise QuantizationError(
        f"{fmt} is no {what} format that models can be quantized to",
        fix=f"use one of {', '.join(str(choice) for choice in choices.values())}",
    )


def _known(field: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise QuantizationError(
            f"{field} is {value!r}, which is none of {', '.join(choices)}",
            fix=f"set {field} to one of them",
        )
