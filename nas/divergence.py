"""How far a sub-network's outputs lie from those of the one that teaches it, per sample.

    D_a(p || q) = (sum q (p/q)^a - 1) / (a (a - 1)),   D_1 = KL(p || q)
    gradient    = -(1/a) sum q (p/q)^a grad log q

`alpha` takes the larger of a = -1, which punishes classes that the student overestimates, and 1,
which punishes those that it underestimates; importance ratios are clipped at 5 in the gradient.
Source: Wang et al., "AlphaNet: Improved Training of Supernets with Alpha-Divergence", ICML 2021.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgesmith.pipeline.training.loss import logits_of

_CLIP = 5.0


def kl(outputs: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL(teacher || student) of logits or probabilities [N, classes]."""
    student, taught = (F.log_softmax(logits_of(each), 1) for each in (outputs, teacher))
    return F.kl_div(student, taught, log_target=True, reduction="batchmean")


def alpha(outputs: Tensor, teacher: Tensor) -> Tensor:
    """Mean over samples of the larger of D_1 and D_-1, [N, classes] as in `kl`."""
    student, taught = (F.log_softmax(logits_of(each), 1) for each in (outputs, teacher))
    under, over = _under(student, taught), _over(student, taught)
    return torch.where(under.detach() > over.detach(), under, over).mean()


def _under(student: Tensor, taught: Tensor) -> Tensor:
    """D_1 [N], its gradient of clipped ratios p / q."""
    value = (taught.exp() * (taught - student)).sum(1).detach()
    weights = student.exp() * (taught - student).exp().clamp_max(_CLIP)
    return _with_gradient(value, -(weights.detach() * student).sum(1))


def _over(student: Tensor, taught: Tensor) -> Tensor:
    """D_-1 [N], its gradient of clipped ratios q / p."""
    ratio = (student - taught).exp()
    value = 0.5 * ((student.exp() * ratio).sum(1) - 1).detach()
    weights = student.exp() * ratio.clamp_max(_CLIP)
    return _with_gradient(value, (weights.detach() * student).sum(1))


def _with_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    return value + (surrogate - surrogate.detach())
