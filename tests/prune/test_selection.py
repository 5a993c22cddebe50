"""Choosing channels by cost: widths, prices, budgets, and the target's own figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgesmith.pipeline.errors import PruningError, UnreachableCostError
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import Kind
from edgesmith.prune.costs import MacCosts, TargetCosts, costs_on, macs, noise, quick
from edgesmith.prune.importances.base import Scores
from edgesmith.prune.selection import Limits, Selection, ladder
from edgesmith.prune.structure import structure_of
from edgesmith.prune.surgery import apply_plan
from edgesmith.prune.values import ChannelGroup, CostFigure, Structure
from edgesmith.targets.cost import Metric
from tests.prune.nets import make, trained

SHAPE = (3, 8, 8)
INPUTS = noise(SHAPE)


class Priced:
    """Costs per output channel, by layer; everything else is free."""

    note = ""
    counted = True

    def __init__(self, **prices: float) -> None:
        self._prices = prices
        self.measured = 0

    def measure(self, models: Sequence[nn.Module]) -> list[CostFigure]:
        self.measured += len(models)
        costs = []
        for model in models:
            widths = {n: m.weight.shape[0] for n, m in model.named_modules() if _layer(m)}
            cost = sum(price * widths[name] for name, price in self._prices.items())
            costs.append(CostFigure(cost, "coins", Kind.MEASURED, "test"))
        return costs


def _layer(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv2d, nn.Linear))


def flat(structure: Structure) -> dict[str, Scores]:
    return {group.name: np.ones(len(group.units)) for group in structure.groups}


def widths(model: nn.Module) -> dict[str, int]:
    return {n: m.weight.shape[0] for n, m in model.named_modules() if _layer(m)}


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize("name", ["residual", "grouped", "concat", "embedded"])
def test_every_pruned_width_is_a_multiple_of_the_divisor(name: str, divisor: int) -> None:
    model, shape = make(name)
    structure = structure_of(model, shape)
    before = widths(model)
    rng = np.random.default_rng(0)
    scores = {g.name: rng.random(len(g.units)) for g in structure.groups}
    limits = Limits(divisor, 0.8)
    costs = MacCosts(shape, "none")
    selection = Selection(model, structure, scores, costs, limits)
    if len(selection.stuck()) == len(structure.groups):  # too narrow
        with pytest.raises(PruningError, match="nothing in"):
            selection.reach(1)
        return
    goal = (macs(model, shape) + selection.cheapest().cost.value) / 2
    choice = selection.reach(goal)
    after = widths(apply_plan(model, choice.plan))
    assert choice.cost.value <= goal
    for layer, width in after.items():
        assert width == before.get(layer, width) or width % divisor == 0


def test_the_worst_units_go_first_and_the_rest_keeps_its_order() -> None:
    model, shape = make("residual")
    group = structure_of(model, shape)["layer1.0.conv1"]
    scores = np.array([5.0, 1, 7, 2, 8, 3, 6, 4])
    rungs = ladder(group, scores, Limits(2, 0.75), 8)
    assert rungs == [(0, 1, 2, 3, 4, 5, 6, 7), (0, 2, 4, 5, 6, 7), (0, 2, 4, 6), (2, 4)]


def test_a_group_keeps_its_share_of_the_original_width() -> None:
    model, shape = make("residual")
    group: ChannelGroup = structure_of(model, shape)["layer1.0.conv1"]
    assert [len(r) for r in ladder(group, np.ones(8), Limits(1, 0.5), 8)] == [8, 7, 6, 5, 4]
    assert len(ladder(group, np.ones(8), Limits(1, 0.5), 16)) == 1


def test_channels_go_where_the_target_saves_most() -> None:
    model = trained()
    structure = structure_of(model, SHAPE)
    costs = Priced(**{"stem.0": 1.0, "conv1": 10.0})
    choice = Selection(model, structure, flat(structure), costs, Limits()).reach(100)
    after = widths(apply_plan(model, choice.plan))
    assert (after["stem.0"], after["conv1"]) == (16, 8)
    turned = Priced(**{"stem.0": 10.0, "conv1": 1.0})
    choice = Selection(model, structure, flat(structure), turned, Limits()).reach(100)
    after = widths(apply_plan(model, choice.plan))
    assert (after["stem.0"], after["conv1"]) == (8, 16)


def test_what_fits_below_the_goal_comes_back() -> None:
    model = trained()
    structure = structure_of(model, SHAPE)
    scores = flat(structure)
    scores["conv1"] *= 100  # cheap steps of the stem come first, then one dear one is needed
    costs = Priced(**{"stem.0": 1.0, "conv1": 60.0})
    goal = 16 * 60 + 16 - 62
    choice = Selection(model, structure, scores, costs, Limits(max_pruned=0.5)).reach(goal)
    after = widths(apply_plan(model, choice.plan))
    assert (after["stem.0"], after["conv1"]) == (14, 15)
    assert choice.cost.value == goal


def test_saliency_weighs_against_cost() -> None:
    model = trained()
    structure = structure_of(model, SHAPE)
    scores = flat(structure)
    scores["conv1"] *= 100
    costs = Priced(**{"stem.0": 1.0, "conv1": 10.0})
    choice = Selection(model, structure, scores, costs, Limits()).reach(170)
    after = widths(apply_plan(model, choice.plan))
    assert (after["stem.0"], after["conv1"]) == (10, 16)


def test_an_unreachable_cost_names_the_nearest() -> None:
    model = trained()
    structure = structure_of(model, SHAPE)
    costs = Priced(conv1=10.0)
    selection = Selection(model, structure, flat(structure), costs, Limits(4, 0.5))
    with pytest.raises(UnreachableCostError, match="the nearest is 80 coins") as caught:
        selection.reach(79)
    assert caught.value.code == "ES352"
    assert selection.reach(80).cost.value == 80


def test_a_model_without_room_is_an_error() -> None:
    model = trained()
    structure = structure_of(model, SHAPE)
    selection = Selection(model, structure, flat(structure), Priced(conv1=1.0), Limits(32))
    assert set(selection.stuck()) == {"stem.0", "conv1"}
    with pytest.raises(PruningError, match="nothing in Classifier can be pruned"):
        selection.reach(1)


def test_the_same_choice_every_time() -> None:
    model = trained()
    structure = structure_of(model, SHAPE)
    plans = []
    for _ in range(2):
        costs = MacCosts(SHAPE, "none")
        selection = Selection(model, structure, flat(structure), costs, Limits(4))
        plans.append(selection.reach(macs(model, SHAPE) / 2).plan)
    assert plans[0] == plans[1]


def test_a_choice_is_measured_once() -> None:
    model = trained()
    structure = structure_of(model, SHAPE)
    costs = Priced(**{"stem.0": 1.0, "conv1": 1.0})
    selection = Selection(model, structure, flat(structure), costs, Limits())
    first = selection.reach(20)
    measured = costs.measured
    assert selection.reach(20) == first
    assert costs.measured == measured


def test_uniform_scales_all_widths_alike() -> None:
    """As MobileNets round: to fours, and never below nine tenths."""
    model = trained()
    structure = structure_of(model, SHAPE)
    whole = macs(model, SHAPE)
    costs = MacCosts(SHAPE, "none")
    selection = Selection(model, structure, flat(structure), costs, Limits(4))
    found = {}
    for share in (1.0, 0.5, 0.3):
        narrower, wider = selection.uniform(share * whole)
        assert narrower.cost.value < share * whole <= wider.cost.value
        found[share] = widths(apply_plan(model, wider.plan))
    assert found[1.0] == widths(model)
    assert found[0.5] == {"stem.0": 12, "conv1": 12, "conv2": 12, "fc": 4}
    assert found[0.3] == {"stem.0": 8, "conv1": 8, "conv2": 8, "fc": 4}
    for beyond in (0.0, 2.0):
        narrower, wider = selection.uniform(beyond * whole)
        assert narrower == wider


def test_costs_are_those_of_the_formats(tmp_path: Path) -> None:
    target = get_target("cortex-m4")
    if any(tool.find() is None for tool in target.tools()):
        pytest.skip("cortex-m4 needs its tools")
    metric = Metric.FLASH
    int8 = costs_on(target, tmp_path, INPUTS, metric)
    formats = quick({"weights": "int4", "ranges": "mse", "overrides": [{"name": "fc"}]})
    assert (formats.weights, formats.ranges, len(formats.overrides)) == ("int4", "min-max", 1)
    int4 = costs_on(target, tmp_path, INPUTS, metric, formats)
    wide, narrow = (costs.measure([trained()])[0] for costs in (int8, int4))
    assert wide.unit == narrow.unit == "bytes"
    assert narrow.value < wide.value


def test_costs_are_those_of_the_scales_that_inputs_give(tmp_path: Path) -> None:
    target = get_target("cortex-m4")
    if any(tool.find() is None for tool in target.tools()):
        pytest.skip("cortex-m4 needs its tools")
    scales = []
    for inputs in (INPUTS, 4 * INPUTS):
        costs = costs_on(target, tmp_path, inputs)
        assert isinstance(costs, TargetCosts)
        graph = costs.lowered(trained())
        scales.append(float(graph.tensors[graph.inputs[0]].q.scale[0]))
    assert scales[1] == pytest.approx(4 * scales[0])


def test_macs_are_those_of_the_formula() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.Flatten(),
        nn.Linear(8 * 16, 5),
    )
    assert macs(model, SHAPE) == 64 * 8 * 27 + 16 * 8 * 9 + 128 * 5


def test_a_target_without_a_cost_model_is_said(tmp_path: Path) -> None:
    costs = costs_on(get_target("c-host"), tmp_path, INPUTS)
    assert isinstance(costs, MacCosts)
    assert "no cost model" in costs.note
    assert costs.measure([trained()])[0].unit == "MACs"


def test_microcontroller_costs_are_those_of_the_cost_model(tmp_path: Path) -> None:
    target = get_target("cortex-m4")
    for tool in target.tools():
        if tool.find() is None:
            pytest.skip(f"cortex-m4 needs {tool.name}: {tool.install}")
    costs = costs_on(target, tmp_path, INPUTS)
    assert isinstance(costs, TargetCosts)
    model = trained()
    structure = structure_of(model, SHAPE)
    before = costs.measure([model])[0]
    assert (before.unit, before.kind) == ("instructions", Kind.SIMULATED)
    torch.manual_seed(0)
    selection = Selection(model, structure, flat(structure), costs, Limits(4))
    choice = selection.reach(0.5 * before.value)
    assert choice.cost.value <= 0.5 * before.value
    again = costs.measure([apply_plan(model, choice.plan)])[0]
    assert again == choice.cost


@pytest.mark.parametrize(
    ("target", "fix"),
    [("cpu-litert", "choose a metric of time, flash"), ("c-host", "leave `metric` out")],
)
def test_a_metric_that_the_target_lacks_is_named(target: str, fix: str, tmp_path: Path) -> None:
    with pytest.raises(PruningError, match=f"'{target}' has no cycles figure") as caught:
        costs_on(get_target(target), tmp_path, INPUTS, "cycles")
    assert caught.value.fix == fix


def test_a_runtime_on_this_machine_is_timed(tmp_path: Path) -> None:
    costs = costs_on(get_target("cpu-litert"), tmp_path, INPUTS)
    wide, narrow = costs.measure([trained(width=64, steps=1), trained(width=4, steps=1)])
    assert (wide.unit, wide.kind) == ("ms", Kind.MEASURED)
    assert narrow.value < wide.value
    assert not costs.counted
