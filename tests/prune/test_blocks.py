"""Residual blocks: found by what they compute, dropped exactly, and tried where that is cheaper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesmith.pipeline.errors import CheckpointError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.training.options import Training
from edgesmith.prune.blocks import residual_blocks
from edgesmith.prune.costs import MacCosts, macs
from edgesmith.prune.driver import Pruned, Pruner, Task
from edgesmith.prune.options import PruneOptions, Trials
from edgesmith.prune.reconstruction import Reconstruction
from edgesmith.prune.selection import Choice, Limits, Selection
from edgesmith.prune.stored import load_pruned, save_pruned
from edgesmith.prune.structure import structure_of, unread
from edgesmith.prune.surgery import after, apply_plan, converted, plan_of
from edgesmith.prune.trials import best_allocation
from edgesmith.prune.values import PrunePlan, PruneResult, Structure
from tests.prune.nets import NETS, batch, blobs, make, settled

IMAGE = (8, 6, 6)
WAYS: dict[str, Callable[[Tensor, Any, Any], Tensor]] = {
    "added": lambda x, a, b: x + b(F.relu(a(x))),
    "subtracted": lambda x, a, b: x - b(F.relu(a(x))),
    "added to what is not negative, then ReLU": lambda x, a, b: F.relu(F.relu(x) + b(a(x))),
    "without a shortcut": lambda x, a, b: b(F.relu(a(x))),
    "ReLU on what may be negative": lambda x, a, b: F.relu(x + b(a(x))),
    "gated": lambda x, a, b: x * torch.sigmoid(b(a(x))),
    "averaged": lambda x, a, b: (x + b(a(x))) / 2,
    "turned": lambda x, a, b: x.flip(1) + b(a(x)),
    "projected": lambda x, a, b: a(x) + b(a(x)),
}
RESIDUAL = {"added", "subtracted"}


class Body(nn.Module):
    """Two layers and some way to put them together."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return WAYS[self.way](x, self.a, self.b)


def stack(*bodies: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(8, 8, 1), *bodies, nn.Flatten(), nn.Linear(288, 4)).eval()


@pytest.mark.parametrize("way", WAYS)
def test_a_block_returns_its_input_where_its_branch_is_zero(way: str) -> None:
    expected = ("1",) if way in RESIDUAL else ()
    assert residual_blocks(stack(Body(way)), batch(IMAGE)) == expected


def test_a_relu_at_the_end_is_none_behind_another_one() -> None:
    body = Body("ReLU on what may be negative")
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), body)
    assert residual_blocks(model, batch(IMAGE)) == ("2",)


def test_the_innermost_blocks_are_found_and_models_left_as_they_are() -> None:
    model = stack(nn.Sequential(Body("added"), Body("added")), nn.Sequential(Body("projected")))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert residual_blocks(model, batch(IMAGE)) == ("1.0", "1.1")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


class Twice(nn.Module):
    """Calls one block two times, and another with a second argument."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.scaled = Body("added"), Scaled()

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(self.again(self.again(x)), 2.0)  # type: ignore[no-any-return]


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor, scale: float) -> Tensor:
        out: Tensor = x + scale * self.conv(x)
        return out


def test_what_identity_cannot_stand_for_is_no_block() -> None:
    assert residual_blocks(Twice().eval(), batch(IMAGE)) == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("residual", ["layer1.0", "layer1.1"]),
        *((name, []) for name in NETS if name != "residual"),
    ],
)
def test_blocks_of_networks(name: str, expected: list[str]) -> None:
    structure = structure_of(*make(name))
    assert [block.path for block in structure.blocks] == expected
    for block in structure.blocks:
        assert block.groups == (f"{block.path}.conv1",)


def test_blocks_with_an_excluded_layer_stay() -> None:
    model, shape = make("residual")
    for rule in ("layer1.0.conv2", "layer1.0*"):
        assert [b.path for b in structure_of(model, shape, (rule,)).blocks] == ["layer1.1"]


@pytest.fixture(scope="module")
def residual() -> tuple[nn.Module, Structure]:
    model, shape = make("residual")
    return model, structure_of(model, shape)


@torch.no_grad()
def silenced(model: nn.Module, path: str) -> nn.Module:
    """A copy whose block's branch computes zero."""
    made = apply_plan(model, PrunePlan())
    for parameter in made.get_submodule(path).parameters():
        parameter.zero_()
    return made


@pytest.mark.parametrize("dropped", ["layer1.0", "layer1.1"])
def test_without_a_block_the_model_is_one_whose_branch_is_zero(
    dropped: str, residual: tuple[nn.Module, Structure]
) -> None:
    """Channels that run past the block go as if it were there."""
    model, structure = residual
    kept = {g.name: tuple(range(0, len(g.units), 2)) for g in structure.groups}
    x = batch((3, 12, 12))
    for some in ({}, kept):
        plan = plan_of(model, structure, some, (dropped,))
        assert not any(path.startswith(dropped) for path in plan.layers)
        made = apply_plan(model, plan)
        assert isinstance(made.get_submodule(dropped), nn.Identity)
        with torch.no_grad():
            expected = unread(silenced(model, dropped), structure.groups, some)(x)
            assert torch.allclose(made(x), expected, atol=1e-5)


def test_plans_in_a_row_are_one_plan(residual: tuple[nn.Module, Structure]) -> None:
    model, structure = residual
    halves = {g.name: tuple(range(0, len(g.units), 2)) for g in structure.groups}
    x = batch((3, 12, 12))
    for first_dropped, then_dropped in ((("layer1.0",), ("layer1.1",)), ((), ("layer1.0",))):
        one = plan_of(model, structure, halves, first_dropped)
        smaller = apply_plan(model, one)
        second = structure_of(smaller, (3, 12, 12))
        less = {g.name: tuple(range(len(g.units) // 2)) for g in second.groups}
        two = plan_of(smaller, second, less, then_dropped)
        both = after(one, two)
        assert both.dropped == tuple(sorted({*first_dropped, *then_dropped}))
        assert from_json(PrunePlan, to_json(both)) == both
        with torch.no_grad():
            assert torch.equal(apply_plan(smaller, two)(x), apply_plan(model, both)(x))


def test_a_block_that_is_not_there_belongs_to_another_model() -> None:
    model, _ = make("plain")
    with pytest.raises(CheckpointError, match="does not fit"):
        apply_plan(model, PrunePlan({}, (), ("layer1.0",)))


def test_what_stays_makes_up_for_a_block(residual: tuple[nn.Module, Structure]) -> None:
    model, structure = residual
    plan = plan_of(model, structure, {}, ("layer1.0",))
    x = batch((3, 12, 12), samples=200)
    made = Reconstruction(model, (), x[:160]).apply(plan)
    with torch.no_grad():
        wanted = model(x[160:])
        near, far = (
            (each(x[160:]) - wanted).square().mean() for each in (made, apply_plan(model, plan))
        )
    assert float(near) < 0.5 * float(far)


class Deep(nn.Module):
    """A residual network for `blobs` whose block is a module."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU())
        self.block = Inner(width)
        self.fc = nn.Linear(16 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.stem(x)).flatten(1))  # type: ignore[no-any-return]


class Inner(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.narrow = nn.Conv2d(2 * width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.relu(self.wide(x)))  # type: ignore[no-any-return]


SHAPE = (3, 8, 8)
GOAL = 0.3


def selection(blocks: bool = True) -> Selection:
    model = settled(Deep)
    structure = structure_of(model, SHAPE)
    if not blocks:
        structure = replace(structure, blocks=())
    scores = {g.name: np.arange(1.0, 1 + len(g.units)) for g in structure.groups}
    return Selection(model, structure, scores, MacCosts(SHAPE, "none"), Limits(2))


def whole() -> int:
    return macs(settled(Deep), SHAPE)


def test_channels_make_up_for_the_cost_of_a_block() -> None:
    chosen = selection()
    assert chosen.blocks() == ["block"]
    plain, shallow = (chosen.reach(GOAL * whole(), dropped=each) for each in ((), ("block",)))
    assert plain.plan.dropped == ()
    assert plain.rung["block"] == 0
    assert shallow.plan.dropped == ("block",)
    assert max(plain.cost.value, shallow.cost.value) <= GOAL * whole()
    assert shallow.rung["stem.0"] < plain.rung["stem.0"]
    assert selection(blocks=False).blocks() == []


def test_a_block_that_would_fit_stays_dropped_where_it_was_asked_for() -> None:
    shallow = selection().reach(0.99 * whole(), dropped=("block",))
    assert shallow.plan == PrunePlan({}, (), ("block",))


def test_neighbours_bring_a_block_back_or_drop_it() -> None:
    chosen = selection()
    rng = np.random.default_rng(0)
    for start, other in (((), ("block",)), (("block",), ())):
        choice = chosen.reach(GOAL * whole(), dropped=start)
        found = [chosen.near(choice, GOAL * whole(), rng, lambda gone, *_: gone) for _ in range(40)]
        made = [each for each in found if each is not None]
        assert all(each.cost.value <= GOAL * whole() for each in made)
        assert any(each.plan.dropped == other for each in made)


def test_trials_try_both() -> None:
    seen: list[Choice] = []

    def accuracy(choice: Choice) -> float:
        seen.append(choice)
        return float(len(choice.plan.dropped))

    found = best_allocation(selection(), GOAL * whole(), accuracy, Trials(4), seed=0)
    assert [each.plan.dropped for each in seen[:2]] == [(), ("block",)]
    assert found.choice.plan.dropped == ("block",)
    seen.clear()
    best_allocation(selection(blocks=False), GOAL * whole(), accuracy, Trials(4), seed=0)
    assert not any(each.plan.dropped for each in seen)


def pruned(blocks: bool, **changed: object) -> Pruned:
    tune = Training(epochs=1, batch_size=64, learning_rate=3e-3)
    trials = Trials(candidates=4, epochs=1, samples=128, blocks=blocks)
    options = PruneOptions(
        cost=GOAL, rounds=1, samples=64, finetune=tune, tolerance_points=90.0, trials=trials
    )
    costs = MacCosts(SHAPE, "test")
    task = Task(settled(Deep), blobs(256, 0), blobs(128, 1), costs, "test", 2)
    return Pruner(task, replace(options, **changed), seed=3).run()  # type: ignore[arg-type]


def test_a_model_without_a_block_is_stored_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prefer(self: Pruner, *_: object) -> Callable[[Choice], float]:
        return lambda choice: float(len(choice.plan.dropped))

    monkeypatch.setattr(Pruner, "_trial", prefer)
    for rounds in (1, 2):
        found = pruned(True, rounds=rounds)
        assert found.plan.dropped == found.result.dropped == ("block",)
        assert "residual blocks left out: block" in found.result.summary()
        assert {each.layer for each in found.result.widths} == {"stem.0", "fc"}
        assert found.result.after.value == macs(found.module, SHAPE) <= GOAL * whole()
    assert from_json(PruneResult, to_json(found.result)) == found.result
    save_pruned(found, tmp_path)
    x = torch.from_numpy(blobs(16, 5).inputs)
    with torch.no_grad():
        assert torch.equal(load_pruned(tmp_path, settled(Deep))(x), found.module(x))
    assert pruned(False).plan.dropped == ()


def test_attention_in_a_dropped_block_is_not_converted() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(16)
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            out: Tensor = x + self.attention(y, y, y, need_weights=False)[0]
            return out

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.first, self.second = nn.Linear(6, 16), Layer(), Layer()
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.second(self.first(self.embed(x))).mean(1))
            return out

    model = settled(Tokens)
    structure = structure_of(model, (5, 6))
    assert [block.path for block in structure.blocks] == ["first", "second"]
    assert structure.blocks[0].groups == ("first.attention.query",)
    kept = {g.name: tuple(range(len(g.units) // 2)) for g in structure.groups}
    plan = plan_of(converted(model, structure), structure, kept, ("first",))
    assert plan.attention == ("second.attention",)
    assert apply_plan(model, plan)(batch((5, 6))).shape == (4, 4)
