"""First-order Taylor expansion (Molchanov et al., "ElementImportance Estimation for Neural Network
Pruning", 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgesmith.prune.importances.base import ElementImportance, Labelled, gradients, magnitudes


@dataclass(frozen=True)
class Taylor(ElementImportance):
    """Sum of |w * dL/dw|, mean over batches."""

    name: ClassVar[str] = "taylor"
    is_global: ClassVar[bool] = True

    def saliency(self, model: nn.Module, data: Labelled) -> dict[str, Tensor]:
        weights = magnitudes(model)
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        batches = list(data.batches())
        for inputs, labels in batches:
            for name, gradient in gradients(model, inputs, labels).items():
                total[name] += (weights[name] * gradient).abs() / len(batches)
        return total
