"""Losses of classifiers that end in logits or in probabilities."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST = 1e-12
_SUM_WITHIN = 0.1
"""Of 1, where outputs are probabilities in 8 bits."""
_SEEN = 1 / 512
"""Half of a step of probabilities in 8 bits."""


def logits_of(outputs: Tensor) -> Tensor:
    """[N, classes]: outputs as they are, or their logarithm where they are probabilities.

    Softmax of the logarithm of probabilities is the probabilities, so what follows needs not
    know which of both the model gives.
    """
    flat = outputs.reshape(len(outputs), -1)
    with torch.no_grad():
        positive = bool((flat >= 0).all())
        probabilities = positive and bool(((flat.sum(1) - 1).abs() < _SUM_WITHIN).all())
    return flat.clamp_min(_LEAST).log() if probabilities else flat


def class_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy."""
    return F.cross_entropy(logits_of(outputs), labels)


def seen_loss(outputs: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy in nats, of models whose probabilities may have 8 bits: none counts as
    less than such a format can tell from 0.
    """
    logs = F.log_softmax(logits_of(outputs), 1).clamp_min(math.log(_SEEN))
    return float(F.nll_loss(logs, labels))


def distilled_loss(
    outputs: Tensor, teacher: Tensor | None, labels: Tensor, weight: float, temperature: float
) -> Tensor:
    """(1 - weight) * cross-entropy + weight * T^2 * KL(teacher || student) at temperature T.

    Without a teacher it is cross-entropy. Source: Hinton et al., "Distilling the Knowledge in a
    Neural Network", 2015.
    """
    student = logits_of(outputs)
    hard = F.cross_entropy(student, labels)
    if teacher is None or weight == 0:
        return hard
    soft = F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.log_softmax(logits_of(teacher) / temperature, 1),
        log_target=True,
        reduction="batchmean",
    )
    return (1 - weight) * hard + weight * temperature**2 * soft
