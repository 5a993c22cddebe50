"""From a model to a policy that quantizes, exports and deploys with parity."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from edgesmith.pipeline.errors import (
    AllocationError,
    UnreachableAccuracyError,
    UnreachableBudgetError,
    UnsupportedError,
)
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.lowering import build_for, prove, read_model
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import Kind, QFormat
from edgesmith.quantize.allocation.allocate import Allocation, allocate, spread_over
from edgesmith.quantize.allocation.build import policy_of, problem_of, rules_of, uniform
from edgesmith.quantize.allocation.costs import multiply_accumulates, stored_bits, weight_bytes
from edgesmith.quantize.allocation.milp import solve
from edgesmith.quantize.allocation.options import AllocationOptions
from edgesmith.quantize.allocation.problem import Choice
from edgesmith.quantize.allocation.target_costs import TargetCosts, target_costs
from edgesmith.quantize.allocation.values import Accuracy
from edgesmith.quantize.export import export_qdq
from edgesmith.quantize.options import Override, PTQOptions
from edgesmith.quantize.ptq import quantize
from edgesmith.quantize.sensitivity.measure import measure
from edgesmith.quantize.sensitivity.subject import Subject, subject_of
from edgesmith.quantize.sensitivity.values import SensitivityOptions
from edgesmith.targets.cost import (
    CostError,
    Figure,
    Filled,
    LayerCost,
    Metric,
    ModelCost,
    cost_model,
)
from edgesmith.targets.cost.base import Progress
from edgesmith.targets.graph.costs import macs, weight_bits
from edgesmith.targets.graph.costs import weight_bytes as all_bytes
from edgesmith.targets.graph.ir import Graph, Op, Tensor
from tests.quantize.nets import NETS, make

T = TypeVar("T")
OPTIONS = PTQOptions(ranges="min-max")


def subject(name: str = "residual") -> Subject:
    model, inputs = make(name)
    return subject_of(model, inputs, OPTIONS)


def exported(name: str, rules: Sequence[Override], folder: Path) -> Graph:
    model, inputs = make(name)
    quantized = quantize(
        model, inputs, dataclasses.replace(OPTIONS, overrides=tuple(rules)), seed=0
    )
    export_qdq(quantized, folder / "model.onnx")
    return read_model(folder / "model.onnx")


@pytest.mark.parametrize("name", ["residual", "separable", "plain"])
def test_costs_are_those_of_the_exported_graph(name: str, tmp_path: Path) -> None:
    made = subject(name)
    found = measure(made, ["int8", "int4"])
    problem = problem_of(made, found)
    for choices in (uniform(problem, "int8"), uniform(problem, "int4")):
        graph = exported(name, rules_of(made, choices), tmp_path)
        costs = problem.costs(problem.picked(choices))
        layers = [op for op in graph.ops if weight_bits(graph, op) and macs(graph, op)]
        layers = [op for op in layers if op.output in choices]
        stored = sum(graph[op.inputs[1]].bytes for op in layers)
        assert costs["weight-bytes"] == stored
        assert stored <= sum(all_bytes(graph, op) for op in layers)
        bits = (macs(graph, op) * (weight_bits(graph, op) or 0) * 8 for op in layers)
        assert costs["bit-operations"] == sum(bits)


@pytest.mark.parametrize(
    ("bits", "stored", "bytes_of_nine"), [(1, 2, 3), (2, 2, 3), (3, 4, 5), (4, 4, 5), (6, 8, 9)]
)
def test_stored_sizes(bits: int, stored: int, bytes_of_nine: int) -> None:
    fmt = QFormat(bits, symmetric=True, narrow=True)
    assert stored_bits(fmt) == stored
    assert weight_bytes(9, fmt) == bytes_of_nine


def test_multiply_accumulates_of_a_known_network() -> None:
    found = multiply_accumulates(subject("plain").network, (1, 14, 14))
    assert found == {"0": 6 * 10 * 10 * 25, "3": 8 * 5 * 5 * 6 * 9, "7": 72 * 16, "9": 16 * 5}


@pytest.mark.parametrize("name", ["attention", "transformer"])
def test_products_of_activations_count_as_in_the_exported_graph(name: str, tmp_path: Path) -> None:
    made = subject(name)
    found = multiply_accumulates(made.network, tuple(made.samples.shape[1:]))
    graph = exported(name, (), tmp_path)
    counted = {op.output: macs(graph, op) for op in graph.ops if op.kind == "BatchMatMul"}
    assert counted
    assert {output: found[output] for output in counted} == counted
    one = problem_of(made, measure(made, ["int8"]))
    products = sum(counted.values()) * 64
    assert one.base["bit-operations"] == products
    several = problem_of(made, measure(made, ["int8"], ["int8", "int16"]))
    choices = uniform(several, "int8", "int8")
    total = several.cost("bit-operations", several.picked(choices))
    assert total == one.cost("bit-operations", (0,) * len(one.units))


@pytest.mark.parametrize("name", sorted(NETS))
def test_a_solution_is_a_policy_and_the_policy_is_what_is_quantized(name: str) -> None:
    made = subject(name)
    options = SensitivityOptions(samples=8)
    found = measure(made, ["int8", "int4"], ["int8", "int16"], options)
    problem = problem_of(made, found)
    widest = problem.cost("weight-bytes", problem.picked(uniform(problem, "int8", "int16")))
    best = solve(problem, {"weight-bytes": 0.7 * widest})
    assert best.optimal
    assert problem.respects_ties(problem.picked(best.choices))
    policy = policy_of(made, best.choices)
    model, inputs = make(name)
    rules = rules_of(made, best.choices)
    quantized = quantize(model, inputs, dataclasses.replace(OPTIONS, overrides=rules), seed=0)
    assert quantized.placement.policy == policy
    for group, choice in best.choices.items():
        formats = policy.groups[group]
        assert (formats.weight.name if formats.weight else None) == choice.weight
        assert formats.activation.name == choice.activation


@pytest.mark.parametrize("target", ["cpu-litert", "c-host"])
@pytest.mark.parametrize("name", ["residual", "separable"])
def test_an_allocated_policy_deploys_with_parity(name: str, target: str, tmp_path: Path) -> None:
    device = get_target(target)
    if any(tool.find() is None for tool in device.tools()):
        pytest.skip(f"tools of {target} are missing")
    made = subject(name)
    found = allocate(made, AllocationOptions(budget_share={"weight-bytes": 0.7}, points=4))
    bits = {each.weight.bits for each in found.policy.groups.values() if each.weight is not None}
    assert bits == {4, 8}
    model, inputs = make(name)
    options = dataclasses.replace(OPTIONS, overrides=found.overrides)
    quantized = quantize(model, inputs, options, seed=0)
    export_qdq(quantized, tmp_path / "model.onnx")
    (tmp_path / "built").mkdir()
    products, legal = build_for(read_model(tmp_path / "model.onnx"), device, tmp_path / "built")
    parity, _ = prove(quantized.searched(), device, products, legal.positions)
    assert parity.compared > 0


class Counted:
    """A cost model that counts MACs times bits, and 7 for a change of format."""

    counted = True
    arena_limit = None

    def layer(self, op: Op, graph: Graph) -> LayerCost:
        bits = weight_bits(graph, op) if macs(graph, op) else None
        value = macs(graph, op) * (bits or 1) + graph[op.output].dtype.bits
        return self.cost(op.name, 7 if op.kind == "Quantize" else value)

    def edge(self, source: Tensor, wanted: Tensor) -> LayerCost:
        return self.cost(source.name, 7 if source.dtype is not wanted.dtype else 0)

    def model(self, graph: Graph, *, fitting: bool = True) -> ModelCost:
        layers = tuple(self.layer(op, graph) for op in graph.ops)
        total = self.cost("", 1000 + sum(layer[Metric.CYCLES].value for layer in layers))
        return ModelCost("counted", total.figures, layers, self.cost("", 1000), {}, None)

    def fill(self, graphs: Sequence[Graph], progress: Progress | None = None) -> Filled:
        return Filled(0, 0, 0)

    def validate(self, graphs: Sequence[Graph]) -> CostError:
        raise NotImplementedError

    def cost(self, name: str, value: float) -> LayerCost:
        figure = Figure(value, "cycles", Kind.ESTIMATED, 1, value, value)
        return LayerCost(name, "", "", {Metric.CYCLES: figure})


def counted(name: str, activations: Sequence[str]) -> TargetCosts:
    model, inputs = make(name)
    return target_costs(
        model,
        inputs,
        OPTIONS,
        ("int8", "int4"),
        activations,
        target=get_target("c-host"),
        costs=Counted(),
        metric=Metric.CYCLES,
    )


@pytest.mark.parametrize("name", ["plain", "residual", "inception"])
def test_costs_on_the_target_add_up_to_the_whole_model_requantization_included(
    name: str, tmp_path: Path
) -> None:
    made = subject(name)
    costs = counted(name, ("int8", "int16"))
    assert from_json(TargetCosts, to_json(costs)) == costs
    problem = problem_of(made, measure(made, ["int8", "int4"], ["int8", "int16"]), costs)
    rng = np.random.default_rng(0)
    tried = 0
    while tried < 3:
        wanted = rng.choice(["int8", "int16"], len(made.placement.quantizer_of))
        by_set = dict(zip(set(made.placement.quantizer_of.values()), wanted, strict=False))
        choices = {
            unit.name: Choice(
                None
                if unit.options[0].choice.weight is None
                else str(rng.choice(["int8", "int4"])),
                str(by_set[made.placement.quantizer_of[unit.name]]),
            )
            for unit in problem.units
        }
        graph = exported(name, rules_of(made, choices), tmp_path)
        total = Counted().model(graph)[Metric.CYCLES].value
        converts = sum(op.kind == "Quantize" for op in graph.ops)
        shared = _shared(graph)
        # A tensor that several groups convert is converted once; the problem counts each.
        assert problem.cost("cycles", problem.picked(choices)) == total + 7 * shared
        tried += converts > 0


def _shared(graph: Graph) -> int:
    """Further readers of every converted tensor."""
    made = {op.output for op in graph.ops if op.kind == "Quantize"}
    return sum(max(0, sum(op.inputs.count(name) for op in graph.ops) - 1) for name in made)


def test_with_one_activation_format_only_layers_choose_and_the_rest_is_constant() -> None:
    made = subject()
    problem = problem_of(made, measure(made, ["int8", "int4"]), counted("residual", ("int8",)))
    layers = [step.name for step in made.network.layer_steps()]
    assert [unit.name for unit in problem.units] == layers
    assert problem.base["cycles"] > 1000
    narrow, wide = (problem.costs(problem.picked(uniform(problem, w))) for w in ("int4", "int8"))
    middle = (narrow["cycles"] + wide["cycles"]) / 2
    assert solve(problem, {"cycles": middle}).costs["cycles"] <= middle


def test_costs_that_do_not_add_up_are_refused() -> None:
    model, inputs = make("plain")
    with pytest.raises(AllocationError, match="is not the sum of its layers'"):
        target_costs(
            model,
            inputs,
            OPTIONS,
            ("int8",),
            ("int8",),
            target=get_target("c-host"),
            costs=Counted(),
            metric=Metric.ARENA,
        )


def test_measured_instructions_of_a_cortex_m4(tmp_path: Path) -> None:
    target = get_target("cortex-m4")
    if any(tool.find() is None for tool in target.tools()):
        pytest.skip("no emulator or compiler for Cortex-M")
    made = subject()
    model, inputs = make("residual")
    measured = cost_model(target, tmp_path)
    formats = ("int8", "int4"), ("int8",)
    costs = target_costs(model, inputs, OPTIONS, *formats, target=target, costs=measured)
    assert costs.kind is Kind.SIMULATED
    problem = problem_of(made, measure(made, *formats), costs)
    mixed = uniform(problem, "int8") | {"layer1.0.conv2": Choice("int4"), "fc": Choice("int4")}
    total = problem.cost("instructions", problem.picked(mixed))
    graph = exported("residual", rules_of(made, mixed), tmp_path)
    whole = measured.model(graph)[Metric.INSTRUCTIONS].value
    assert total == pytest.approx(whole, rel=0.02)
    with pytest.raises(UnsupportedError):
        target_costs(
            model, inputs, OPTIONS, ("fp8-e4m3",), ("int8",), target=target, costs=measured
        )


def narrow_layers(rules: tuple[Override, ...]) -> int:
    return sum(rule.weights == "int4" for rule in rules)


def test_the_cheapest_choice_within_the_accuracy_bound() -> None:
    made = subject()
    calls: list[int] = []

    def accuracy(rules: tuple[Override, ...]) -> Accuracy:
        calls.append(narrow_layers(rules))
        return Accuracy(90.0 - calls[-1], 100, "selection")

    options = AllocationOptions(least_accuracy_percent=87.0, points=None)
    result = allocate(made, options, accuracy=accuracy)
    assert result.front.complete
    assert result.bisection is not None
    assert result.bisection.met
    cheapest = min(
        (each for each in result.front.solutions if _narrow(each.choices) <= 3),
        key=lambda each: each.costs["weight-bytes"],
    )
    assert result.solution.costs["weight-bytes"] <= cheapest.costs["weight-bytes"]
    assert narrow_layers(result.overrides) <= 3
    assert len(calls) < len(result.front.solutions)
    chosen = [each for each in result.figure.front if each.label == result.figure.chosen]
    assert [each.accuracy for each in chosen] == [
        Accuracy(90.0 - narrow_layers(result.overrides), 100, "selection")
    ]
    assert {each.label for each in result.figure.uniform} == {"uniform int8", "uniform int4"}
    assert from_json(Allocation, to_json(result)) == result
    with pytest.raises(UnreachableAccuracyError):
        allocate(made, AllocationOptions(least_accuracy_percent=95.0), accuracy=accuracy)


def _narrow(choices: dict[str, Choice]) -> int:
    return sum(choice.weight == "int4" for choice in choices.values())


def test_a_measured_front_has_every_accuracy() -> None:
    made = subject()
    options = AllocationOptions(measure_front=True, points=3, budget_share={"weight-bytes": 0.8})
    result = allocate(made, options, accuracy=lambda _: Accuracy(50.0, 10, "selection"))
    points = (*result.figure.front, *result.figure.uniform)
    assert all(each.accuracy == Accuracy(50.0, 10, "selection") for each in points)
    assert result.solution.costs["weight-bytes"] <= result.budget["weight-bytes"]
    losses = [each.loss for each in result.front.solutions]
    assert all(one > other for one, other in itertools.pairwise(losses))


def test_a_part_of_the_front_is_measured_and_reported_as_progress() -> None:
    seen: list[tuple[str, int, int | None]] = []

    class Seen(SilentProgress):
        def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
            for done, item in enumerate(items):
                seen.append((label, done, total))
                yield item

    options = AllocationOptions(
        measure_front=2, points=None, show=("bit-operations",), budget_share={"weight-bytes": 0.7}
    )
    found = allocate(
        subject(), options, accuracy=lambda _: Accuracy(50.0, 10, "selection"), progress=Seen()
    ).figure
    measured = [at for at, each in enumerate(found.front) if each.accuracy is not None]
    chosen = next(at for at, each in enumerate(found.front) if each.label == found.chosen)
    assert measured == sorted({0, chosen, len(found.front) - 1})
    assert len(measured) < len(found.front)
    assert all(each.accuracy is not None for each in found.uniform)
    assert len([label for label, _, _ in seen if label == "accuracy of the front"]) == len(measured)
    assert found.method == "cross-terms"
    assert found.costs_of == ""
    assert set(found.budget) == {"weight-bytes"}


@pytest.mark.parametrize(
    ("points", "wanted", "always", "expected"),
    [
        (5, True, 2, (0, 1, 2, 3, 4)),
        (5, 9, 2, (0, 1, 2, 3, 4)),
        (9, 3, 2, (0, 2, 4, 8)),
        (9, 1, 8, (0, 8)),
        (1, 1, 0, (0,)),
    ],
)
def test_measured_points_are_spread(
    points: int, wanted: int | bool, always: int, expected: tuple[int, ...]
) -> None:
    assert spread_over(points, wanted, always) == expected


def test_refusals() -> None:
    made = subject()
    with pytest.raises(UnreachableBudgetError, match="nearest reachable is weight-bytes"):
        allocate(made, AllocationOptions(budget={"weight-bytes": 10.0}))
    with pytest.raises(AllocationError, match="needs accuracy to be measured"):
        allocate(made, AllocationOptions(least_accuracy_percent=50.0))
    with pytest.raises(AllocationError, match="no resource 'cycles' to limit"):
        allocate(made, AllocationOptions(budget_share={"cycles": 0.5}))
    with pytest.raises(AllocationError, match="no option int8"):
        allocate(made, AllocationOptions(("int4", "int2"), budget_share={"weight-bytes": 0.5}))
