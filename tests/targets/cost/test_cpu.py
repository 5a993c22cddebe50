"""The cost model of CPU runtimes: what it times, keeps, leaves to a neighbour and states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgesmith.pipeline.errors import ToolFailedError, ToolMissingError
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import Kind
from edgesmith.targets.base import LatencyOptions
from edgesmith.targets.cost import CostModel, Metric, cost_model
from edgesmith.targets.cost.cpu import CpuCost
from edgesmith.targets.cost.structure import key_of, structure
from edgesmith.targets.cpu.measure import CpuTarget
from edgesmith.targets.cpu.runtime import Runtime
from edgesmith.targets.cpu_litert import CpuLiteRT
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Padding, Quantization
from edgesmith.targets.graph.legalizer import legalize
from tests.targets.cost.networks import activation, convolution, recalibrated

TARGETS = ["cpu-litert", "cpu-onnxruntime", "cpu-tflite-runtime"]


def costs(name: str, folder: Path) -> CpuCost:
    target = get_target(name)
    for tool in target.tools():
        if tool.find() is None:
            pytest.skip(f"{name} needs {tool.name}: {tool.install}")
    assert isinstance(target, CpuTarget)
    return CpuCost(target, folder)


def padded() -> Graph:
    """Padding, and a convolution that alone reads it."""
    graph = convolution(size=10)
    x = activation("x", (1, 8, 8, 4))
    wide = replace(graph["x"], name="wide", quantization=x.quantization)
    (op,) = graph.ops
    pad = ir.Pad("pad", ("x",), ("wide",), (0, 1, 1, 0), (0, 1, 1, 0))
    moved = replace(op, inputs=("wide", *op.inputs[1:]))
    return replace(
        graph, tensors={**graph.tensors, "x": x, "wide": wide}, ops=(pad, moved), name="padded"
    )


@pytest.mark.parametrize("name", TARGETS)
def test_models_and_layers_are_timed(name: str, tmp_path: Path) -> None:
    model = costs(name, tmp_path)
    graphs = [convolution(), convolution(channels=64, size=32)]
    small, large = (model.model(graph) for graph in graphs)
    for cost in (small, large):
        assert cost[Metric.TIME].kind is Kind.MEASURED
        assert cost[Metric.TIME].unit == "ms"
        assert 0 < cost[Metric.TIME].low <= cost[Metric.TIME].value <= cost[Metric.TIME].high
        assert [layer.name for layer in cost.layers] == ["conv"]
        assert cost.overhead[Metric.TIME].value > 0
        assert cost.error is None
    # 200 times the work, so no noise can turn them round.
    assert large[Metric.TIME].value > small[Metric.TIME].value
    assert large.layers[0][Metric.TIME].value > small.layers[0][Metric.TIME].value
    target = model.target
    assert large[Metric.FLASH].value == len(next(iter(target.build(graphs[1]).files.values())))


def test_what_is_known_is_not_timed_again(tmp_path: Path) -> None:
    filled = costs("cpu-litert", tmp_path).fill([convolution()])
    assert (filled.layers, filled.measured) == (4, 3)  # model, layer, and an empty model
    again = costs("cpu-litert", tmp_path)
    assert again.fill([convolution(), convolution(seed=3)]).measured == 0
    assert again.model(convolution()) == again.model(convolution())


def test_values_do_not_enter_keys_and_shapes_and_formats_do() -> None:
    target = CpuLiteRT()
    graph = legalize(convolution(), target.describe())
    one, other = (key_of(structure(each)) for each in (graph, recalibrated(graph, 1)))
    assert one == other
    weight = replace(graph["w"], dtype=DType.INT4)
    (op,) = graph.ops
    assert isinstance(op, ir.Conv2D)
    others = [
        convolution(channels=12),
        convolution(size=9),
        replace(graph, ops=(replace(op, stride=(2, 2)),)),
        replace(graph, ops=(replace(op, padding=Padding(1, 1, 1, 1)),)),
        replace(graph, tensors={**graph.tensors, "w": weight}),
    ]
    keys = {key_of(structure(each)) for each in others}
    assert len(keys) == len(others)
    assert one not in keys


def test_names_do_not_enter_keys() -> None:
    graph = convolution()
    renamed = {
        {"x": "image"}.get(name, name): replace(each, name={"x": "image"}.get(name, name))
        for name, each in graph.tensors.items()
    }
    op = replace(graph.ops[0], name="first", inputs=("image", *graph.ops[0].inputs[1:]))
    other = Graph("other", renamed, (op,), ("image",), graph.outputs)
    assert structure(other) == structure(graph)


def test_padding_that_a_convolution_takes_over_costs_nothing(tmp_path: Path) -> None:
    graph = padded()
    litert, onnxruntime = (costs(name, tmp_path) for name in TARGETS[:2])
    pad, conv = litert.model(graph).layers
    assert (pad.kernel, pad[Metric.TIME].value) == ("", 0)
    assert conv[Metric.TIME].value > 0
    assert onnxruntime.layer(graph.ops[0], graph).kernel == "cpu-onnxruntime"
    read_twice = replace(graph, outputs=("y", "wide"))
    assert litert.layer(graph.ops[0], read_twice).kernel == "cpu-litert"


@pytest.mark.parametrize("name", TARGETS[:2])
def test_a_change_of_format_between_layers_costs(name: str, tmp_path: Path) -> None:
    model = costs(name, tmp_path)
    given = activation("x", (1, 64, 64, 16))
    wanted = replace(given, dtype=DType.INT16, quantization=Quantization.per_tensor(0.001))
    assert model.edge(given, given)[Metric.TIME].value == 0
    assert model.edge(given, wanted)[Metric.TIME].value > 0


def test_the_error_is_stated_of_whole_models(tmp_path: Path) -> None:
    model = costs("cpu-litert", tmp_path)
    graphs = [convolution(channels=64, size=32), padded()]
    found = model.validate(graphs)
    assert [each.model for each in found.samples] == ["convolution", "padded"]
    assert found.metrics[Metric.TIME].samples == 2
    assert costs("cpu-litert", tmp_path).model(graphs[0]).error == found


def test_times_are_scaled_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that runs at half its clock gives the same costs."""
    slow = 1.0

    def latency(
        self: Runtime, models: Sequence[Path], options: LatencyOptions
    ) -> list[list[float]]:
        return [[slow * path.stat().st_size] * 4 for path in models]

    monkeypatch.setattr(Runtime, "latency", latency)
    model = costs("cpu-litert", tmp_path)
    before = model.model(convolution(channels=16))[Metric.TIME].value
    slow = 2.0
    after = model.model(convolution(channels=17))[Metric.TIME].value
    assert before < after < 1.1 * before


def test_what_cannot_be_timed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Runtime.latency

    def latency(
        self: Runtime, models: Sequence[Path], options: LatencyOptions
    ) -> list[list[float]]:
        if any(path.stat().st_size > 20_000 for path in models):
            raise ToolFailedError("it crashed", fix="none")
        return real(self, models, options)

    monkeypatch.setattr(Runtime, "latency", latency)
    model = costs("cpu-litert", tmp_path)
    with pytest.raises(ToolFailedError, match=r"the cost of Conv2D .conv. .* it crashed") as caught:
        model.fill([convolution(), convolution(channels=1024)])
    assert caught.value.code == "ES501"
    assert costs("cpu-litert", tmp_path).fill([convolution()]).measured == 0, "the rest is kept"


def test_a_missing_runtime_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgesmith.pipeline.tools.Tool.find", lambda self: None)
    model: CostModel = cost_model(get_target("cpu-litert"), tmp_path)
    with pytest.raises(ToolMissingError, match="cost model of target 'cpu-litert'"):
        model.model(convolution())
