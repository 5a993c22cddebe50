"""The cost model of Cortex-M targets, with the tools: what it measures, keeps and states."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgesmith.pipeline.errors import TargetUnsupportedError, ToolFailedError, ToolMissingError
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import Kind
from edgesmith.targets.c.assemble import assemble
from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.cortex_m0plus import CortexM0Plus
from edgesmith.targets.cortex_m4 import CortexM4
from edgesmith.targets.cortex_m55 import CortexM55
from edgesmith.targets.cost import CostModel, Metric, batch, cost_model
from edgesmith.targets.cost.emulate import Bench
from edgesmith.targets.cost.layers import Layer, layers_of
from edgesmith.targets.cost.microcontroller import MicrocontrollerCost
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Quantization
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.tflite_reader import read_tflite
from edgesmith.targets.mcu.target import MicrocontrollerTarget
from tests.targets.cost.networks import activation, convolution, random_network, recalibrated
from tests.targets.mcu.library import need

WORST = 0.01
"""Relative error of instructions and cycles that the cost model has to stay below."""


@pytest.fixture(autouse=True)
def _tools() -> None:
    need()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cost folder that knows the convolution on Cortex-M4."""
    need()
    folder = tmp_path_factory.mktemp("costs")
    costs(folder).fill([convolution()])
    return folder


def costs(folder: Path, target: MicrocontrollerTarget | None = None) -> MicrocontrollerCost:
    return MicrocontrollerCost(target or CortexM4(), folder)


def layers(graph: Graph, target: MicrocontrollerTarget) -> tuple[Layer, ...]:
    return layers_of(assemble(Site(graph, target.core.kernels)))


def test_a_layer_has_every_metric_with_its_kind(filled: Path) -> None:
    graph = convolution()
    cost = costs(filled).layer(graph.ops[0], graph)
    assert cost.kernel.startswith("es_dsp_")
    kinds = {metric: figure.kind for metric, figure in cost.figures.items()}
    assert kinds == {
        Metric.INSTRUCTIONS: Kind.SIMULATED,
        Metric.CYCLES: Kind.ESTIMATED,
        Metric.TIME: Kind.ESTIMATED,
        Metric.FLASH: Kind.SIMULATED,
        Metric.SCRATCH: Kind.SIMULATED,
    }
    assert cost[Metric.CYCLES].low <= cost[Metric.CYCLES].value <= cost[Metric.CYCLES].high
    # 6 x 6 outputs of 8 channels over 3 x 3 x 4 inputs
    assert cost[Metric.INSTRUCTIONS].value > 36 * 8 * 36
    weights_and_tail = 8 * 36 + 8 * 12
    assert weights_and_tail <= cost[Metric.FLASH].value < weights_and_tail + 300


def test_what_is_known_needs_no_tools(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = convolution(seed=1)  # other weights than the measured one's
    known = costs(filled).model(graph)
    monkeypatch.setenv("PATH", "")
    model = costs(filled)
    assert model.model(graph) == known
    other = convolution(channels=12)
    with pytest.raises(ToolMissingError, match=r"apt install gcc-arm-none-eabi") as caught:
        model.layer(other.ops[0], other)
    assert "cost model of target 'cortex-m4'" in str(caught.value)


def test_nothing_known_and_no_tools_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolMissingError, match=r"apt install qemu-system-arm"):
        costs(tmp_path).model(convolution())


def test_known_layers_are_not_measured_again(filled: Path) -> None:
    model = costs(filled)
    found = model.fill([convolution(), convolution(seed=5)])
    assert (found.layers, found.measured, found.batches) == (1, 0, 0)


def test_a_truncated_file_is_filled_again(tmp_path: Path) -> None:
    graph = convolution()
    before = costs(tmp_path).model(graph)
    for path in tmp_path.rglob("batches/*.json"):
        path.write_bytes(path.read_bytes()[:40])
    model = costs(tmp_path)
    assert model.fill([graph]).measured == 1
    assert model.model(graph) == before


@pytest.mark.parametrize("target", [CortexM0Plus(), CortexM4(), CortexM55()], ids=lambda t: t.name)
def test_a_batch_gives_what_single_runs_give(target: MicrocontrollerTarget) -> None:
    together = [layer for seed in (3, 11) for layer in layers(random_network(seed, target), target)]
    bench = Bench(target.core)
    batched = bench.measure(together, {})
    for layer, found in list(zip(together, batched, strict=True))[:5]:
        (alone,) = bench.measure([layer], {})
        assert abs(found.instructions.value - alone.instructions.value) <= 4  # addresses differ
        assert found.code == alone.code
        assert found.key == alone.key


def test_recalibrated_layers_that_share_a_key_cost_the_same() -> None:
    target = CortexM4()
    pairs: list[tuple[Layer, Layer]] = []
    all_layers = 0
    for seed in range(2000, 2020):
        graph = random_network(seed, target)
        first, second = (
            layers(legalize(recalibrated(graph, other), target.describe()), target)
            for other in range(2)
        )
        if len(first) != len(second):
            continue
        all_layers += len(first)
        pairs += [(one, two) for one, two in zip(first, second, strict=True) if one.key == two.key]
    assert len(pairs) >= 0.9 * all_layers
    bench = Bench(target.core)
    ones = bench.measure([one for one, _ in pairs], {})
    twos = bench.measure([two for _, two in pairs], {})
    for one, two in zip(ones, twos, strict=True):
        limit = WORST * one.instructions.value + 4
        assert abs(one.instructions.value - two.instructions.value) <= limit, one.kernel


def test_a_model_is_its_layers_and_the_overhead(tmp_path: Path) -> None:
    target = CortexM4()
    graph = random_network(1011, target)
    cost = costs(tmp_path).model(graph)
    for metric in (Metric.INSTRUCTIONS, Metric.CYCLES, Metric.TIME):
        parts = [layer[metric].value for layer in (*cost.layers, cost.overhead)]
        assert cost[metric].value == pytest.approx(sum(parts))
    clock = target.preset().clock_hz
    assert cost[Metric.TIME].value == pytest.approx(1e3 * cost[Metric.CYCLES].value / clock)
    assert cost.error is None


def test_the_error_is_stated_small_and_kept(tmp_path: Path) -> None:
    target = CortexM4()
    graphs = [random_network(seed, target) for seed in (1000, 1003, 1012, 1014)]
    model = costs(tmp_path)
    error = model.validate(graphs)
    for metric in (Metric.INSTRUCTIONS, Metric.CYCLES):
        assert 0 <= error.metrics[metric].mean <= error.metrics[metric].max <= WORST
        assert error.metrics[metric].samples == len(graphs)
    assert error.metrics[Metric.ARENA].max == 0
    assert error.metrics[Metric.FLASH].max < 0.1  # networks of a few KB
    assert costs(tmp_path).model(graphs[0]).error == error


@pytest.mark.parametrize("name", ["kws", "ic", "vww", "ad"])
def test_official_networks_are_predicted(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = os.environ.get("EDGESMITH_DATA")
    path = Path(data or "") / "mlperf_tiny" / f"{name}_int8.tflite"
    if data is None or not path.is_file():
        pytest.skip(f"needs mlperf_tiny/{name}_int8.tflite in the folder EDGESMITH_DATA")
    target = CortexM4()
    graph = legalize(read_tflite(path.read_bytes(), name), target.describe())
    error = costs(tmp_path_factory.getbasetemp() / "official").validate([graph])
    for metric in (Metric.INSTRUCTIONS, Metric.CYCLES, Metric.FLASH):
        assert error.metrics[metric].max <= WORST, metric


def test_a_lost_overhead_is_measured_again(tmp_path: Path) -> None:
    graph = convolution()
    before = costs(tmp_path).model(graph)
    for path in tmp_path.rglob("batches/*.json"):
        if '"overhead"' in path.read_text():
            path.unlink()
    assert costs(tmp_path).model(graph) == before


def test_a_model_without_layers_costs_its_overhead(filled: Path) -> None:
    x = activation("x", (1, 4, 4, 8))
    y = replace(x, name="y", shape=(1, 128))
    graph = Graph("g", {"x": x, "y": y}, (ir.Reshape("r", ("x",), ("y",)),), ("x",), ("y",))
    cost = costs(filled).model(graph)
    assert cost.layers == ()
    assert cost[Metric.INSTRUCTIONS] == cost.overhead[Metric.INSTRUCTIONS]
    assert 0 < cost[Metric.INSTRUCTIONS].value < 100


def test_an_edge_costs_its_conversion(filled: Path) -> None:
    model = costs(filled)
    x = activation("x", (1, 4, 4, 8))
    wide = replace(x, dtype=DType.INT16, quantization=Quantization.per_tensor(0.0002))
    rescaled = replace(x, quantization=Quantization.per_tensor(0.1, 3))
    assert model.edge(x, replace(x, name="same"))[Metric.INSTRUCTIONS].value == 0
    for source, wanted in ((x, wide), (wide, x), (x, rescaled)):
        cost = model.edge(source, wanted)
        assert cost.op == "Quantize"
        assert cost[Metric.INSTRUCTIONS].value > x.elements


def test_a_reshape_is_free(filled: Path) -> None:
    x = activation("x", (1, 4, 4, 8))
    y = replace(x, name="y", shape=(1, 128))
    graph = Graph("g", {"x": x, "y": y}, (ir.Reshape("r", ("x",), ("y",)),), ("x",), ("y",))
    cost = costs(filled).layer(graph.ops[0], graph)
    assert {figure.value for figure in cost.figures.values()} == {0}
    assert cost.kernel == ""


def test_boards_share_layers_and_differ_in_time(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    kind = CortexM4.with_options("cortex-m4@nrf52840-dk", {"board": "nrf52840-dk"})
    board = kind()
    assert isinstance(board, MicrocontrollerTarget)
    graph = convolution()
    slow = costs(filled, board).layer(graph.ops[0], graph)
    fast = costs(filled).layer(graph.ops[0], graph)
    assert slow[Metric.INSTRUCTIONS] == fast[Metric.INSTRUCTIONS]
    assert slow[Metric.TIME].value > fast[Metric.TIME].value


def test_an_interrupted_fill_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_LAYERS", 1)
    graphs = [convolution(channels=channels) for channels in (4, 8, 12)]

    def interrupt(known: int, wanted: int) -> None:
        assert wanted == 3
        if known == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        costs(tmp_path).fill(graphs, interrupt)
    assert costs(tmp_path).fill(graphs).measured == 1


def test_a_layer_that_cannot_be_measured_is_named_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (8, 9, 10)
    graphs = [
        replace(graph, ops=(replace(graph.ops[0], name=f"conv{size}"),))
        for size in sizes
        for graph in [convolution(size=size)]
    ]
    measure = Bench.measure

    def fragile(bench: Bench, some: Sequence[Layer], known: dict[str, dict[str, int]]) -> object:
        if any(layer.call.name == "conv10" for layer in some):
            raise ToolFailedError("harness.elf failed", fix="read qemu.log")
        return measure(bench, some, known)

    monkeypatch.setattr(Bench, "measure", fragile)
    model = costs(tmp_path)
    with pytest.raises(ToolFailedError, match=r"Conv2D 'conv10'.*harness\.elf failed"):
        model.fill(graphs)
    assert model.fill(graphs[:2]).measured == 0


def test_graphs_that_do_not_fit_are_skipped(tmp_path: Path) -> None:
    tiny = CortexM4.with_options("cortex-m4@ram=200", {"ram": "200"})()
    assert isinstance(tiny, MicrocontrollerTarget)
    found = costs(tmp_path, tiny).fill([convolution(size=16)])
    assert (found.layers, found.skipped) == (0, 1)


FILL = """
import sys
from pathlib import Path
from edgesmith.targets.cortex_m4 import CortexM4
from edgesmith.targets.cost import batch
from edgesmith.targets.cost.microcontroller import MicrocontrollerCost
from tests.targets.cost.networks import convolution
batch.MOST_LAYERS = 2
found = MicrocontrollerCost(CortexM4(), Path(sys.argv[1])).fill(
    [convolution(size=size) for size in range(4, 12)]
)
print(found.layers, found.measured)
"""


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", FILL, str(tmp_path)]
    running = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert [words[0] for words in said] == ["8", "8"]
    assert sum(int(words[1]) for words in said) == 8  # nothing twice


def test_a_target_without_a_cost_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(TargetUnsupportedError, match=r"'c-host' has no cost model"):
        cost_model(get_target("c-host"), tmp_path)


def test_microcontrollers_have_a_cost_model(tmp_path: Path) -> None:
    model: CostModel = cost_model(CortexM4(), tmp_path)
    assert isinstance(model, MicrocontrollerCost)
