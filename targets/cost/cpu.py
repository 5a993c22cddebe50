"""The cost model of CPU runtimes: models and single layers timed on this machine, then looked up.

A model's time is that of the model as a whole, so whatever the runtime fuses is in it. A layer is
timed alone, in the form that it has inside a model (`CpuTarget.probe`), less what every call
costs; the stated error is how far the sum of layers lies from whole models.

A machine's clock drifts. Every batch times one fixed model along with its own, and all times are
scaled to what that model took when the table began.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.own_source import source_digest
from edgesmith.pipeline.tools import require_all
from edgesmith.pipeline.values import BuildPlan, Kind
from edgesmith.pipeline.versions import machine
from edgesmith.targets.base import LatencyOptions
from edgesmith.targets.cost.base import (
    CostError,
    ErrorSample,
    Figure,
    Filled,
    LayerCost,
    Metric,
    ModelCost,
    Progress,
)
from edgesmith.targets.cost.filling import Filling
from edgesmith.targets.cost.structure import key_of, structure
from edgesmith.targets.cost.table import Table
from edgesmith.targets.cpu.measure import CpuTarget
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.costs import macs
from edgesmith.targets.graph.ir import DType, Graph, Op, Padding, Quantization, Tensor
from edgesmith.targets.graph.subgraph import conversion, single_op

OPTIONS = LatencyOptions(warmups=5, runs=120, burst=10)
MOST_MODELS = 48
"""Sessions that one worker holds: more would wait for each other's weights to come back."""
_MOST_MACS = 200_000_000
_PERCENTILES = (10, 50, 90)
_SOURCE = Path(__file__).parent.parent / "cpu"


@dataclass(frozen=True)
class TimeRecord:
    """What timing one file gave, milliseconds.

    Args:
        low, median, high: 10th, 50th and 90th percentile over `runs` calls, scaled to the
            table's reference.
    """

    key: str
    description: dict[str, Any]
    low: float
    median: float
    high: float
    runs: int


@dataclass(frozen=True, eq=False)
class _Timed:
    """A file to be timed."""

    title: str
    description: dict[str, Any]
    plan: Callable[[], BuildPlan]
    macs: int = 0

    @cached_property
    def key(self) -> str:
        return key_of(self.description)


@dataclass(frozen=True, eq=False)
class _Layer:
    """An operator alone: its probe, and what the probe adds at its activations."""

    op: Op
    probe: _Timed
    boundaries: tuple[_Timed, ...]


class CpuCost:
    """Costs on a runtime of this machine's CPU.

    Args:
        folder: where times are kept, for all targets and processes.
    """

    counted: ClassVar[bool] = False

    def __init__(self, target: CpuTarget, folder: Path) -> None:
        self.target = target
        facts = {
            "target": target.name,
            **machine(),
            "runs": str(OPTIONS),
            "source": source_digest(_SOURCE),
        }
        tools = {f"tool {tool.name}": tool.version() for tool in target.tools()}
        self._table = Table.open(TimeRecord, folder, facts, tools)
        self._filling = Filling(self._table, _batches, self._measure, lambda each: each.title)
        self._reference = self._whole(_reference_graph())
        self._idle = self._nothing()

    def layer(self, op: Op, graph: Graph) -> LayerCost:
        """Of one operator of a graph; nothing where the runtime computes it inside another.

        Raises:
            ToolMissingError, ToolFailedError: it is not known and cannot be measured.
        """
        layer = self._layer(op, graph)
        if layer is None:
            return self._free(op.name, op.kind)
        self._fill(_files([layer]))
        return self._layer_cost(layer)

    def edge(self, source: Tensor, wanted: Tensor) -> LayerCost:
        """Of the Quantize between two layers: `source` as one gives it, `wanted` as the other
        takes it.

        Raises:
            As `layer`.
        """
        found = conversion(source, wanted)
        return self._free(source.name, ir.Quantize.kind) if found is None else self.layer(*found)

    @property
    def arena_limit(self) -> None:
        """There is none."""

    def model(self, graph: Graph, *, fitting: bool = True) -> ModelCost:
        """Of a whole model, timed as it would be deployed; flash is the file's size. All fit.

        Raises:
            As `layer`.
        """
        whole = self._whole(graph)
        layers = [(op, self._layer(op, graph)) for op in graph.ops]
        self._fill([whole, *_files([layer for _, layer in layers if layer is not None])])
        plan = whole.plan()
        size = len(plan.files[plan.main])
        flash = Figure(size, "bytes", Kind.MEASURED, 1, size, size)
        return ModelCost(
            target=self.target.name,
            figures={Metric.TIME: _time(self._known(whole)), Metric.FLASH: flash},
            layers=tuple(
                self._free(op.name, op.kind) if layer is None else self._layer_cost(layer)
                for op, layer in layers
            ),
            overhead=LayerCost("overhead", "", "", {Metric.TIME: _time(self._known(self._idle))}),
            basis={
                "machine": machine()["processor"],
                "threads": str(OPTIONS.threads),
                **self._table.about.tools,
            },
            error=self.error,
        )

    def fill(self, graphs: Sequence[Graph], progress: Progress | None = None) -> Filled:
        """Time these graphs, and every layer of theirs, that are not known.

        What is finished stays when the process dies; processes share a table.

        Raises:
            As `layer`; a failure names the layer.
        """
        wanted = [self._whole(graph) for graph in graphs]
        for graph in graphs:
            layers = (self._layer(op, graph) for op in graph.ops)
            wanted += _files([layer for layer in layers if layer is not None])
        return self._fill(wanted, progress)

    def validate(self, graphs: Sequence[Graph]) -> CostError:
        """Time whole models anew, and keep how far the sums of their layers lie off.

        Raises:
            As `layer`.
        """
        self.fill(graphs)
        samples = []
        for graph, fresh in zip(
            graphs, self._measure([self._whole(g) for g in graphs]), strict=True
        ):
            cost = self.model(graph)
            total = sum(each[Metric.TIME].value for each in (cost.overhead, *cost.layers))
            samples.append(ErrorSample(graph.name, Metric.TIME, total, fresh.median))
        error = CostError.of(self.target.name, samples)
        self._table.store_error(self._code, error)
        return error

    @property
    def error(self) -> CostError | None:
        """What `validate` last found."""
        return self._table.error(self._code)

    @property
    def _code(self) -> str:
        return self._table.about.facts["source"]

    def _whole(self, graph: Graph) -> _Timed:
        description = {"whole": structure(graph)}
        plan = partial(self.target.build, graph)
        return _Timed(f"model {graph.name!r}", description, plan, _macs(graph))

    def _layer(self, op: Op, graph: Graph) -> _Layer | None:
        """None for padding that the runtime leaves to the convolution behind it."""
        if self.target.fuses_padding and _padded_by(op, graph) is not None:
            return None
        alone = single_op(graph, op)
        pad = _padding_of(op, graph) if self.target.fuses_padding else None
        if pad is not None:
            before = single_op(graph, pad)
            rest = tuple(name for name in alone.inputs if name not in pad.outputs)
            alone = replace(
                alone,
                tensors={**before.tensors, **alone.tensors},
                ops=(pad, op),
                inputs=(*before.inputs, *rest),
            )
        title, description = f"{op.kind} {op.name!r}", {"layer": structure(alone)}
        probe = _Timed(title, description, partial(self.target.probe, alone), _macs(alone))
        names = (*alone.inputs, *alone.outputs) if self.target.probes_convert else ()
        return _Layer(op, probe, tuple(self._boundary(alone[name]) for name in names))

    def _boundary(self, tensor: Tensor) -> _Timed:
        description = {"boundary": [tensor.dtype.value, tensor.elements]}
        plan = partial(self.target.boundary, tensor.dtype, tensor.elements)
        return _Timed("a model without layers", description, plan)

    def _nothing(self) -> _Timed:
        """What every call costs, and no more."""
        small = _small_graph()
        if self.target.probes_convert:
            return self._boundary(small["x"])
        return _Timed("a model of one element", {"idle": 0}, partial(self.target.build, small))

    def _fill(self, files: Sequence[_Timed], progress: Progress | None = None) -> Filled:
        wanted = {each.key: each for each in (self._reference, self._idle, *files)}
        if self._filling.missing(wanted):
            self._table.reload()
        if self._filling.missing(wanted):
            what = f"the cost model of target {self.target.name!r}"
            require_all({what: self.target.tools()})
            self._filling.fill({self._reference.key: self._reference})
        return self._filling.fill(wanted, progress)

    def _measure(self, files: Sequence[_Timed]) -> list[TimeRecord]:
        known = self._table.get(self._reference.key)
        with tempfile.TemporaryDirectory(prefix="edgesmith-cost-") as folder:
            paths = []
            for number, each in enumerate((self._reference, *files)):
                place = Path(folder) / str(number)
                products = execute_plan(each.plan(), place)
                paths.append(place / products.main)
            reference, *found = self.target.runtime().latency(paths, OPTIONS)
        scale = 1.0 if known is None else known.median / float(np.median(reference))
        return [_record(each, times, scale) for each, times in zip(files, found, strict=True)]

    def _layer_cost(self, layer: _Layer) -> LayerCost:
        probe, idle = self._known(layer.probe), self._known(self._idle)
        added = sum(self._known(each).median - idle.median for each in layer.boundaries) / 2
        rest = idle.median + added

        def less(value: float) -> float:
            return max(value - rest, 0.0)

        figure = _time(probe)
        figure = replace(
            figure, value=less(figure.value), low=less(figure.low), high=less(figure.high)
        )
        return LayerCost(layer.op.name, layer.op.kind, self.target.name, {Metric.TIME: figure})

    def _known(self, each: _Timed) -> TimeRecord:
        found = self._table.get(each.key)
        assert found is not None
        return found

    def _free(self, name: str, kind: str) -> LayerCost:
        return LayerCost(name, kind, "", {Metric.TIME: Figure(0, "ms", Kind.MEASURED, 1, 0, 0)})


def _macs(graph: Graph) -> int:
    return sum(macs(graph, op) for op in graph.ops)


def _batches(files: Sequence[_Timed]) -> Iterator[tuple[_Timed, ...]]:
    """Files that are timed in turns: of about equal work, and not too many."""
    batch: list[_Timed] = []
    total = 0
    for each in sorted(files, key=lambda one: (one.macs, one.key)):
        if batch and (len(batch) == MOST_MODELS or total + each.macs > _MOST_MACS):
            yield tuple(batch)
            batch, total = [], 0
        batch.append(each)
        total += each.macs
    if batch:
        yield tuple(batch)


def _files(layers: Sequence[_Layer]) -> list[_Timed]:
    return [each for layer in layers for each in (layer.probe, *layer.boundaries)]


def _record(timed: _Timed, samples: Sequence[float], scale: float) -> TimeRecord:
    low, median, high = (float(v) * scale for v in np.percentile(samples, _PERCENTILES))
    return TimeRecord(timed.key, timed.description, low, median, high, len(samples))


def _time(record: TimeRecord) -> Figure:
    return Figure(record.median, "ms", Kind.MEASURED, record.runs, record.low, record.high)


def _readers(name: str, graph: Graph) -> list[Op]:
    return [op for op in graph.ops if name in op.inputs]


def _padded_by(op: Op, graph: Graph) -> Op | None:
    """The convolution that alone reads this padding."""
    if not isinstance(op, ir.Pad) or op.output in graph.outputs:
        return None
    readers = _readers(op.output, graph)
    fused = len(readers) == 1 and isinstance(readers[0], ir.Conv2D | ir.DepthwiseConv2D)
    return readers[0] if fused else None


def _padding_of(op: Op, graph: Graph) -> Op | None:
    """The padding that this convolution alone reads."""
    makers = (each for each in graph.ops if each.output in op.inputs[:1])
    return next((each for each in makers if _padded_by(each, graph) is op), None)


def _small_graph() -> Graph:
    """One operator on one element."""
    x, y = (Tensor(name, (1, 1), DType.INT8, Quantization.per_tensor(1.0)) for name in ("x", "y"))
    return Graph("small", {"x": x, "y": y}, (ir.Relu("relu", ("x",), ("y",)),), ("x",), ("y",))


def _reference_graph() -> Graph:
    """A convolution of 2.4 million multiply-accumulates: long enough to time, short to repeat."""
    x, y = (
        Tensor(name, (1, 32, 32, 16), DType.INT8, Quantization.per_tensor(0.05))
        for name in ("x", "y")
    )
    codes = np.random.default_rng(0).integers(-127, 128, (16, 3, 3, 16), np.int8)
    scales = Quantization.per_channel(np.full(16, 0.01), 0)
    weight = Tensor("weight", codes.shape, DType.INT8, scales, codes)
    bias_scales = Quantization.per_channel(np.full(16, 0.0005), 0)
    bias = Tensor("bias", (16,), DType.INT32, bias_scales, np.zeros(16, np.int32))
    op = ir.Conv2D("conv", ("x", "weight", "bias"), ("y",), padding=Padding(1, 1, 1, 1))
    return Graph("reference", {t.name: t for t in (x, weight, bias, y)}, (op,), ("x",), ("y",))
