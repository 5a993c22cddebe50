"""Divergences of outputs: against their definitions, and against numeric gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgesmith.nas.divergence import alpha, kl


def logits(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)).double()


def defined(student: Tensor, teacher: Tensor, order: float) -> Tensor:
    """D_a(p || q) per sample, as it is written down."""
    p, q = teacher.softmax(1), student.softmax(1)
    if order == 1:
        return (p * (p / q).log()).sum(1)
    return ((q * (p / q) ** order).sum(1) - 1) / (order * (order - 1))


def test_they_are_zero_for_equal_outputs_and_positive_for_others() -> None:
    one, other = logits(0), logits(1)
    for divergence in (kl, alpha):
        assert float(divergence(one, one)) == pytest.approx(0, abs=1e-9)
        assert float(divergence(one, one + 3)) == pytest.approx(0, abs=1e-9)
        assert float(divergence(one, other)) > 0


def test_values_are_those_of_the_definition() -> None:
    student, teacher = logits(0), logits(1)
    assert float(kl(student, teacher)) == pytest.approx(float(defined(student, teacher, 1).mean()))
    larger = torch.maximum(defined(student, teacher, 1), defined(student, teacher, -1))
    assert float(alpha(student, teacher)) == pytest.approx(float(larger.mean()))


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_those_of_the_definition_where_no_ratio_is_clipped(seed: int) -> None:
    student, teacher = logits(seed, 0.3).requires_grad_(), logits(seed + 10, 0.3)
    (found,) = torch.autograd.grad(alpha(student, teacher), student)
    under, over = (defined(student, teacher, order) for order in (1, -1))
    chosen = torch.where(under.detach() > over.detach(), under, over).mean()
    (expected,) = torch.autograd.grad(chosen, student)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_clipping_bounds_the_gradient() -> None:
    """Of a class that the student rules out; else it would grow with the ratio."""
    teacher = torch.zeros(1, 2)
    norms = []
    for low in (-5.0, -20.0):
        student = torch.tensor([[0.0, low]], requires_grad=True)
        (gradient,) = torch.autograd.grad(alpha(student, teacher), student)
        assert bool(torch.isfinite(gradient).all())
        norms.append(float(gradient.norm()))
    assert norms[1] <= 5


def test_probabilities_are_taken_like_logits() -> None:
    student, teacher = logits(0).float(), logits(1).float()
    assert float(alpha(student.softmax(1), teacher.softmax(1))) == pytest.approx(
        float(alpha(student, teacher)), rel=1e-4
    )
