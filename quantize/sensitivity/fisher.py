"""Diagonal Fisher information times squared perturbation.

    rise(layer) = 1/2 * sum_k E[g_k^2] * (Q(W) - W)_k^2

g is the gradient of one sample's negative log-likelihood. With labels drawn from the model's own
prediction (losses `divergence` and `squared-error`) the sum of E[g g^T] is the Hessian, so this is
its diagonal; with given labels it is the empirical Fisher information.

Sources: Theis et al., "Faster Gaze Prediction with Dense Networks and Fisher Pruning",
arXiv:1801.05787; Kunstner et al., "Limitations of the Empirical Fisher
Approximation", arXiv:1905.12558, for the difference.
"""

from __future__ import annotations

import torch

from edgesmith.pipeline.stage import Progress
from edgesmith.quantize.sensitivity.landscape import Landscape
from edgesmith.quantize.sensitivity.subject import Weights


def information(field: Landscape, seed: int, progress: Progress) -> Weights:
    """Mean squared gradient of every weight, float64."""
    generator = torch.Generator().manual_seed(seed)
    totals = {name: torch.zeros_like(each).double() for name, each in field.weights().items()}
    count = len(field.inputs)
    for gradient in progress.track(field.sample_gradients(generator), "Fisher", count):
        for name, each in gradient.items():
            totals[name] += each.double().square()
    return {name: total / count for name, total in totals.items()}


def rises(found: Weights, perturbation: Weights) -> dict[str, float]:
    """Layer -> estimated rise of the loss for a perturbation, given the information."""
    return {
        name: 0.5 * float((found[name] * each.double().square()).sum())
        for name, each in perturbation.items()
    }
