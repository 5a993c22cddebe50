"""Batch norm's gain (Liu et al., "Learning Efficient Convolutional Networks through Network
Slimming", 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import PruningError
from edgesmith.prune.importances.base import ElementImportance, Labelled, Scores, magnitudes
from edgesmith.prune.surgery import Norm
from edgesmith.prune.values import ChannelGroup


@dataclass(frozen=True)
class BNScale(ElementImportance):
    """Sum of |gamma|; groups without a batch norm cannot be scored."""

    name: ClassVar[str] = "bn-scale"

    def saliency(self, model: nn.Module, data: Labelled) -> dict[str, Tensor]:
        norms = {f"{n}.weight" for n, module in model.named_modules() if isinstance(module, Norm)}
        return {
            name: value.abs() if name in norms else torch.zeros_like(value)
            for name, value in magnitudes(model).items()
        }

    def scores(
        self, model: nn.Module, groups: Sequence[ChannelGroup], data: Labelled
    ) -> dict[str, Scores]:
        """As `ElementImportance.scores`.

        Raises:
            PruningError: a group has no batch norm.
        """
        norms = {name for name, module in model.named_modules() if isinstance(module, Norm)}
        for group in groups:
            if not norms & {layer for layer, _ in group.members}:
                raise PruningError(
                    f"the channels of {group.name!r} pass no batch norm, so importance 'bn-scale'"
                    " says nothing about them",
                    fix="choose importance taylor, or exclude the layer",
                )
        return super().scores(model, groups, data)
