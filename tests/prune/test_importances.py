"""Importances against independent computations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgesmith.pipeline.errors import PruningError, SpecError
from edgesmith.pipeline.training.loss import class_loss, distilled_loss, logits_of
from edgesmith.prune.importances.base import Labelled, importances
from edgesmith.prune.importances.bn_scale import BNScale
from edgesmith.prune.importances.fisher import Fisher
from edgesmith.prune.importances.group_fisher import GroupFisher
from edgesmith.prune.importances.hutchinson import Hutchinson
from edgesmith.prune.importances.l1 import L1
from edgesmith.prune.importances.l2 import L2
from edgesmith.prune.importances.taylor import Taylor
from edgesmith.prune.structure import structure_of
from edgesmith.prune.values import ChannelGroup
from tests.prune.nets import blobs, make, trained


def labelled(samples: int = 32, batch_size: int = 32) -> Labelled:
    data = blobs(samples, 3)
    return Labelled(torch.from_numpy(data.inputs), torch.from_numpy(data.labels), 0, batch_size)


def test_all_are_found_by_name() -> None:
    names = importances().names()
    assert names == ("bn-scale", "fisher", "group-fisher", "hutchinson", "l1", "l2", "taylor")
    with pytest.raises(SpecError, match="did you mean 'taylor'"):
        importances().get("tailor")


@pytest.mark.parametrize("name", importances().names())
def test_scores_are_one_finite_number_per_unit_and_repeat(name: str) -> None:
    model = trained()
    groups = structure_of(model, (3, 8, 8)).groups
    importance = importances().get(name)()
    scores = importance.scores(model, groups, labelled())
    again = importance.scores(model, groups, labelled())
    for group in groups:
        assert scores[group.name].shape == (len(group.units),)
        assert np.isfinite(scores[group.name]).all()
        assert (scores[group.name] >= 0).all()
        assert np.array_equal(scores[group.name], again[group.name])


@pytest.mark.parametrize(("importance", "power"), [(L1(), 1), (L2(), 2)])
def test_magnitudes_sum_over_everything_that_makes_a_channel(
    importance: L1 | L2, power: int
) -> None:
    model, shape = make("residual")
    groups = structure_of(model, shape).groups
    scores = importance.scores(model, groups, labelled())["layer1.0.conv1"]
    conv, bn = model.get_submodule("layer1.0.conv1"), model.get_submodule("layer1.0.bn1")
    expected = conv.weight.abs().pow(power).sum((1, 2, 3))  # type: ignore[operator]
    expected = expected + bn.weight.abs().pow(power) + bn.bias.abs().pow(power)  # type: ignore[operator]
    expected = (expected / expected.mean()).detach()
    assert np.allclose(scores, expected.numpy(), rtol=1e-5)


def test_bn_scale_is_gamma_and_needs_one() -> None:
    model, shape = make("residual")
    scores = BNScale().scores(model, structure_of(model, shape).groups, labelled())
    gamma = model.get_submodule("layer1.0.bn1").weight.abs()  # type: ignore[operator]
    assert np.allclose(scores["layer1.0.conv1"], (gamma / gamma.mean()).detach().numpy())
    plain, shape = make("plain")
    with pytest.raises(PruningError, match="pass no batch norm"):
        BNScale().scores(plain, structure_of(plain, shape).groups, labelled())


def test_taylor_is_weight_times_gradient() -> None:
    model = trained()
    data = labelled()
    model.zero_grad()
    class_loss(model(data.inputs), data.labels).backward()
    expected = (model.conv1.weight * model.conv1.weight.grad).abs()  # type: ignore[union-attr,operator]
    found = Taylor().saliency(model, data)["conv1.weight"]
    assert torch.allclose(found, expected.detach(), rtol=1e-4, atol=1e-9)


def test_fisher_averages_squared_gradients_of_single_samples() -> None:
    model, data = trained(), labelled(8)
    squares = torch.zeros(4, 64)
    for x, y in zip(data.inputs, data.labels, strict=True):
        model.zero_grad()
        F.cross_entropy(model(x[None]), y[None]).backward()
        squares += model.fc.weight.grad.square() / 8  # type: ignore[union-attr,operator]
    expected = model.fc.weight.detach().square() * squares / 2  # type: ignore[union-attr,operator]
    found = Fisher().saliency(model, data)["fc.weight"]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("name", ["residual", "concat", "separable"])
def test_group_fisher_is_the_squared_derivative_of_a_gate_in_front_of_the_readers(
    name: str,
) -> None:
    model, shape = make(name)
    groups = structure_of(model, shape).groups
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, *shape, generator=generator)
    classes = model(inputs).reshape(6, -1).shape[1]
    labels = torch.randint(0, classes, (6,), generator=generator)
    found = GroupFisher().scores(model, groups, Labelled(inputs, labels, 0))
    for group in groups:
        expected = np.zeros(len(group.units))
        for x, y in zip(inputs, labels, strict=True):
            gate = torch.ones(len(group.units), requires_grad=True)
            with gated(model, group, gate):
                loss = class_loss(model(x[None]), y[None])
            (derivative,) = torch.autograd.grad(loss, gate)
            expected += derivative.square().double().numpy() / len(labels) / 2
        assert np.allclose(found[group.name], expected, rtol=1e-2, atol=1e-9)


@contextmanager
def gated(model: nn.Module, group: ChannelGroup, gate: torch.Tensor) -> Iterator[None]:
    """Every reader sees the channels of unit i times gate[i]."""

    def hook(layer: str) -> Callable[[nn.Module, tuple[torch.Tensor]], tuple[torch.Tensor]]:
        def multiply(module: nn.Module, operands: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            (x,) = operands
            axis = 1 if x.ndim == 4 else x.ndim - 1
            read = module.weight.shape[1]  # type: ignore[index]
            factors = [torch.ones(()) for _ in range(x.shape[axis])]
            for unit, factor in zip(group.units, gate, strict=True):
                for slot in unit:
                    if (slot.layer, slot.axis) == (layer, "in"):
                        for index in slot.index:
                            # A grouped convolution counts within each of its groups.
                            for channel in range(index, len(factors), read):
                                factors[channel] = factor
            sizes = [-1 if i == axis else 1 for i in range(x.ndim)]
            return (x * torch.stack(factors).reshape(sizes),)

        return multiply

    readers = dict.fromkeys(layer for layer, axis in group.members if axis == "in")
    hooks = [model.get_submodule(each).register_forward_pre_hook(hook(each)) for each in readers]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def test_hutchinson_estimates_the_diagonal_of_the_hessian() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    data = Labelled(torch.randn(64, 4), torch.randint(0, 3, (64,)), 0, 64)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(data.inputs, weight, model.bias), data.labels)

    exact = torch.autograd.functional.hessian(loss, model.weight.detach())
    expected = exact.reshape(12, 12).diagonal().reshape(3, 4)
    found = Hutchinson(probes=800).diagonal(model, data)["weight"]
    assert torch.allclose(found, expected, rtol=0.25, atol=0.02)


def test_a_dead_channel_costs_nothing_to_lose() -> None:
    model = trained()
    with torch.no_grad():
        for layer in (model.bn1, model.conv1):
            for value in layer.parameters():  # type: ignore[union-attr]
                value[3] = 0
    groups = structure_of(model, (3, 8, 8)).groups
    for importance in (L1(), Taylor(), Fisher(), GroupFisher(), Hutchinson()):
        scores = importance.scores(model, groups, labelled())["conv1"]
        assert scores.argmin() == 3
        assert scores[3] == 0


def test_probabilities_and_logits_have_the_same_loss() -> None:
    logits, labels = torch.randn(16, 5), torch.randint(0, 5, (16,))
    assert torch.allclose(class_loss(logits, labels), class_loss(logits.softmax(1), labels))
    assert torch.equal(logits_of(logits), logits)
    teacher = torch.randn(16, 5)
    one = distilled_loss(logits, teacher, labels, 0.5, 3.0)
    other = distilled_loss(logits.softmax(1), teacher.softmax(1), labels, 0.5, 3.0)
    assert torch.allclose(one, other, rtol=1e-4)


def test_distilling_from_oneself_leaves_the_labels_part() -> None:
    logits, labels = torch.randn(16, 5), torch.randint(0, 5, (16,))
    loss = distilled_loss(logits, logits, labels, 0.25, 2.0)
    assert torch.allclose(loss, 0.75 * F.cross_entropy(logits, labels))
