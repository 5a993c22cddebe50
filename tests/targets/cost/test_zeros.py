"""Costs of models whose weights are kept in flash without their zeros, and the gain a run finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.results import Device
from edgesmith.pipeline.target_facts import get_target
from edgesmith.targets.c.compiler import compile_graph
from edgesmith.targets.c.program import Call
from edgesmith.targets.c.vectors import random_codes
from edgesmith.targets.cost import Metric, cost_model
from edgesmith.targets.cost.layers import layers_of
from edgesmith.targets.cost.microcontroller import LAYER_SCRATCH, MicrocontrollerCost
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Graph
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.mcu.target import MicrocontrollerTarget
from tests.targets.c.sparse import network
from tests.targets.cost.networks import activation
from tests.targets.mcu.library import need

COMPRESSING = "cortex-m4,zeros=compress"


@pytest.fixture(autouse=True)
def _tools() -> None:
    need()


def target_of(name: str) -> MicrocontrollerTarget:
    target = get_target(name)
    assert isinstance(target, MicrocontrollerTarget)
    return target


def legal(graph: Graph, name: str = COMPRESSING) -> Graph:
    return legalize(graph, target_of(name).describe())


def calls(graph: Graph) -> tuple[Call, ...]:
    return compile_graph(graph, target_of(COMPRESSING).compile_options()).program.calls


@pytest.mark.parametrize("bits", [8, 4])
def test_a_model_with_expanded_weights_costs_what_a_run_finds(bits: int, tmp_path: Path) -> None:
    graph = legal(network(0, bits=bits))
    table = cost_model(target_of(COMPRESSING), tmp_path)
    error = table.validate([graph])
    for metric in (Metric.INSTRUCTIONS, Metric.CYCLES, Metric.FLASH):
        assert error.metrics[metric].max < 0.01, metric
    assert error.metrics[Metric.ARENA].max == 0
    expanded = {
        call.name: call.expanded.bytes for call in calls(graph) if call.expanded is not None
    }
    layers = {layer.name: layer for layer in table.model(graph).layers}
    assert len(expanded) >= 2
    for name, size in expanded.items():
        assert layers[name][Metric.SCRATCH].value >= size


def test_costs_depend_on_values_only_where_that_is_asked_for(tmp_path: Path) -> None:
    graph = legal(network(0, size=16, outputs=1), "cortex-m4")
    auto, store = (target_of(name) for name in ("cortex-m4", "cortex-m4,zeros=store"))
    deployed = compile_graph(graph, auto.compile_options())
    assert any(call.expanded is not None for call in deployed.program.calls)
    found = [MicrocontrollerCost(target, tmp_path).model(graph) for target in (auto, store)]
    assert found[0].figures == found[1].figures
    assert found[0].basis["zeros"] == "store"
    assert found[0].target == "cortex-m4"


def test_zeros_elsewhere_are_another_layer() -> None:
    first, second = (
        layers_of(
            compile_graph(legal(network(seed)), target_of(COMPRESSING).compile_options()).program
        )
        for seed in (0, 1)
    )
    assert len(first) == len(second)
    assert not {each.key for each in first} & {each.key for each in second}
    plain = target_of("cortex-m4,zeros=store").compile_options()
    keys = [
        {each.key for each in layers_of(compile_graph(legal(network(s)), plain).program)}
        for s in (0, 1)
    ]
    assert keys[0] == keys[1]


def test_an_operator_of_several_calls_costs_all_of_them(tmp_path: Path) -> None:
    parts = [activation(f"x{number}", (1, 4, 4, 4)) for number in range(20)]
    names = tuple(each.name for each in parts)
    output = activation("y", (1, 4, 4, 80))
    op = ir.Concat("concat", names, ("y",), 3)
    graph = Graph("many", {t.name: t for t in (*parts, output)}, (op,), names, ("y",))
    assert len(calls(graph)) > 1
    table = MicrocontrollerCost(target_of(COMPRESSING), tmp_path)
    whole, alone = table.model(graph), table.layer(op, graph)
    for metric in (Metric.INSTRUCTIONS, Metric.CYCLES, Metric.FLASH):
        each = [layer[metric].value for layer in whole.layers]
        assert alone[metric].value == pytest.approx(sum(each))
        assert alone[metric].value > max(each)


def test_a_layer_alone_has_the_scratch_that_small_plans_settle_on(tmp_path: Path) -> None:
    graph = legal(network(0, size=24))
    op = next(op for op in graph.ops if op.name == "depthwise")
    fast, small = (
        MicrocontrollerCost(target_of(name), tmp_path).layer(op, graph)[Metric.SCRATCH].value
        for name in ("cortex-m4", "cortex-m4,plan=memory")
    )
    assert 0 < small <= LAYER_SCRATCH < fast


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m0plus"])
def test_the_gain_is_what_two_builds_differ_by(name: str, tmp_path: Path) -> None:
    devices = {}
    for zeros in ("store", "compress"):
        target = target_of(f"{name},zeros={zeros}")
        graph = legal(network(0), target.name)
        products = execute_plan(target.build(graph), tmp_path / zeros)
        device = target.device(products, random_codes(graph, 2))
        assert device is not None
        assert from_json(Device, to_json(device)) == device
        devices[zeros] = device
    plain, made = devices["store"], devices["compress"]
    assert plain.zeros is None
    gain = made.zeros
    assert gain is not None
    assert gain.layers == len(made.layers)
    assert gain.flash.value == plain.flash.value - made.flash.value > 0
    assert gain.arena.value == made.arena.value - plain.arena.value > 0
    spent = made.instructions.value - plain.instructions.value
    assert gain.instructions.value == pytest.approx(spent)
    assert gain.share.value == pytest.approx(100 * spent / plain.instructions.value)
