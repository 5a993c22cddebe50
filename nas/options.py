"""What the search can be told; imports no torch, so that specs are linted quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from edgesmith.pipeline.registry import MemberOf
from edgesmith.pipeline.training.options import Count, NotNegative, Positive, Training
from edgesmith.quantize.options import ActivationFormat, WeightFormat

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class ElasticOverride:
    """Other choices for some dimensions.

    Args:
        name: shell-style pattern of dimensions: `width:features.*`, `depth:*`, `kernel:stem.0`.
        choices: any that there are, beside the trained model's own; none freezes it.
    """

    name: str
    choices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Elasticity:
    """What may vary.

    Args:
        least_width: share of a group's units that always stays.
        widths: of one group, at most; spread evenly.
        depth: residual blocks may go.
        kernels: kernels larger than 3 may shrink to their centre.
        exclude: shell-style patterns of layers that stay as they are.
        overrides: the last one that matches a dimension decides.
    """

    least_width: Share = 0.25
    widths: Annotated[int, Field(ge=1)] = 8
    depth: bool = True
    kernels: bool = True
    exclude: tuple[str, ...] = ()
    overrides: tuple[ElasticOverride, ...] = ()


@dataclass(frozen=True)
class SuperTraining(Training):
    """Training of all sub-networks at once.

    Args:
        strategy: a file in `nas/strategies/`.
        drawn: sub-networks per step, beside the largest and the smallest.
        divergence: between what a sub-network gives and what the largest gives.
        rounded: share of the passes of smaller sub-networks that run in randomly drawn formats.
        distillation: weight of the trained model's outputs against the labels, for the largest.
        processes: that train together, each on a part of every batch.
    """

    epochs: Count = 20
    learning_rate: Positive = 3e-3
    patience: Count = 1_000
    strategy: Annotated[str, MemberOf("edgesmith.nas.strategies")] = "uniform"
    drawn: Count = 2
    divergence: Literal["kl", "alpha"] = "kl"
    rounded: Annotated[float, Field(ge=0, le=1)] = 1.0
    processes: Count = 1


@dataclass(frozen=True)
class Formats:
    """Number formats to choose from; those that a target lacks are left out before the search.

    Args:
        weights: for every layer.
        activations: for every set of tensors that share a quantizer.
    """

    weights: Annotated[tuple[WeightFormat, ...], Field(min_length=1)] = ("int8", "int4", "int2")
    activations: Annotated[tuple[ActivationFormat, ...], Field(min_length=1)] = ("int8",)


CostMetric = Literal[
    "instructions",
    "cycles",
    "time",
    "flash",
    "arena",
    "weight-bytes",
    "macs",
    "bit-operations",
]


Rule = Annotated[str, Field(pattern=r"^(knee|best:[\w-]+)$")]
"""`knee`: where giving up a little of one objective gains least in the others. `best:METRIC`: the
best in one objective. Either is within all limits, as the front is."""
KNEE = "knee"
BEST = "best:"


def rules(objectives: Sequence[str]) -> tuple[str, ...]:
    """Every rule that there is where these metrics are the objectives."""
    return (KNEE, *(BEST + metric for metric in objectives))


@dataclass(frozen=True)
class SearchOptions:
    """A joint search over sub-networks of the trained model and the formats of every group.

    Args:
        target: whose cost counts; the first of the spec if not given.
        minimize: what is to be small beside a high accuracy; null takes what the target's cost
            model counts first: instructions on microcontrollers, time on this machine's runtimes.
        limits: cost -> most that a candidate may have; the target's flash and RAM always count.
        judge: what candidates are ranked by beside cost: `accuracy`, or `loss`, the cross-entropy
            on the selection split, which tells candidates apart where few samples are all right.
            Accuracy has its limit either way.
        tolerance_points: accuracy on the selection split may lie so far below the trained model's;
            null sets no such limit.
        choose: which candidate within all limits is deployed: `knee`, or `best:METRIC` of an
            objective; null takes the cheapest, or the knee where accuracy has no limit.
        sampler: a file in `nas/samplers/`.
        sampler_options: its own.
        evaluations: candidates that are quantized, scored and measured, at most.
        formats: number formats to choose from.
        elasticity: what may vary in the model.
        importance: a file in `prune/importances/`; widths keep the most important units.
        training: of the super-network; null takes the trained weights as they are.
        statistics: train samples that batch norms of a candidate are measured with.
        scored: selection samples that candidates are scored on; null takes all. Members of the
            front are scored on all of them afterwards.
        finetune: training of finalists in float, as sub-networks of their own, with the trained
            model as teacher; null leaves them the super-network's weights.
        finalists: candidates around the choice that are trained, by `finetune` and by the `qat` of
            `quantize`, before one of them is deployed. 0 trains the choice alone.
        recovers_points: accuracy that this training is trusted to bring: so far below
            `tolerance_points` candidates may lie that become finalists.
        measure_front: candidates of the front that are built and measured as a whole, at most.
        executor: a file in `nas/executors/`.
        executor_options: its own.
    """

    target: str | None = None
    minimize: Annotated[tuple[CostMetric, ...], Field(min_length=1)] | None = None
    limits: dict[CostMetric, Positive] = field(default_factory=dict)
    judge: Literal["accuracy", "loss"] = "accuracy"
    tolerance_points: NotNegative | None = 1.0
    choose: Rule | None = None
    sampler: Annotated[str, MemberOf("edgesmith.nas.samplers")] = "linas"
    sampler_options: dict[str, JsonValue] = field(default_factory=dict)
    evaluations: Annotated[int, Field(ge=2)] = 200
    formats: Formats = field(default_factory=Formats)
    elasticity: Elasticity = field(default_factory=Elasticity)
    importance: Annotated[str, MemberOf("edgesmith.prune.importances")] = "group-fisher"
    training: SuperTraining | None = field(default_factory=SuperTraining)
    statistics: Annotated[int, Field(ge=2)] = 512
    scored: Count | None = 1_000
    finetune: Training | None = None
    finalists: Annotated[int, Field(ge=0)] = 3
    recovers_points: NotNegative = 1.0
    measure_front: Count = 5
    executor: Annotated[str, MemberOf("edgesmith.nas.executors")] = "serial"
    executor_options: dict[str, JsonValue] = field(default_factory=dict)
