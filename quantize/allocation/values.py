"""What a report draws of an allocation, as values; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgesmith.pipeline.values import Kind


@dataclass(frozen=True)
class Accuracy:
    """Percent of correct predictions of the quantized module, measured."""

    percent: float
    samples: int
    split: str


@dataclass(frozen=True)
class Point:
    """One policy.

    Args:
        label: `uniform int8`, or its number in the front.
        loss: predicted rise of the loss.
        costs: total per resource.
        weight_bits: layer -> bits per weight.
        activation_bits: group -> bits; empty where there was one activation format.
        accuracy: None where it was not measured.
    """

    label: str
    loss: float
    costs: dict[str, float]
    weight_bits: dict[str, int]
    activation_bits: dict[str, int]
    accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Figure:
    """A front and the uniform policies beside it.

    Args:
        resource: what the front trades for loss.
        units: of every resource.
        chosen: label of the policy that the run goes on with; empty where none is.
        budget: resource -> limit.
        kinds: how the costs in a resource came to be; one that is not named follows from shapes.
        costs_of: the target whose costs they are; empty without one.
        method: of the sensitivity, which the loss is predicted by.
    """

    resource: str
    units: dict[str, str]
    loss_unit: str
    front: tuple[Point, ...]
    uniform: tuple[Point, ...]
    chosen: str = ""
    budget: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)
    costs_of: str = ""
    method: str = ""
