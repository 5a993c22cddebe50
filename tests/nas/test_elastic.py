"""What can vary: found in every kind of network, restricted by overrides, canonical."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgesmith.nas.elastic import Dimension, Elastic, Kind, elastic
from edgesmith.nas.options import Elasticity, ElasticOverride
from edgesmith.pipeline.errors import NothingElasticError, PruningError, SearchError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.prune.surgery import apply_plan
from edgesmith.prune.values import PrunePlan
from tests.nas.nets import NETS, make
from tests.prune.nets import batch

FOUND: dict[str, tuple[int, int, int]] = {
    # widths, depths, kernels
    "cnn": (4, 2, 0),
    "resnet8": (6, 1, 0),
    "mobilenet-v1": (14, 0, 0),
    "mobilenet-v2": (25, 10, 0),
    "dscnn": (5, 0, 0),
    "autoencoder": (9, 0, 0),
    "vit": (5, 2, 0),
    "encoder": (5, 4, 0),
    "bert": (5, 0, 0),
    "cropped": (3, 0, 3),
    "kernels": (5, 0, 5),
    "tied": (2, 0, 0),
    "asking": (2, 0, 0),
    "concat": (4, 0, 0),
    "split": (2, 0, 0),
    "grouped": (3, 0, 0),
    "squeeze-excite": (2, 0, 0),
}
_KNOWN: dict[str, tuple[nn.Module, Elastic]] = {}


def known(name: str) -> tuple[nn.Module, Elastic]:
    """Found once for all tests."""
    if name not in _KNOWN:
        model, shape = make(name)
        _KNOWN[name] = model, elastic(model, shape)
    return _KNOWN[name]


@pytest.mark.parametrize("name", NETS)
def test_dimensions_are_found(name: str) -> None:
    _, found = known(name)
    kinds = Counter(each.kind for each in found.dimensions)
    assert (kinds[Kind.WIDTH], kinds[Kind.DEPTH], kinds[Kind.KERNEL]) == FOUND[name]
    for each in found.dimensions:
        assert list(each.choices) == sorted(set(each.choices), reverse=True)
        assert len(each.choices) > 1
    assert found.frozen  # what makes the output never varies


def test_kernels_shrink_where_outputs_stay_in_place() -> None:
    _, found = known("kernels")
    sizes = {each.subject: each.choices for each in found.dimensions if each.kind is Kind.KERNEL}
    assert sizes == {
        "large": (7, 5, 3),
        "depthwise": (5, 3),
        "oblong": (5, 3),
        "mirrored": (5, 3),
        "even": (6, 4),
    }


@torch.no_grad()
def test_the_centre_of_a_kernel_is_the_kernel_without_its_rim() -> None:
    model, found = known("kernels")
    chosen = {"kernel:large": 3, "kernel:depthwise": 3, "kernel:oblong": 3}
    chosen |= {"kernel:mirrored": 3, "kernel:even": 4}
    made = apply_plan(model, found.plan(chosen))
    zeroed: Any = apply_plan(model, PrunePlan())
    for name, rim in {"large": 2, "depthwise": 1, "mirrored": 1, "even": 1}.items():
        weight = zeroed.get_submodule(name).weight
        inner = weight[..., rim:-rim, rim:-rim].clone()
        weight.zero_()
        weight[..., rim:-rim, rim:-rim] = inner
    zeroed.oblong.weight[:, :, [0, -1]] = 0
    x = batch((3, 24, 24))
    assert torch.allclose(made(x), zeroed(x), atol=1e-5)


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_every_drawn_architecture_runs_and_its_plan_is_its_own(name: str, seed: int) -> None:
    model, found = known(name)
    drawn = found.drawn(np.random.default_rng(seed))
    assert found.canonical(drawn) == drawn
    plan = found.plan(drawn)
    assert from_json(PrunePlan, to_json(plan)) == plan
    x = batch(NETS[name][1], samples=2)
    with torch.no_grad():
        assert apply_plan(model, plan)(x).shape == model(x).shape


@pytest.mark.parametrize("name", NETS)
def test_the_ends_are_the_trained_model_and_the_least(name: str) -> None:
    model, found = known(name)
    assert found.plan(found.whole()) == PrunePlan() == found.plan({})
    sizes = [
        sum(value.numel() for value in apply_plan(model, found.plan(each)).parameters())
        for each in (found.smallest(), found.drawn(np.random.default_rng(0)), found.whole())
    ]
    assert sizes == sorted(sizes)


def test_dimensions_in_a_dropped_block_are_whole() -> None:
    _, found = known("resnet8")
    inner = "width:features.1.first.0.conv"
    assert found.canonical({inner: 4})[inner] == 4
    assert found.canonical({inner: 4, "depth:features.1": 0})[inner] == 16
    assert found.plan({inner: 4, "depth:features.1": 0}) == found.plan({"depth:features.1": 0})


def test_what_is_no_choice_is_named() -> None:
    _, found = known("resnet8")
    with pytest.raises(ValueError, match="no dimension 'width:nothing'"):
        found.canonical({"width:nothing": 1})
    with pytest.raises(ValueError, match=r"depth:features\.1 is 2, which is none of 1, 0"):
        found.plan({"depth:features.1": 2})


def test_the_best_units_stay_longest() -> None:
    model, shape = make("dscnn")
    first = known("dscnn")[1].structure.groups[0]
    scores = {
        group.name: np.arange(len(group.units), dtype=np.float64)
        for group in known("dscnn")[1].structure.groups
    }
    found = elastic(model, shape, scores)
    name = f"width:{first.name}"
    (width,) = [each.choices[-1] for each in found.dimensions if each.name == name]
    kept = found.plan({name: width}).layers[first.name].out_kept
    assert kept == tuple(range(64 - width, 64))


@pytest.mark.parametrize("divisor", [4, 8])
def test_widths_are_multiples_of_what_the_target_likes(divisor: int) -> None:
    model, shape = make("resnet8")
    found = elastic(model, shape, options=Elasticity(widths=3), divisor=divisor)
    for each in found.dimensions:
        if each.kind is Kind.WIDTH:
            assert len(each.choices) <= 3
            assert all(choice % divisor == 0 for choice in each.choices)
            assert min(each.choices) >= 0.25 * max(each.choices)


def test_overrides_restrict_and_the_last_one_decides() -> None:
    model, shape = make("resnet8")
    rules = (
        ElasticOverride("width:*"),
        ElasticOverride("width:features.2*", (16, 24)),
        ElasticOverride("width:features.2.second*", (8,)),
    )
    found = elastic(model, shape, options=Elasticity(overrides=rules, widths=32))
    assert found.dimensions == (
        Dimension(Kind.WIDTH, "features.2.first.0.conv", (32, 24, 16)),
        Dimension(Kind.WIDTH, "features.2.second.0.conv", (32, 8)),
        Dimension(Kind.DEPTH, "features.1", (1, 0)),
    )
    reasons = {layer: each.reason for each in found.frozen for layer in each.layers}
    assert reasons["features.3.first.0.conv"] == "`elasticity` leaves it one width"


@pytest.mark.parametrize(
    ("rule", "says", "fix"),
    [
        (ElasticOverride("widht:*", (8,)), "names none of the 7 dimensions", "choose of"),
        (ElasticOverride("width:features.2.first", (8,)), "none", "width:features.2.first.0.conv"),
        (ElasticOverride("width:features.0*", (16, 10)), "cannot be 10", "16, 12, 8, 4"),
        (ElasticOverride("depth:*", (2,)), "cannot be 2", "1, 0"),
    ],
)
def test_an_override_that_changes_nothing_is_refused(
    rule: ElasticOverride, says: str, fix: str
) -> None:
    model, shape = make("resnet8")
    with pytest.raises(SearchError) as caught:
        elastic(model, shape, options=Elasticity(overrides=(rule,)), divisor=4)
    assert says in caught.value.message
    assert fix in caught.value.fix


def test_an_excluded_layer_that_is_not_there_is_refused() -> None:
    model, shape = make("resnet8")
    with pytest.raises(PruningError, match="matches none of the") as caught:
        elastic(model, shape, options=Elasticity(exclude=("features.9*",)))
    assert "'features.9*'" in caught.value.message
    assert "features" in caught.value.fix


def test_groups_that_the_divisor_leaves_one_width_are_listed() -> None:
    model, shape = make("resnet8")
    found = elastic(model, shape, divisor=32)
    reasons = {layer: each.reason for each in found.frozen for layer in each.layers}
    assert "of its 16 units no smaller number is a multiple" in reasons["features.0.0.conv"]
    assert "features.3.first.0.conv" not in reasons


def test_a_region_that_asks_for_its_channels_stays_frozen_and_is_listed() -> None:
    """By reason; what Python decides by other shapes varies all around it."""
    _, found = known("asking")
    assert [each.subject for each in found.dimensions] == ["stem", "out"]
    reasons = {layer: each.reason for each in found.frozen for layer in each.layers}
    assert "sixteen channels, please" in reasons["region.conv"]
    assert reasons["into"] == reasons["region.conv"]


def test_options_leave_out_kinds_and_layers() -> None:
    model, shape = make("kernels")
    found = elastic(model, shape, options=Elasticity(kernels=False, depth=False))
    assert {each.kind for each in found.dimensions} == {Kind.WIDTH}
    found = elastic(model, shape, options=Elasticity(exclude=("large", "oblong")))
    subjects = {each.subject for each in found.dimensions if each.kind is Kind.KERNEL}
    assert subjects == {"depthwise", "mirrored", "even"}


def test_nothing_elastic_is_an_error() -> None:
    model, shape = make("resnet8")
    with pytest.raises(NothingElasticError, match="nothing in ResNet8 can vary") as caught:
        elastic(model, shape, options=Elasticity(exclude=("*",)))
    assert caught.value.code == "ES361"
    assert "fewer layers in `exclude`" in caught.value.fix
