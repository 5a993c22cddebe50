"""Diagonal of the loss's Hessian by Hutchinson's estimator, as in HAWQ (Yao et al., "PyHessian",
2020; Bekas et al., "An estimator for the diagonal of a matrix", 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgesmith.pipeline.training.loss import class_loss
from edgesmith.prune.importances.base import ElementImportance, Labelled, magnitudes


@dataclass(frozen=True)
class Hutchinson(ElementImportance):
    """Sum of w^2 * h / 2 with h = E[v * Hv] over random signs v, negative values taken as 0.

    Args:
        probes: random vectors per batch.
        batches: at most so many.
    """

    name: ClassVar[str] = "hutchinson"
    is_global: ClassVar[bool] = True

    probes: int = 4
    batches: int = 8

    def saliency(self, model: nn.Module, data: Labelled) -> dict[str, Tensor]:
        weights = magnitudes(model)
        diagonal = self.diagonal(model, data)
        return {n: weights[n].square() * diagonal[n].clamp_min(0) / 2 for n in weights}

    def diagonal(self, model: nn.Module, data: Labelled) -> dict[str, Tensor]:
        """Estimate of the Hessian's diagonal, by parameter."""
        names, values = zip(*model.named_parameters(), strict=True)
        total = {name: torch.zeros_like(value) for name, value in zip(names, values, strict=True)}
        generator = torch.Generator().manual_seed(data.seed)
        chosen = list(data.batches())[: self.batches]
        for inputs, labels in chosen:
            with torch.enable_grad():
                loss = class_loss(model(inputs), labels)
                first = torch.autograd.grad(loss, values, create_graph=True, materialize_grads=True)
            for _ in range(self.probes):
                signs = [
                    torch.randint(0, 2, v.shape, generator=generator).to(v) * 2 - 1 for v in values
                ]
                products = torch.autograd.grad(
                    first, values, signs, retain_graph=True, materialize_grads=True
                )
                for name, sign, product in zip(names, signs, products, strict=True):
                    total[name] += sign * product / (len(chosen) * self.probes)
        return total
