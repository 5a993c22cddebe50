"""Weights that make up for what is removed are those of least squares, layer by layer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgesmith.prune.reconstruction import RIDGE, Reconstruction
from edgesmith.prune.structure import structure_of
from edgesmith.prune.surgery import apply_plan, plan_of
from edgesmith.prune.values import Cut, PrunePlan
from tests.prune.nets import NETS, batch, make

READERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (nn.Conv2d(6, 4, 3, padding=1), (6, 7, 7)),
    "strided, without bias": (nn.Conv2d(6, 4, 3, stride=2, bias=False), (6, 7, 7)),
    "same": (nn.Conv2d(6, 4, (2, 4), padding="same", dilation=(1, 3)), (6, 7, 9)),
    "valid": (nn.Conv2d(6, 4, 2, padding="valid"), (6, 7, 7)),
    "reflecting": (nn.Conv2d(6, 4, 3, padding=2, padding_mode="reflect"), (6, 7, 7)),
    "grouped": (nn.Conv2d(12, 4, 3, padding=1, groups=2), (12, 5, 5)),
    "waves": (nn.Conv1d(6, 4, 3, padding=1, dilation=2), (6, 11)),
    "linear": (nn.Linear(6, 4), (6,)),
    "linear on tokens": (nn.Linear(6, 4), (3, 6)),
}
KEPT = (0, 2, 3, 5)
OUT = (1, 2, 3)


class Alone(nn.Module):
    """One layer, so that a plan can name it; where it reads fewer channels, those that are kept."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer: Any = layer
        self.read = layer.weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        whole = self.layer.weight.shape[1] == self.read
        return self.layer(x if whole else kept_inputs(self.layer, x))  # type: ignore[no-any-return]


def kept_inputs(layer: Any, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return x[..., list(KEPT)]
    width = x.shape[1] // layer.groups
    return x[:, [group * width + i for group in range(layer.groups) for i in KEPT]]


@pytest.mark.parametrize("name", READERS)
def test_no_other_weights_come_nearer_to_the_lost_outputs(name: str) -> None:
    layer, shape = READERS[name]
    grouped = name == "grouped"  # whose outputs cannot go one by one
    out = None if grouped else OUT
    mixing = torch.randn(shape[-1 if isinstance(layer, nn.Linear) else 0], 3)
    x = batch(shape, samples=20)
    axis = x.ndim - 1 if isinstance(layer, nn.Linear) else 1
    x = x + (x.movedim(axis, -1)[..., :3] @ mixing.T).movedim(-1, axis) + 0.3
    plan = PrunePlan({"layer": Cut(out, KEPT)})
    made: Any = Reconstruction(Alone(layer), (), x).apply(plan).layer
    before: Any = apply_plan(Alone(layer), plan).layer
    inputs = kept_inputs(layer, x)
    with torch.no_grad():
        whole = layer(x)
    wanted = whole if out is None else whole.index_select(axis, torch.tensor(out))
    assert_nothing_is_nearer(made, before, inputs, wanted)
    with torch.no_grad():
        far, near = ((each(inputs) - wanted).square().sum() for each in (before, made))
    assert float(near) < 0.9 * float(far)


def assert_nothing_is_nearer(made: Any, before: Any, inputs: Tensor, wanted: Tensor) -> None:
    """The gradient of the penalized squared difference, by autograd, is zero at a layer."""
    made, before = (copy.deepcopy(each).double().requires_grad_(True) for each in (made, before))
    inputs, wanted = inputs.double(), wanted.double()

    def loss(module: Any) -> Any:
        return (module(inputs) - wanted).square().sum()

    def objective() -> Any:
        # What the mean square of all that is read weighs, counted from the inputs themselves.
        total: Any = loss(made)
        groups = getattr(made, "groups", 1)
        for g in range(groups):
            rows = slice(g * len(made.weight) // groups, (g + 1) * len(made.weight) // groups)
            scale = RIDGE * mean_square(made, inputs, g)
            total = total + scale * (made.weight - before.weight)[rows].square().sum()
            if made.bias is not None:
                total = total + scale * (made.bias - before.bias)[rows].square().sum()
        return total

    gradients = torch.autograd.grad(objective(), list(made.parameters()))
    at_start = torch.autograd.grad(loss(before), list(before.parameters()))
    for found, start in zip(gradients, at_start, strict=True):
        assert float(found.abs().max()) < 1e-4 * float(start.abs().max())


@torch.no_grad()
def mean_square(layer: Any, inputs: Tensor, group: int) -> float:
    """Of everything that one output's weights are multiplied with, summed over positions."""
    squared = inputs.square()
    if isinstance(layer, nn.Linear):
        total, count = float(squared.sum()), layer.in_features
        positions = squared.numel() // layer.in_features
    else:
        counter: Any = type(layer)(
            layer.in_channels,
            layer.groups,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            False,
            layer.padding_mode,
        ).double()
        counter.weight.fill_(1.0)
        sums = counter(squared)[:, group]
        total, positions, count = float(sums.sum()), sums.numel(), layer.weight[0].numel()
    if layer.bias is not None:
        return (total + positions) / (count + 1)
    return total / count


@torch.no_grad()
def measured(model: nn.Module, x: Tensor) -> None:
    """Batch statistics are those of training, not made up."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
            module.train().momentum = None
    model(x)
    model.eval()


@pytest.mark.parametrize("name", NETS)
def test_networks_come_nearer_to_what_they_computed(name: str) -> None:
    model, shape = make(name)
    structure = structure_of(model, shape)
    kept = {g.name: tuple(range(0, len(g.units), 2)) for g in structure.groups}
    plan = plan_of(apply_plan(model, PrunePlan({}, structure.attention)), structure, kept)
    x = batch(shape, samples=200)
    measured(model, x[:160])
    reconstruction = Reconstruction(model, structure.attention, x[:160])
    made, plain = reconstruction.apply(plan), apply_plan(model, plan)
    state = model.state_dict()
    with torch.no_grad():
        wanted = model(x[160:])
        near, far = ((each(x[160:]) - wanted).square().mean() for each in (made, plain))
    assert float(near) < float(far)
    assert not made.training
    assert {n: v.shape for n, v in made.state_dict().items()} == {
        n: v.shape for n, v in plain.state_dict().items()
    }
    assert all(torch.equal(value, state[n]) for n, value in model.state_dict().items())


def test_each_layer_is_solved_for_what_the_layers_before_it_now_make() -> None:
    model, shape = make("residual")
    structure = structure_of(model, shape)
    kept = {g.name: tuple(range(0, len(g.units), 2)) for g in structure.groups}
    plan = plan_of(model, structure, kept)
    x = batch(shape, samples=200)
    made = Reconstruction(model, (), x).apply(plan)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()  # as it was when the layers behind it were solved
    whole, smaller = calls(model, x), calls(made, x)
    assert len(plan.layers) > 3
    for path, cut in plan.layers.items():
        layer: Any = made.get_submodule(path)
        if isinstance(layer, nn.Conv2d | nn.Linear) and cut.in_kept is not None:
            wanted = whole[path][1]
            if cut.out_kept is not None:
                wanted = wanted[:, list(cut.out_kept)]
            before: Any = apply_plan(model, plan).get_submodule(path)
            assert_nothing_is_nearer(layer, before, smaller[path][0], wanted)


@torch.no_grad()
def calls(model: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Path -> input and output of each layer."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for path, module in model.named_modules():

        def note(_: nn.Module, given: Any, output: Tensor, path: str = path) -> None:
            found[path] = given[0], output

        module.register_forward_hook(note)
    model(x)
    return found


def test_batch_statistics_are_those_of_the_smaller_network() -> None:
    model, shape = make("residual")
    structure = structure_of(model, shape)
    group = structure.groups[0]
    plan = plan_of(model, structure, {group.name: tuple(range(len(group.units) // 2))})
    x = batch(shape, samples=24)
    made = Reconstruction(model, (), x).apply(plan)
    seen: dict[str, Tensor] = {}
    norms = {n: m for n, m in made.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms
    for name, norm in norms.items():

        def note(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            seen[name] = inputs[0]

        norm.register_forward_pre_hook(note)
        norm.train().momentum = 0.0  # normalizes as it was measured, and keeps what was
    with torch.no_grad():
        made(x)
    for name, norm in norms.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, var = seen[name].mean((0, 2, 3)), seen[name].transpose(0, 1).flatten(1).var(1)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, var, rtol=1e-4, atol=1e-5)


def test_channels_that_say_the_same_are_not_missed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3)).eval()
    first: Any = model[0]
    with torch.no_grad():
        first.weight[4:] = 2 * first.weight[:4]
        first.bias[4:] = 2 * first.bias[:4]
    x = batch((3, 8, 8), samples=64)
    plan = PrunePlan({"0": Cut((0, 1, 2, 3), None), "2": Cut(None, (0, 1, 2, 3))})
    made = Reconstruction(model, (), x).apply(plan)
    with torch.no_grad():
        wanted, found, plain = model(x), made(x), apply_plan(model, plan)(x)
    assert float((found - wanted).abs().max()) < 0.05 * float((plain - wanted).abs().max())


class Repeated(nn.Module):
    """One layer that is called twice, between others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.again(torch.relu(self.again(torch.relu(self.first(x)))))
        return self.last(y)  # type: ignore[no-any-return]


def test_a_layer_that_is_called_twice_keeps_its_weights() -> None:
    """It has two goals; what is behind it makes up for both."""
    model = Repeated().eval()
    keep = Cut(KEPT, KEPT)
    plan = PrunePlan({"first": Cut(KEPT), "again": keep, "last": Cut(None, KEPT)})
    x = batch((3, 8, 8), samples=64)
    made: Any = Reconstruction(model, (), x).apply(plan)
    plain: Any = apply_plan(model, plan)
    assert torch.equal(made.again.weight, plain.again.weight)
    assert not torch.equal(made.last.weight, plain.last.weight)
    with torch.no_grad():
        near, far = ((each(x) - model(x)).square().mean() for each in (made, plain))
    assert float(near) < float(far)


def test_a_large_model_is_solved_on_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3)).eval()
    x = batch((3, 8, 8), samples=64)
    plan = PrunePlan({"0": Cut(KEPT), "2": Cut(None, KEPT)})
    per_sample = 4 * (8 * 6 * 6 + 5 * 4 * 4)
    monkeypatch.setattr("edgesmith.prune.reconstruction._KEPT_BYTES", 20 * per_sample)
    few, expected = Reconstruction(model, (), x), Reconstruction(model, (), x[:20])
    for one, other in zip(
        few.apply(plan).parameters(), expected.apply(plan).parameters(), strict=True
    ):
        assert torch.equal(one, other)
    one_sample = Reconstruction(model, (), x[:1]).apply(plan)
    assert all(torch.isfinite(each).all() for each in one_sample.parameters())
