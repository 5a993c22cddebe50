"""Fisher information of a gate on every unit.

A gate of 1 stands between a unit's channels and all that read them. Closing it costs about half
its second derivative, which near a minimum is E[g^2], g the derivative of one sample's loss. What
reads a channel is linear in it, so g is the sum of weight * gradient over the readers' weights
for it; what a channel's readers say is added before it is squared, where `fisher` squares every
weight alone.

Source: Liu et al., "Group Fisher Pruning for Practical Network Compression", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor, nn

from edgesmith.prune.importances.base import (
    Importance,
    Labelled,
    Scores,
    gradients,
    magnitudes,
    summed,
)

if TYPE_CHECKING:
    from edgesmith.prune.values import ChannelGroup


@dataclass(frozen=True)
class GroupFisher(Importance):
    """E[g^2] / 2, g the derivative of one sample's loss by a gate on the unit.

    A unit that no layer reads has its gate behind the layers that make it.

    Args:
        samples: at most so many, each with a gradient of its own.
    """

    name: ClassVar[str] = "group-fisher"

    samples: int = 256

    def scores(
        self, model: nn.Module, groups: Sequence[ChannelGroup], data: Labelled
    ) -> dict[str, Scores]:
        weights = magnitudes(model)
        inputs, labels = data.inputs[: self.samples], data.labels[: self.samples]
        total = {group.name: np.zeros(len(group.units)) for group in groups}
        for x, y in replace(data, inputs=inputs, labels=labels, batch_size=1).batches():
            found = gradients(model, x, y)
            moved = {name: weights[name] * gradient for name, gradient in found.items()}
            for group in groups:
                total[group.name] += np.square(_gates(group, moved)) / len(labels) / 2
        return total


def _gates(group: ChannelGroup, moved: dict[str, Tensor]) -> Scores:
    """Derivative by every unit's gate, from weight * gradient of all parameters."""
    axes = {axis for _, axis in group.members}
    return summed(group, moved, "in" if "in" in axes else "out")
