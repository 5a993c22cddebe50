"""L1 norm of what makes a channel (Li et al., "Pruning Filters for Efficient ConvNets", 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from edgesmith.prune.importances.base import ElementImportance, Labelled, magnitudes


@dataclass(frozen=True)
class L1(ElementImportance):
    """Sum of |w|."""

    name: ClassVar[str] = "l1"

    def saliency(self, model: nn.Module, data: Labelled) -> dict[str, Tensor]:
        return {name: value.abs() for name, value in magnitudes(model).items()}
