"""Channel groups: what hangs together, what is frozen, and that removing is exact."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesmith.pipeline.errors import CheckpointError, EmptyLayerError, PruningError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.target_facts import get_target
from edgesmith.prune.attention import HeadAttention
from edgesmith.prune.conversion import convert
from edgesmith.prune.structure import structure_of, unread
from edgesmith.prune.surgery import after, apply_plan, converted, plan_of
from edgesmith.prune.values import ChannelGroup, PrunePlan, Structure
from edgesmith.quantize.export import to_onnx
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import quantize
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.onnx_reader import read_onnx
from tests.prune.nets import NETS, Concat, Scrambled, SplitNet, batch, make, settled
from tests.quantize.vit import SelfAttention, tiny_vit


def random_kept(groups: Sequence[ChannelGroup], seed: int) -> dict[str, tuple[int, ...]]:
    """Between one and all units of every group."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for group in groups:
        count = len(group.units)
        stay = int(torch.randint(1, count + 1, (1,), generator=generator))
        kept[group.name] = tuple(sorted(torch.randperm(count, generator=generator)[:stay].tolist()))
    return kept


def layers(structure: Structure) -> dict[str, int]:
    return {group.name: len(group.units) for group in structure.groups}


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_pruned_module_computes_what_the_whole_one_does_without_those_channels(
    name: str, seed: int
) -> None:
    model, shape = make(name)
    structure = structure_of(model, shape)
    whole = converted(model, structure)
    kept = random_kept(structure.groups, seed)
    pruned = apply_plan(model, plan_of(whole, structure, kept))
    x = batch(shape)
    with torch.no_grad():
        assert close(pruned(x), unread(whole, structure.groups, kept)(x))


@torch.no_grad()
def test_zeroed_filters_are_as_good_as_removed_where_no_batch_norm_shifts_them() -> None:
    """A check that shares no code with the one in `structure`: zero the makers, not the readers."""
    model, shape = make("plain")
    structure = structure_of(model, shape)
    kept = random_kept(structure.groups, 5)
    zeroed = copy.deepcopy(model)
    for group in structure.groups:
        for number in set(range(len(group.units))) - set(kept[group.name]):
            for slot in group.units[number]:
                if slot.axis == "out":
                    layer = zeroed.get_submodule(slot.layer)
                    layer.weight[list(slot.index)] = 0  # type: ignore[operator]
                    layer.bias[list(slot.index)] = 0  # type: ignore[operator]
    pruned = apply_plan(model, plan_of(model, structure, kept))
    x = batch(shape)
    assert close(pruned(x), zeroed(x))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("residual", {"stem.0": 8, "layer1.0.conv1": 8, "layer1.1.conv1": 8}),
        ("concat", {"a": 4, "b": 8, "c": 6, "d": 8}),
        ("split", {"conv": 8, "gate": 8}),
        ("grouped", {"first": 4, "grouped": 6, "last": 8}),
        ("separable", {"1": 8, "7": 3, "10": 3}),
        ("squeeze-excite", {"conv": 8, "down": 4}),
        ("transformer", {"attention.query": 2, "up": 32}),
        ("embedded", {"embed": 32, "attention.query": 4, "up": 64}),
    ],
)
def test_units_are_what_can_go_alone(name: str, expected: dict[str, int]) -> None:
    model, shape = make(name)
    assert layers(structure_of(model, shape)) == expected


def test_a_concatenation_gives_every_branch_its_own_place() -> None:
    structure = structure_of(settled(Concat), (3, 12, 12))
    places = {
        name: [slot.index for unit in structure[name].units for slot in unit if slot.layer == "c"]
        for name in "ab"
    }
    assert places["a"] == [(0,), (1,), (2,), (3,)]
    assert places["b"] == [(7 + i,) for i in range(8)]


def test_a_residual_stream_is_one_group() -> None:
    model, shape = make("residual")
    members = structure_of(model, shape)["stem.0"].members
    assert {("stem.0", "out"), ("layer1.0.conv2", "out"), ("layer1.1.conv2", "out")} < set(members)
    assert ("fc", "in") in members


def test_what_no_graph_describes_is_frozen_and_listed() -> None:
    structure = structure_of(settled(Scrambled), (3, 6, 6))
    assert layers(structure) == {"mid": 8}
    reasons = {each.layers: each.reason for each in structure.frozen}
    assert "removing channels changes" in reasons[("conv", "mid")]
    assert "makes the model's output" in reasons[("fc",)]


def test_halves_that_must_stay_equal_are_frozen() -> None:
    structure = structure_of(settled(lambda: SplitNet(uneven=True)), (3, 6, 6))
    assert layers(structure) == {}
    assert any({"conv", "gate"} <= set(each.layers) for each in structure.frozen)


def test_a_layer_type_without_slices_is_frozen_by_name() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.GroupNorm(2, 8),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 4),
    ).eval()
    structure = structure_of(model, (3, 4, 4))
    assert layers(structure) == {"2": 8}
    assert any("GroupNorm" in each.reason for each in structure.frozen)


def test_channels_that_are_added_to_the_input_are_frozen() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)
            self.fc = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.down(torch.relu(self.up(x)))
            return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]

    structure = structure_of(settled(Skip), (3, 4, 4))
    assert layers(structure) == {"up": 8}
    assert ("down",) in [each.layers for each in structure.frozen]


def test_a_written_out_attention_gives_heads_and_its_perceptron_units() -> None:
    vit = tiny_vit(depth=2)
    structure = structure_of(vit, (3, 32, 32))
    attention = vit.get_submodule("blocks.0.attention")
    assert isinstance(attention, SelfAttention)
    assert layers(structure) == {"patches": 64} | {
        f"blocks.{block}.{layer}": units
        for block in (0, 1)
        for layer, units in (("attention.query", attention.heads), ("up", 128))
    }
    assert structure.attention == ("blocks.0.attention", "blocks.1.attention")


class Sharper(nn.Module):
    """No attention that is known: its scores are twice as large."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.attention = Written(16, 2, scale=2.0)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.attention(self.embed(x)).mean(1))
        return out


class Written(nn.Module):
    """Layers one by one, in the order of a language model: keys, queries, values."""

    def __init__(self, width: int, heads: int, scale: float = 1.0, drop: float = 0.0) -> None:
        super().__init__()
        self.k, self.q, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out, self.drop = nn.Linear(width, width), nn.Dropout(drop)
        self.heads, self.scale = heads, scale * (width // heads) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in self.parts)
        scores = self.drop(torch.softmax(self.scale * q @ k.transpose(-2, -1), -1))
        out: Tensor = self.out((scores @ v).transpose(1, 2).flatten(2))
        return out

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        return self.q, self.k, self.v


class ByHead(nn.Module):
    """Queries, keys and values of a head lie beside one another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.all, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.all(x).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


@pytest.mark.parametrize("heads", [1, 2, 4, 16])
@pytest.mark.parametrize("kind", [SelfAttention, Written, ByHead])
@torch.no_grad()
def test_written_out_attention_is_recognized_however_it_is_written(
    kind: type[nn.Module], heads: int
) -> None:
    module = settled(lambda: kind(16, heads))
    made = convert(module)
    assert made is not None
    assert made.heads == heads
    x = torch.randn(3, 7, 16)
    assert close(made(x), module(x))


@torch.no_grad()
def test_attention_is_recognized_though_its_weights_are_zero() -> None:
    module = Written(16, 4)
    for value in module.parameters():
        value.zero_()
    made = convert(module)
    assert made is not None
    assert made.heads == 4


def test_what_computes_something_else_is_left_as_it_is() -> None:
    assert convert(Written(16, 4, drop=0.1)) is None
    assert convert(Written(16, 4, scale=2.0)) is None
    assert convert(nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))) is None
    assert convert(nn.Sequential(nn.Linear(8, 24), nn.Linear(8, 8))) is None
    structure = structure_of(settled(Sharper), (5, 4))
    assert structure.attention == ()
    assert "head" in {layer for each in structure.frozen for layer in each.layers}


def test_excluded_layers_are_listed_with_the_pattern() -> None:
    model, shape = make("residual")
    structure = structure_of(model, shape, ("layer1.0.*",))
    assert layers(structure) == {"layer1.1.conv1": 8}
    assert sum("layer1.0.*" in each.reason for each in structure.frozen) == 2


@pytest.mark.parametrize(("batch_first", "dropout"), [(True, 0.0), (False, 0.0), (True, 0.5)])
@torch.no_grad()
def test_converted_attention_computes_the_same(batch_first: bool, dropout: float) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 4, dropout, batch_first=batch_first).eval()
    attention.in_proj_bias.normal_()
    x = torch.randn(3, 5, 16)
    made = convert(attention)
    assert made is not None
    assert made.heads == 4
    expected = attention(x, x, x, need_weights=False)[0]
    assert close(made(x, x, x, need_weights=False)[0], expected)
    made.train()
    assert close(made(x, x, x)[0], made(x, x, x)[0]) == (dropout == 0)


def test_a_head_goes_whole() -> None:
    model, shape = make("embedded")
    structure = structure_of(model, shape)
    assert structure.attention == ("attention",)
    kept = {"attention.query": (0, 2, 3)}
    plan = plan_of(converted(model, structure), structure, kept)
    attention = apply_plan(model, plan).get_submodule("attention")
    assert isinstance(attention, HeadAttention)
    assert (attention.heads, attention.head_width, attention.output.in_features) == (3, 8, 24)
    untouched = apply_plan(model, plan_of(converted(model, structure), structure, {"up": (0,)}))
    assert isinstance(untouched.get_submodule("attention"), nn.MultiheadAttention)


@pytest.mark.parametrize("name", NETS)
def test_a_plan_round_trips_and_rebuilds_the_same_module(name: str) -> None:
    model, shape = make(name)
    structure = structure_of(model, shape)
    assert from_json(Structure, to_json(structure)) == structure
    assert structure_of(model, shape) == structure
    plan = plan_of(converted(model, structure), structure, random_kept(structure.groups, 3))
    again = from_json(PrunePlan, to_json(plan))
    assert again == plan
    pruned, other = apply_plan(model, plan), apply_plan(make(name, seed=9)[0], again)
    assert type(pruned) is type(model)
    other.load_state_dict(pruned.state_dict())
    x = batch(shape)
    with torch.no_grad():
        assert torch.equal(pruned(x), other(x))


@pytest.mark.parametrize("name", NETS)
def test_two_prunings_in_a_row_are_one(name: str) -> None:
    model, shape = make(name)
    first = structure_of(model, shape)
    one = plan_of(converted(model, first), first, random_kept(first.groups, 1))
    smaller = apply_plan(model, one)
    second = structure_of(smaller, shape)
    two = plan_of(converted(smaller, second), second, random_kept(second.groups, 2))
    x = batch(shape)
    with torch.no_grad():
        assert torch.equal(apply_plan(smaller, two)(x), apply_plan(model, after(one, two))(x))


def test_emptying_a_layer_is_an_error_that_names_it() -> None:
    model, shape = make("residual")
    structure = structure_of(model, shape)
    with pytest.raises(EmptyLayerError, match=r"'layer1\.0\.bn1'") as caught:
        plan_of(model, structure, {"layer1.0.conv1": ()})
    assert caught.value.code == "ES351"


def test_a_plan_of_another_model_is_refused() -> None:
    model, shape = make("residual")
    structure = structure_of(model, shape)
    plan = plan_of(model, structure, {"stem.0": (0, 7)})
    with pytest.raises(CheckpointError, match="does not fit Concat"):
        apply_plan(settled(Concat), plan)


@pytest.mark.parametrize("name", ["grouped", "concat", "split", "transformer", "embedded"])
def test_pruned_models_quantize_and_lower(name: str) -> None:
    model, shape = make(name)
    structure = structure_of(model, shape)
    kept = {group.name: range(len(group.units) // 2) for group in structure.groups}
    pruned = apply_plan(model, plan_of(converted(model, structure), structure, kept))
    data = batch(shape, 32).numpy()
    quantized = quantize(pruned, data, PTQOptions(), seed=0)
    graph = read_onnx(to_onnx(quantized).SerializeToString(), name)
    legal = legalize(graph, get_target("c-host").describe())
    assert legal.ops
    with torch.no_grad():
        exact = pruned(torch.from_numpy(data)).numpy()
    assert abs(quantized.predict(data) - exact).max() < 0.2 * abs(exact).max()


class Unusual(nn.Module):
    """Runs only behind a check that no tracer passes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != 7:
            raise ValueError("this model takes seven images")
        return self.conv(x)  # type: ignore[no-any-return]


def test_a_model_that_cannot_be_traced_is_an_error() -> None:
    with pytest.raises(PruningError, match="Unusual cannot be traced: this model takes") as caught:
        structure_of(Unusual().eval(), (3, 4, 4))
    assert "take one tensor and return one" in caught.value.fix


def test_groups_that_are_right_alone_and_wrong_together_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(work: nn.Module, groups: Sequence[ChannelGroup], shape: object) -> str | None:
        return "together they differ" if len(groups) > 1 else None

    monkeypatch.setattr("edgesmith.prune.structure._wrong", wrong)
    with pytest.raises(PruningError, match="contradict each other: together they differ"):
        structure_of(*make("residual"))
