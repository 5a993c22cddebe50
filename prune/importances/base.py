"""What an importance is: a saliency for every weight, summed over what a unit's channels make.

A unit's score is the sum over the output side of all its layers (filters, biases, batch norm);
its readers' weights would count the same channel twice.
"""

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
    from edgesmith.prune.values import ChannelGroup

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
    """One way to score units.

    `is_global` scores estimate the loss that removing a unit costs and compare across groups;
    others are divided by their group's mean.
    """

    name: ClassVar[str]
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
        """Group name -> score per unit, [units]; larger matters more."""
        found = self.saliency(model, data)
        made = {group.name: _summed(model, group, found) for group in groups}
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


def _summed(model: nn.Module, group: ChannelGroup, saliency: dict[str, Tensor]) -> Scores:
    """Per unit, over its output side."""
    per_channel: dict[str, Tensor] = {}
    for layer, axis in group.members:
        if axis == "out":
            per_channel[layer] = _per_channel(layer, saliency)
    return np.array(
        [
            sum(
                float(per_channel[slot.layer][list(slot.index)].sum())
                for slot in unit
                if slot.axis == "out"
            )
            for unit in group.units
        ]
    )


def _per_channel(layer: str, saliency: dict[str, Tensor]) -> Tensor:
    """[channels] of a layer, or of a parameter along its last axis."""
    if layer in saliency:
        value = saliency[layer].double()
        return value.reshape(-1, value.shape[-1]).sum(0)
    parts = [saliency[f"{layer}.{p}"] for p in ("weight", "bias") if f"{layer}.{p}" in saliency]
    if not parts:
        return torch.zeros(1 << 16, dtype=torch.float64)  # a norm without parameters
    return torch.stack([part.double().reshape(len(part), -1).sum(1) for part in parts]).sum(0)
