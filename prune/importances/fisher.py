"""Diagonal of the empirical Fisher information as the Hessian (Theis et al., "Faster Gaze
Prediction with Dense Networks and Fisher Pruning", 2018).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgesmith.prune.importances.base import ElementImportance, Labelled, gradients, magnitudes


@dataclass(frozen=True)
class Fisher(ElementImportance):
    """Sum of w^2 * E[g^2] / 2: the second-order loss increase near a minimum.

    Args:
        samples: at most so many, each with a gradient of its own.
    """

    name: ClassVar[str] = "fisher"
    is_global: ClassVar[bool] = True

    samples: int = 256

    def saliency(self, model: nn.Module, data: Labelled) -> dict[str, Tensor]:
        weights = magnitudes(model)
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        few = replace(
            data,
            inputs=data.inputs[: self.samples],
            labels=data.labels[: self.samples],
            batch_size=1,
        )
        for inputs, labels in few.batches():
            for name, gradient in gradients(model, inputs, labels).items():
                total[name] += gradient.square() / len(few.labels)
        return {name: weights[name].square() * total[name] / 2 for name in total}
