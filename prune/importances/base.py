"""What an importance is: a score for every unit; most sum a saliency of every weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgesmith.pipeline.training.loss import class_loss

if TYPE_CHECKING:
    from edgesmith.pipeline.registry import Registry
    from edgesmith.prune.values import Axis, ChannelGroup

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Samples that importances look at: inputs [N, *sample shape], labels int64 [N]."""

    inputs: Tensor
    labels: Tensor
    seed: int
    batch_size: int = 32

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """In order."""
        yield from zip(
            self.inputs.split(self.batch_size), self.labels.split(self.batch_size), strict=True
        )


@dataclass(frozen=True)
class Importance(ABC):
    """One way to score units."""

    name: ClassVar[str]

    @abstractmethod
    def scores(
        self, model: nn.Module, groups: Sequence[ChannelGroup], data: Labelled
    ) -> dict[str, Scores]:
        """Group name -> score per unit, [units]; larger matters more.

        Args:
            model: in eval mode, its parameters requiring gradients.
        """


@dataclass(frozen=True)
class ElementImportance(Importance):
    """Scores every element of every parameter, and sums over what a unit's channels make.

    Its readers' weights would count the same channel twice. `is_global` scores estimate the loss
    that removing a unit costs and compare across groups; others are divided by their group's mean.
    """

    is_global: ClassVar[bool] = False

    @abstractmethod
    def saliency(self, model: nn.Module, data: Labelled) -> dict[str, Tensor]:
        """Parameter name -> non-negative saliency of each of its elements.

        Args:
            model: in eval mode, its parameters requiring gradients.
        """

    def scores(
        self, model: nn.Module, groups: Sequence[ChannelGroup], data: Labelled
    ) -> dict[str, Scores]:
        found = self.saliency(model, data)
        made = {group.name: summed(group, found, "out") for group in groups}
        if self.is_global:
            return made
        return {name: each / max(float(each.mean()), 1e-30) for name, each in made.items()}


def importances() -> Registry[Importance]:
    """All importances, by name."""
    from edgesmith.pipeline.registry import Registry

    package, group = "edgesmith.prune.importances", "edgesmith.importances"
    return Registry("importance", package, group, Importance)  # type: ignore[type-abstract]


def magnitudes(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter, detached."""
    return {name: value.detach() for name, value in model.named_parameters()}


def gradients(model: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Of the class loss, mean over the batch; zero for parameters without influence."""
    names, values = zip(*model.named_parameters(), strict=True)
    with torch.enable_grad():
        loss = class_loss(model(inputs), labels)
        found = torch.autograd.grad(loss, values, allow_unused=True)
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for name, value, gradient in zip(names, values, found, strict=True)
    }


def summed(group: ChannelGroup, values: dict[str, Tensor], axis: Axis) -> Scores:
    """Per unit [units]: values of parameters, over one side of all its layers.

    Args:
        values: parameter name -> one per element.
        axis: `out` sums what makes the unit's channels, `in` the weights that read them.
    """
    layers = dict.fromkeys(layer for layer, side in group.members if side == axis)
    side = _made if axis == "out" else _read
    per_channel = {layer: side(layer, values) for layer in layers}
    return np.array(
        [
            sum(
                float(per_channel[slot.layer][list(slot.index)].sum())
                for slot in unit
                if slot.axis == axis
            )
            for unit in group.units
        ]
    )


def _made(layer: str, values: dict[str, Tensor]) -> Tensor:
    """[output channels] of a layer, or of a parameter along its last axis."""
    if layer in values:
        value = values[layer].double()
        return value.reshape(-1, value.shape[-1]).sum(0)
    parts = [values[f"{layer}.{p}"] for p in ("weight", "bias") if f"{layer}.{p}" in values]
    if not parts:
        return torch.zeros(1 << 16, dtype=torch.float64)  # a norm without parameters
    return torch.stack([part.double().reshape(len(part), -1).sum(1) for part in parts]).sum(0)


def _read(layer: str, values: dict[str, Tensor]) -> Tensor:
    """[input channels] of a layer's weight."""
    weight = values[f"{layer}.weight"].double()
    return weight.movedim(1, 0).reshape(weight.shape[1], -1).sum(1)
