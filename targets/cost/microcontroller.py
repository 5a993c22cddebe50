"""The cost model of Cortex-M targets: layers counted in the emulator, looked up from then on.

A table belongs to a core: its compiler flags, timing model, the source that counts, and the
versions of the tools. The kernels' own text is in every layer's key, so changing one kernel
leaves all other layers known. Board, clock and memory limits are applied on the way out.
Without tools, what is known from any version of them still answers.

`zeros=auto` depends on the weights' values, which costs must not: where it is given, costs are
those of the same target with every weight stored. With `zeros=compress` every layer that is kept
without its zeros is an entry of its own, for its own weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from edgesmith.pipeline.errors import DoesNotFitError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.tools import require_all
from edgesmith.pipeline.values import Kind
from edgesmith.targets.c.assemble import assemble
from edgesmith.targets.c.compiler import Compiled, PlanKind, compile_graph
from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.memory.lifetimes import of_call
from edgesmith.targets.c.vectors import random_codes
from edgesmith.targets.c.zeros import Zeros
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
from edgesmith.targets.cost.batch import batches
from edgesmith.targets.cost.emulate import OVERHEAD, SAMPLES, Bench
from edgesmith.targets.cost.facts import facts_of, generator_digest, tool_versions
from edgesmith.targets.cost.filling import Filling
from edgesmith.targets.cost.layers import Layer, layers_of
from edgesmith.targets.cost.table import LayerRecord, Table
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Op, Quantization, Tensor
from edgesmith.targets.graph.subgraph import conversion, single_op
from edgesmith.targets.mcu.cycles import TIMINGS
from edgesmith.targets.mcu.target import MicrocontrollerTarget

LAYER_SCRATCH = 512
"""Bytes of scratch of a layer that is asked for alone, where the plan does not save time first:
what such plans mostly settle on."""


class MicrocontrollerCost:
    """Costs on a Cortex-M target.

    Args:
        target: the core, with its board and options.
        folder: where measured layers are kept, for all targets and processes.
    """

    counted: ClassVar[bool] = True

    def __init__(self, target: MicrocontrollerTarget, folder: Path) -> None:
        self.target = _stored_unless_asked(target)
        self.folder = folder
        facts, tools = facts_of(target.core), tool_versions()
        newest = Table.newest(LayerRecord, folder, facts) if "missing" in tools.values() else None
        self._table = newest or Table.open(LayerRecord, folder, facts, tools)
        self._bench = Bench(target.core, self._table.folder / "objects")
        self._filling = Filling(self._table, _by_size, self._measure, _title)

    def layer(self, op: Op, graph: Graph) -> LayerCost:
        """Of one operator, with the scratch that a plan of the target's kind gives it.

        Its weights are taken as stored plainly: whether the arena has room to expand weights
        without zeros is known for whole models only.

        Raises:
            TargetUnsupportedError: no kernel takes it.
            ToolMissingError, ToolFailedError: it is not known and cannot be measured.
        """
        limit = None if self.target.options.plan is PlanKind.SPEED else LAYER_SCRATCH
        site = Site(single_op(graph, op), self.target.core.kernels, limit)
        layers = layers_of(assemble(site))
        if not layers:
            return self._free(op.name, op.kind)
        self._fill(layers)
        return _joined(op, [self._layer_cost(layer) for layer in layers])

    def edge(self, source: Tensor, wanted: Tensor) -> LayerCost:
        """Of the Quantize between two layers: `source` as one gives it, `wanted` as the other
        takes it.

        Raises:
            As `layer`.
        """
        found = conversion(source, wanted)
        return self._free(source.name, ir.Quantize.kind) if found is None else self.layer(*found)

    @property
    def arena_limit(self) -> int | None:
        """Bytes of the target's RAM beside the stack."""
        return self.target.compile_options().ram_bytes

    def model(self, graph: Graph, *, fitting: bool = True) -> ModelCost:
        """Of a model as the target would deploy it; the arena's plan is made with little search, so
        that of the deployed model may be smaller.

        Args:
            fitting: refuse what does not fit; else it is planned as if there were RAM enough.

        Raises:
            DoesNotFitError: no plan fits the target's RAM.
            As `layer`.
        """
        compiled = self._compiled(graph, self.arena_limit if fitting else None)
        layers = layers_of(compiled.program)
        self._fill(layers)
        return self._model_cost(compiled, layers)

    def fill(self, graphs: Sequence[Graph], progress: Progress | None = None) -> Filled:
        """Measure every layer of these graphs that is not known, in as few runs as possible.

        What is finished stays when the process dies. Processes that fill the same table share
        the work. Graphs that do not fit are skipped: they have no cost.

        Raises:
            As `layer`; a failure names the layer.
        """
        layers: list[Layer] = []
        skipped = 0
        for graph in graphs:
            try:
                compiled = self._compiled(graph, self.arena_limit)
            except DoesNotFitError:
                skipped += 1
            else:
                layers += layers_of(compiled.program)
        return replace(self._fill(layers, progress), skipped=skipped)

    def validate(self, graphs: Sequence[Graph]) -> CostError:
        """Build and run whole models, and keep how far their predicted costs lie off.

        Raises:
            As `layer`.
        """
        self._require_tools()
        self.fill(graphs)
        samples = [sample for graph in graphs for sample in self._compared(graph)]
        error = CostError.of(self.target.name, samples)
        self._table.store_error(generator_digest(), error)
        return error

    @property
    def error(self) -> CostError | None:
        """What `validate` last found for this state of the generator."""
        return self._table.error(generator_digest())

    def _compared(self, graph: Graph) -> Iterable[ErrorSample]:
        predicted = self.model(graph)
        with tempfile.TemporaryDirectory(prefix="edgesmith-cost-") as folder:
            products = execute_plan(self.target.build(graph), Path(folder))
            device = self.target.device(products, random_codes(graph, SAMPLES, seed=0xC057))
        assert device is not None
        found = {
            Metric.INSTRUCTIONS: device.instructions,
            Metric.CYCLES: device.cycles,
            Metric.FLASH: device.flash,
            Metric.ARENA: device.arena,
        }
        for metric, measured in found.items():
            if measured is None:
                continue
            yield ErrorSample(graph.name, metric, predicted[metric].value, measured.value)

    def _require_tools(self) -> None:
        require_all({f"the cost model of target {self.target.name!r}": self.target.tools()})

    def _compiled(self, graph: Graph, ram_bytes: int | None) -> Compiled:
        options = replace(self.target.compile_options(), quick=True, ram_bytes=ram_bytes)
        return compile_graph(graph, options)

    def _fill(self, layers: Sequence[Layer], progress: Progress | None = None) -> Filled:
        wanted = {layer.key: layer for layer in layers}
        if self._filling.missing(wanted) or self._table.get(OVERHEAD) is None:
            self._table.reload()
        if self._filling.missing(wanted) or self._table.get(OVERHEAD) is None:
            self._require_tools()
            self._fill_overhead()
        return self._filling.fill(wanted, progress)

    def _fill_overhead(self) -> None:
        if self._table.get(OVERHEAD) is not None:
            return
        with self._table.claimed([OVERHEAD], wait=True):
            self._table.reload()
            if self._table.get(OVERHEAD) is None:
                (probe,) = layers_of(assemble(Site(_small_graph(), self.target.core.kernels)))
                self._table.store([self._bench.overhead(probe)])

    def _measure(self, layers: Sequence[Layer]) -> tuple[LayerRecord, ...]:
        known = {record.kernel: record.code for record in self._table.records()}
        return self._bench.measure(layers, known)

    def _record(self, key: str) -> LayerRecord:
        record = self._table.get(key)
        assert record is not None
        return record

    def _time(self, cycles: Figure) -> Figure:
        scale = 1e3 / self.target.preset().clock_hz
        span = cycles.low * scale, cycles.high * scale
        return Figure(cycles.value * scale, "ms", cycles.kind, cycles.samples, *span)

    def _figures(self, instructions: Figure, cycles: Figure) -> dict[Metric, Figure]:
        return {
            Metric.INSTRUCTIONS: instructions,
            Metric.CYCLES: cycles,
            Metric.TIME: self._time(cycles),
        }

    def _layer_cost(self, layer: Layer) -> LayerCost:
        record = self._record(layer.key)
        figures = self._figures(record.instructions, record.cycles)
        figures[Metric.FLASH] = _bytes(layer.constant_bytes + record.wiring_bytes)
        figures[Metric.SCRATCH] = _bytes(sum(of_call(layer.call).values()))
        return LayerCost(layer.call.name, layer.call.kind, layer.call.function, figures)

    def _free(self, name: str, kind: str) -> LayerCost:
        nothing = (
            Figure(0, "instructions", Kind.SIMULATED, 1, 0, 0),
            Figure(0, "cycles", Kind.ESTIMATED, 1, 0, 0),
        )
        sizes = {Metric.FLASH: _bytes(0), Metric.SCRATCH: _bytes(0)}
        return LayerCost(name, kind, "", self._figures(*nothing) | sizes)

    def _model_cost(self, compiled: Compiled, layers: Sequence[Layer]) -> ModelCost:
        records = [self._record(layer.key) for layer in layers]
        base = self._record(OVERHEAD)
        code: dict[str, int] = {}
        for record in (*records, base):
            code |= record.code
        constants = sum(array.data.nbytes for array in compiled.library.arrays.values())
        wiring = sum(record.wiring_bytes for record in (*records, base))
        figures = self._figures(
            _sum(record.instructions for record in (*records, base)),
            _sum(record.cycles for record in (*records, base)),
        )
        figures[Metric.FLASH] = _bytes(constants + wiring + sum(code.values()))
        figures[Metric.ARENA] = _bytes(compiled.memory.arena_bytes)
        overhead = self._figures(base.instructions, base.cycles)
        overhead[Metric.FLASH] = _bytes(base.wiring_bytes + sum(code.values()))
        timing = TIMINGS[self.target.core.timing]
        return ModelCost(
            target=self.target.name,
            figures=figures,
            layers=tuple(self._layer_cost(layer) for layer in layers),
            overhead=LayerCost(OVERHEAD, "", "", overhead),
            basis={
                "timing": timing.basis,
                "clock": f"{self.target.preset().clock_hz} Hz",
                "plan": compiled.kind.value,
                "zeros": self.target.options.zeros.value,
                **self._table.about.tools,
            },
            error=self.error,
        )


def _stored_unless_asked(target: MicrocontrollerTarget) -> MicrocontrollerTarget:
    """The target, with every weight stored where it would choose by their values."""
    if target.options.zeros is not Zeros.AUTO:
        return target
    own = type(target)
    options = replace(target.options, zeros=Zeros.STORE)
    made: type[MicrocontrollerTarget] = type(own.__name__, (own,), {"options": options})
    return made()


def _by_size(layers: Sequence[Layer]) -> Iterator[tuple[Layer, ...]]:
    """Batches whose layers take about equally long."""
    return batches(sorted(layers, key=lambda layer: (layer.call.macs, layer.key)))


def _title(layer: Layer) -> str:
    call = layer.call
    return f"{call.kind} {call.name!r} ({call.function})"


def _small_graph() -> Graph:
    """One operator, which any program needs."""
    quantization = Quantization.per_tensor(1.0)
    x, y = (Tensor(name, (1, 16), DType.INT8, quantization) for name in ("x", "y"))
    return Graph("small", {"x": x, "y": y}, (ir.Relu("relu", ("x",), ("y",)),), ("x",), ("y",))


def _joined(op: Op, parts: Sequence[LayerCost]) -> LayerCost:
    """The cost of an operator that is computed by one call or several, one after the other."""
    if len(parts) == 1:
        return parts[0]
    figures = {metric: _sum(part[metric] for part in parts) for metric in parts[0].figures}
    most = max(parts, key=lambda part: part[Metric.SCRATCH].value)
    figures[Metric.SCRATCH] = most[Metric.SCRATCH]
    return LayerCost(op.name, op.kind, parts[0].kernel, figures)


def _bytes(count: int) -> Figure:
    return Figure(count, "bytes", Kind.SIMULATED, 1, count, count)


def _sum(figures: Iterable[Figure]) -> Figure:
    parts = list(figures)
    first = parts[0]
    return Figure(
        sum(each.value for each in parts),
        first.unit,
        first.kind,
        min(each.samples for each in parts),
        sum(each.low for each in parts),
        sum(each.high for each in parts),
    )
