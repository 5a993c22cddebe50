"""Gathering what the stages of one target found into a `DeploymentResult`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.allocated import allocation_figure
from edgesmith.pipeline.arrays import load_arrays
from edgesmith.pipeline.budgets import Figures, check_budgets
from edgesmith.pipeline.evaluation import (
    accuracy_row,
    check_labels,
    confusion,
    predictions,
    share,
)
from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.layer_formats import read_policy, with_formats
from edgesmith.pipeline.pruned import pruning_result, search_result
from edgesmith.pipeline.results import (
    AccuracyRow,
    Artifact,
    Confusion,
    DeploymentResult,
    Device,
    Latency,
    Parity,
    Provenance,
)
from edgesmith.pipeline.splits import read_split
from edgesmith.pipeline.stages.build import ORDER, PARITY
from edgesmith.pipeline.stages.measure import DEVICE, MemoryFound
from edgesmith.pipeline.stages.score import FIXED_POINT_FORM, FORMS, SMALLER_FORMS
from edgesmith.pipeline.target_facts import float_baseline_in, get_target, products_in
from edgesmith.pipeline.values import Kind, Measurement
from edgesmith.pipeline.versions import installed, machine
from edgesmith.prune.gain import gain_statement
from edgesmith.quantize.engines.values import load_report
from edgesmith.quantize.qat.values import load_result as load_training
from edgesmith.targets.base import LatencyRun, TargetDescription
from edgesmith.targets.graph.costs import largest_live_bytes
from edgesmith.targets.graph.drift import TraceOrder, layer_rows, trace_of_codes, worst_layers
from edgesmith.targets.graph.reference.profiles import TFLITE_MICRO

if TYPE_CHECKING:
    from edgesmith.pipeline.stage import StageContext
    from edgesmith.targets.graph.ir import Graph

Labels = npt.NDArray[np.int64]

SCORED = (FORMS[0], *SMALLER_FORMS.values(), *FORMS[1:], FIXED_POINT_FORM)
"""Forms in the order of the pipeline."""

_DIGESTED = ("data", "load", "search", "prune", "quantize", "export")
"""Stages whose files say what went into the artifact."""


@dataclass(frozen=True)
class _Predictions:
    """Predicted classes of every form of the model, in the order of the pipeline."""

    by_form: Mapping[str, Labels]
    labels: Labels
    classes: int

    def accuracy(self, target: str) -> tuple[AccuracyRow, ...]:
        return tuple(
            accuracy_row(form, predicted, self.labels, target)
            for form, predicted in self.by_form.items()
        )

    def agreement(self, target: str) -> Measurement | None:
        if "float" not in self.by_form:
            return None
        same = self.by_form["float"] == self.by_form["deployed"]
        return share("prediction agreement", same, target)

    def confusion(self, names: tuple[str, ...] | None) -> Confusion | None:
        if "float" not in self.by_form:
            return None
        floating, deployed = self.by_form["float"], self.by_form["deployed"]
        return confusion(names, self.labels, floating, deployed, self.classes)


def gather(context: StageContext) -> DeploymentResult:
    """Everything that the report of `context.target` shows.

    Raises:
        CacheError: an upstream output cannot be read.
    """
    name = context.target or ""
    description = get_target(name).describe()
    build = context.inputs["build"]
    graph = get_target(name).shipped(products_in(build))
    scored = _scored_forms(context, description)
    found = _predictions(context, scored)
    accuracy = found.accuracy(name)
    agreement = found.agreement(name)
    latency = _latency(context, name)
    size = _sizes(build, graph, name)
    device = _device(context)
    figures = Figures(accuracy, agreement, latency, size[0], device)
    checks, notes = check_budgets(context.spec.budgets, figures)
    traces = _traces(context, graph, scored)
    pruning, searched = pruning_result(context), search_result(context)
    training = load_training(context.inputs["quantize"]) if "quantize" in context.inputs else None
    engine = load_report(context.inputs["quantize"]) if "quantize" in context.inputs else None
    told = [
        said for each in (searched, pruning, engine, training) if each for said in each.summary()
    ]
    policy = read_policy(context.inputs.get("quantize"))
    rows = with_formats(layer_rows(graph, traces), graph, policy, pruning)
    return DeploymentResult(
        name=context.spec.name,
        target=name,
        target_title=description.title,
        ok=all(check.met for check in checks),
        budgets=checks,
        accuracy=accuracy,
        agreement=agreement,
        latency=latency,
        size=size,
        memory=_memory(context, graph, name),
        layers=rows,
        worst_layers=worst_layers(rows),
        confusion=found.confusion(context.spec.data.labels),
        parity=from_json(Parity, (build / PARITY).read_bytes()),
        artifacts=_artifacts(context),
        provenance=_provenance(context),
        notes=(*told, *_zeros_note(description, device), *notes),
        drift_samples=len(next(iter(traces[-1][1].values()))),
        device=device,
        pruning=pruning,
        allocation=allocation_figure(context),
        training=training,
        search=searched,
    )


def _zeros_note(description: TargetDescription, device: Device | None) -> tuple[str, ...]:
    """What zero weights were found to save, where they saved something."""
    if device is None or device.zeros is None:
        return ()
    return (gain_statement(description, device.zeros),)


def _scored_forms(context: StageContext, description: TargetDescription) -> tuple[str, ...]:
    """Forms that were scored without the target, as far as they matter to it."""
    if "score" not in context.inputs:
        return ()
    fixed_point = description.rounding_profile == TFLITE_MICRO.name
    return tuple(form for form in SCORED if fixed_point or form != FIXED_POINT_FORM)


def _predictions(context: StageContext, scored: Sequence[str]) -> _Predictions:
    labels = read_split(context.inputs["data"], "test").labels
    outputs = {}
    if scored:
        arrays = load_arrays(context.inputs["score"] / "predictions.npz")
        outputs = {form: arrays[form] for form in scored if form in arrays}
    codes = load_arrays(context.inputs["run"] / "outputs.npz")
    outputs |= {form: codes[form] for form in ("reference", "deployed")}
    by_form = {form: predictions(array) for form, array in outputs.items()}
    classes = codes["deployed"][0].size
    check_labels(labels, classes)
    return _Predictions(by_form, labels, classes)


def _latency(context: StageContext, target: str) -> Latency | None:
    path = context.inputs["measure"] / "latency.json"
    if not path.exists():
        return None
    run = from_json(LatencyRun, path.read_bytes())
    conditions = run.deployed.median.conditions
    speedup = None
    if run.float_baseline is not None:
        speedup = Measurement(
            metric="speedup over float",
            value=run.float_baseline.median.value / run.deployed.median.value,
            unit="x",
            kind=Kind.MEASURED,
            target=target,
            samples=run.deployed.median.samples,
            conditions=conditions,
        )
    threads, warmups = int(conditions["threads"]), int(conditions["warmups"])
    return Latency(run.deployed, run.float_baseline, speedup, threads, warmups)


def _device(context: StageContext) -> Device | None:
    path = context.inputs["measure"] / DEVICE
    return from_json(Device, path.read_bytes()) if path.exists() else None


def _bytes(metric: str, value: int, target: str, kind: Kind = Kind.MEASURED) -> Measurement:
    return Measurement(metric, float(value), "bytes", kind, target, 1)


def _sizes(build: Path, graph: Graph, target: str) -> tuple[Measurement, ...]:
    products = products_in(build)
    chosen = get_target(target)
    sizes = [_bytes(chosen.size_name, chosen.deployed_bytes(products), target)]
    baseline = float_baseline_in(build)
    if baseline is not None:
        sizes.append(_bytes("float file", baseline.stat().st_size, target))
    weights = sum(tensor.bytes for tensor in graph.constants())
    return (*sizes, _bytes("weights and biases", weights, target))


def _memory(context: StageContext, graph: Graph, target: str) -> tuple[Measurement, ...]:
    found = from_json(MemoryFound, (context.inputs["measure"] / "memory.json").read_bytes())
    live = _bytes("largest live activations", largest_live_bytes(graph), target, Kind.ESTIMATED)
    if found.peak_bytes is None:
        return (live,)
    return (_bytes("peak resident memory added", found.peak_bytes, target), live)


def _traces(
    context: StageContext, graph: Graph, scored: Sequence[str]
) -> list[tuple[str, Mapping[str, npt.NDArray[np.floating]]]]:
    files = [(form, context.inputs["score"] / f"trace-{form}.npz") for form in scored]
    traces: list[tuple[str, Mapping[str, npt.NDArray[np.floating]]]] = [
        (form, load_arrays(path)) for form, path in files if path.exists()
    ]
    order = from_json(TraceOrder, (context.inputs["build"] / ORDER).read_bytes())
    for form in ("reference", "deployed"):
        codes = load_arrays(context.inputs["run"] / f"trace-{form}.npz")
        traces.append((form, trace_of_codes(graph, codes, order)))
    return traces


def _artifacts(context: StageContext) -> tuple[Artifact, ...]:
    """The files that were copied beside the report, in the order of their names."""
    return tuple(
        Artifact(
            path.name,
            path.name,
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(context.folder.iterdir())
        if path.is_file()
    )


def _provenance(context: StageContext) -> Provenance:
    spec = context.spec
    tools = {
        tool.distribution or tool.name: tool.find() or "missing"
        for tool in get_target(context.target).tools()
    }
    records = context.records.values()
    return Provenance(
        spec_path=Path(spec.path).name,
        spec_text=spec.text,
        spec_sha256=spec.sha256,
        edgesmith_version=installed("edgesmith")["edgesmith"],
        machine=machine(),
        versions=installed() | tools,
        digests={
            f"{record.stage}/{name}": file.sha256
            for record in records
            if record.stage in _DIGESTED
            for name, file in sorted(record.outputs.items())
        },
        stages=tuple((record.stage, record.seconds, False) for record in records),
    )
