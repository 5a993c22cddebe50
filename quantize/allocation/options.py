"""What bit allocation can be told: a frozen dataclass whose fields are YAML keys. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from edgesmith.quantize.options import ActivationFormat, Override, WeightFormat
from edgesmith.quantize.sensitivity.values import SensitivityOptions

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Resource = Literal["weight-bytes", "bit-operations", "instructions", "cycles", "time"]


_OF_TARGET = ("instructions", "cycles", "time")


@dataclass(frozen=True)
class AllocationOptions:
    """Which formats there are to choose from, and what limits the choice.

    Args:
        weights: weight formats that every layer chooses from.
        activations: activation formats; with one, only weights are chosen.
        budget: resource -> largest total: `weight-bytes`, `bit-operations`, or a metric of the
            target whose costs are given.
        budget_share: resource -> largest total, as a fraction of what the quantization's own
            formats (its `weights` and `activations`) cost for all groups.
        resource: what the front is drawn over; None takes that of the first budget.
        points: of the front, about; None finds every point.
        least_accuracy_percent: the cheapest point within the budget that has this accuracy,
            measured, is chosen; None chooses by predicted loss alone.
        measurements: of accuracy, at most.
        measure_front: measure the accuracy of so many points spread over the front, or with true
            of every one, for the report; the chosen one is among them. None measures none, but the
            stage `allocate` five where the spec has a selection split.
        show: resources that the report draws the front over as well.
        seconds: per point, for the solver.
    """

    weights: Annotated[tuple[WeightFormat, ...], Field(min_length=1)] = ("int8", "int4")
    activations: Annotated[tuple[ActivationFormat, ...], Field(min_length=1)] = ("int8",)
    budget: dict[Resource, Positive] = field(default_factory=dict)
    budget_share: dict[Resource, Positive] = field(default_factory=dict)
    resource: Resource | None = None
    points: Annotated[int, Field(ge=2)] | None = 20
    least_accuracy_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    measurements: Annotated[int, Field(ge=1)] = 12
    measure_front: Annotated[int, Field(ge=1)] | bool | None = None
    show: tuple[Resource, ...] = ()
    seconds: Positive = 20.0
    sensitivity: SensitivityOptions = field(default_factory=SensitivityOptions)

    @property
    def metric(self) -> str | None:
        """The target's own cost that a budget or the front is in; None where none is."""
        return next((name for _, name in self.metrics()), None)

    def metrics(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Every cost of the target that is named, and where."""
        named: list[tuple[tuple[str | int, ...], str | None]] = [
            (("resource",), self.resource),
            *((("budget", name), name) for name in self.budget),
            *((("budget_share", name), name) for name in self.budget_share),
            *((("show", at), name) for at, name in enumerate(self.show)),
        ]
        yield from ((path, name) for path, name in named if name in _OF_TARGET)


@dataclass(frozen=True)
class Rules:
    """The outcome as rules for `PTQOptions.overrides`, one per group."""

    overrides: tuple[Override, ...]
