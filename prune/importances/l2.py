"""Squared L2 norm of what makes a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from edgesmith.prune.importances.base import ElementImportance, Labelled, magnitudes


@dataclass(frozen=True)
class L2(ElementImportance):
    """Sum of w^2."""

    name: ClassVar[str] = "l2"

    def saliency(self, model: nn.Module, data: Labelled) -> dict[str, Tensor]:
        return {name: value.square() for name, value in magnitudes(model).items()}
