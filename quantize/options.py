"""What the `quantize` stage can be told: frozen dataclasses whose fields are its YAML keys.

Imports no torch, so that specs are linted quickly.
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

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
from edgesmith.quantize.engines.options import OWN, EngineName, NeuralCompressorOptions
from edgesmith.quantize.qat.options import QAT


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
RangeMethod = Literal["mse", "percentile", "kl", "min-max"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


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
    """Learn, block by block, which weights round up and which down (AdaRound, BRECQ).

    Args:
        iterations: optimizer steps per block.
        learning_rate: of Adam.
        samples: calibration samples used, at most.
        batch_size: samples per step.
        regularization: weight of the term that drives every decision to 0 or 1, relative
            to the error of rounding to nearest.
    """

    iterations: Count = 1000
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    samples: Count = 1024
    batch_size: Count = 32
    regularization: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0


@dataclass(frozen=True)
class GPTQ:
    """Round each layer column by column; what is left of it makes up for every rounding error.

    Args:
        samples: calibration samples used, at most.
        damping: share of the mean of the Hessian's diagonal that is added to it.
        order: columns by falling Hessian diagonal, or by their index.
    """

    samples: Count = 1024
    damping: Positive = 0.01
    order: Literal["hessian", "index"] = "hessian"


@dataclass(frozen=True)
class SmoothQuant:
    """Move outliers of activation channels into weights, where the function stays the same.

    Args:
        alpha: how much of the difficulty moves: 0 nothing but the weights' own spread,
            1 all of the activations'.
        samples: calibration samples used, at most.
    """

    alpha: Share = 0.5
    samples: Count = 256


@dataclass(frozen=True)
class DataFree:
    """Ranges and bias correction from batch-norm statistics; no calibration sample is read.

    Args:
        low: smallest value of the network's input.
        high: largest value of the network's input.
        sigmas: standard deviations around a channel's mean that ranges cover.
    """

    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]
    sigmas: Positive = 6.0


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
            the others take the largest magnitude of each weight channel.
        percentile: percent of calibration values that `ranges: percentile` keeps per tail.
        equalize: cross-layer equalization before calibration.
        smooth_quant: None leaves activation outliers where they are.
        bias_correction: shift biases so that quantized weights keep every channel's mean,
            but of layers whose rounding is learned, which keep it themselves.
        learned_rounding: None rounds weights to nearest.
        gptq: instead of learned rounding; None rounds weights to nearest.
        data_free: None finds ranges on calibration data. Otherwise `ranges` decides about
            weight scales alone, and is `mse` or `min-max`.
        qat: None ends here. Else the `quantize` stage goes on with quantization-aware training
            (`qat/train.py`), which the function `quantize` leaves to others.
        overrides: per-group formats, last match wins.
        batch_size: calibration samples per forward pass.
        engine: who decides about scales and zero points: these options, or another package
            with what it alone has; `ranges` is for tensors that it leaves out then, and
            equalization, bias correction and learned rounding are not done.
        neural_compressor: what `engine: neural-compressor` can be told.
    """

    weights: WeightFormat = "int8"
    activations: ActivationFormat = "int8"
    power_of_two_scales: bool = False
    ranges: RangeMethod = "mse"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    equalize: bool = True
    smooth_quant: SmoothQuant | None = None
    bias_correction: bool = True
    learned_rounding: LearnedRounding | None = None
    gptq: GPTQ | None = None
    data_free: DataFree | None = None
    qat: QAT | None = None
    overrides: tuple[Override, ...] = ()
    batch_size: Count = 64
    engine: EngineName = OWN
    neural_compressor: NeuralCompressorOptions | None = None

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
        if self.gptq is not None:
            counts["gptq.samples"] = self.gptq.samples
        if self.smooth_quant is not None:
            counts["smooth_quant.samples"] = self.smooth_quant.samples
        for name, count in counts.items():
            if count < 1:
                raise QuantizationError(f"{name} is {count}", fix=f"choose a {name} of at least 1")
        _known("ranges", self.ranges, get_args(RangeMethod))
        for weights in (self.weights, *(rule.weights for rule in self.overrides)):
            _known("weights", weights, tuple(WEIGHT_FORMATS))
        for activations in (self.activations, *(rule.activations for rule in self.overrides)):
            _known("activations", activations, tuple(ACTIVATION_FORMATS))
        _check_algorithms(self)
        check_engine(self)


def _check_algorithms(options: PTQOptions) -> None:
    """Refuse algorithms that decide about the same thing, or lack what they work on."""
    data_free = options.data_free
    if options.gptq is not None and options.learned_rounding is not None:
        raise QuantizationError(
            "`gptq` and `learned_rounding` both decide how weights round",
            fix="keep one of them; benchmarks/ptq.py compares the two",
        )
    on_data = ("learned_rounding", "gptq", "smooth_quant")
    given = [name for name in on_data if getattr(options, name) is not None]
    if data_free is not None and given:
        raise QuantizationError(
            f"`{given[0]}` works on calibration data, of which `data_free` reads none",
            fix=f"remove `{given[0]}` or `data_free`",
        )
    if data_free is not None and options.ranges in {"percentile", "kl"}:
        raise QuantizationError(
            f"`ranges: {options.ranges}` chooses from calibration data, of which `data_free`"
            " reads none",
            fix="set `ranges` to mse or min-max, which then decide about weight scales alone",
        )
    if data_free is not None and not data_free.low < data_free.high:
        raise QuantizationError(
            f"`data_free` says that inputs go from {data_free.low} to {data_free.high}",
            fix="give the smallest and the largest value of the network's input",
        )
    formats = (options.activations, *(rule.activations for rule in options.overrides))
    floats = [name for name in formats if name and ACTIVATION_FORMATS[name].is_float]
    if options.ranges == "kl" and any(name != "float32" for name in floats):
        raise QuantizationError(
            f"`ranges: kl` counts equal steps, which {floats[0]} activations do not have",
            fix="set `ranges` to mse, percentile or min-max",
        )


def check_engine(options: PTQOptions) -> None:
    """Refuse what an engine and this package's own algorithms would both decide.

    Raises:
        QuantizationError: names the option that is one too many.
    """
    _known("engine", options.engine, get_args(EngineName))
    own = ("learned_rounding", "gptq", "smooth_quant", "data_free", "qat")
    given = [name for name in own if getattr(options, name, None) is not None]
    if options.engine != OWN and given:
        raise QuantizationError(
            f"`{given[0]}` belongs to `engine: {OWN}`, but the engine is {options.engine!r}",
            fix=f"remove `{given[0]}`, or set `engine: {OWN}`",
        )
    if options.engine == OWN and options.neural_compressor is not None:
        raise QuantizationError(
            f"`neural_compressor` has no effect with `engine: {OWN}`",
            fix="set `engine: neural-compressor`, or remove it",
        )


def overrides_of(policy: Policy, groups: Collection[str]) -> tuple[Override, ...]:
    """A policy as rules, one per group, so that `PTQOptions(overrides=...)` carries it out.

    Args:
        groups: the network's groups (`Placement.groups`); a policy's other groups, which are
            requantizers between formats, follow from these.

    Raises:
        QuantizationError: a format that the options have no name for, no such group, or scales
            that are powers of two in some groups only: options have one kind for all.
    """
    unknown = [name for name in groups if name not in policy.groups]
    if unknown:
        raise QuantizationError(
            f"the policy has no formats for the group {unknown[0]!r}",
            fix="give every group a format, or quantize with overrides for those that differ",
        )
    chosen = [policy.groups[name] for name in groups]
    formats = [fmt for each in chosen for fmt in (each.weight, each.activation) if fmt is not None]
    if len({fmt.power_of_two_scale for fmt in formats}) > 1:
        raise QuantizationError(
            "the policy's scales are powers of two in some groups, and any numbers in others",
            fix="give all groups the same kind, which `power_of_two_scales` sets",
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
