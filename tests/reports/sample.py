"""Realistic results for the tests of the report, made from a seed: any size, hostile on request."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, replace

from edgesmith.pipeline.results import (
    AccuracyRow,
    Artifact,
    BudgetCheck,
    Confusion,
    DeploymentResult,
    DriftEdge,
    Latency,
    LatencySeries,
    LayerRow,
    Parity,
    ParityRow,
    Provenance,
)
from edgesmith.pipeline.values import Interval, Kind, Measurement
from tests.reports.device_sample import sample_device

TARGET = "cpu-litert"
EDGES = (
    "float → fake-quantized",
    "fake-quantized → onnxruntime",
    "onnxruntime → reference",
    "reference → deployed",
)
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    '" onmouseover="alert(3)',
    "line\u2028separator\u2029and \x00\x1b[31m control",
    "\u202egnp.exe",
    "{{ 7 * 7 }} %{x} <b>bold</b> &lt;i&gt;",
    "<!--<script>",
    "']]>",
)
SPEC = """\
spec_version: 1
name: mnist-cnn            # a small residual CNN
model:
  kind: torch
  factory: model.py:build_model
  trainer: model.py:train
  input_shape: [1, 28, 28]
data:
  train:       {factory: data.py:split, args: {part: train}}
  calibration: {factory: data.py:split, args: {part: calibration}, limit: 500}
  selection:   {factory: data.py:split, args: {part: selection}}
  test:        {factory: data.py:split, args: {part: test}}
stages:
  - stage: quantize
    ranges: mse
    equalize: true
targets: [cpu-litert, cpu-onnxruntime]
budgets:
  accuracy_drop_points: 0.5
  agreement_percent: 99
  latency_ms: {percentile: p90, max: 5.0}
  size_bytes: 200000
seed: 0
"""


@dataclass(frozen=True)
class Sample:
    """What sample to make."""

    layers: int = 22
    classes: int = 10
    hostile: bool = False
    ok: bool = True
    runs: int = 400
    seed: int = 0
    device: bool = False


def sample_result(sample: Sample | None = None) -> DeploymentResult:
    """A complete result; the same `Sample` gives an equal one."""
    sample = sample or Sample()
    draw = random.Random(sample.seed)
    confusion = _confusion(draw, sample)
    total = sum(map(sum, confusion.deployed_counts))
    layers = _layers(draw, sample)
    accuracy, latency = _accuracy(confusion, total), _latency(draw, sample.runs)
    return DeploymentResult(
        name="mnist-cnn" if not sample.hostile else HOSTILE[0],
        target=TARGET,
        target_title="LiteRT on this CPU",
        ok=sample.ok,
        budgets=_budgets(accuracy, latency, ok=sample.ok),
        accuracy=accuracy,
        agreement=measured(
            "prediction agreement", 99.6, "%", total, wilson(round(0.996 * total), total)
        ),
        latency=latency,
        size=(
            measured("deployed file", 93_408, "bytes", 1),
            measured("float file", 349_952, "bytes", 1),
            measured("weights and biases", 84_640, "bytes", 1),
        ),
        memory=(
            measured("deployed peak resident memory", 1_392_640, "bytes", 5),
            measured("float peak resident memory", 2_629_632, "bytes", 5),
            Measurement("largest live activations", 31_360, "bytes", Kind.ESTIMATED, TARGET, 1),
        ),
        layers=layers,
        worst_layers=tuple(layer.name for layer in layers[2 : len(layers) : 9][:3]),
        confusion=confusion,
        parity=_parity(layers, ok=sample.ok),
        artifacts=_artifacts(),
        provenance=_provenance(draw, sample),
        notes=HOSTILE if sample.hostile else ("The float model was trained for 4 epochs.",),
        drift_samples=64,
        device=sample_device(layers, HOSTILE if sample.hostile else ()) if sample.device else None,
    )


def device_result(sample: Sample | None = None) -> DeploymentResult:
    """A microcontroller's result: nothing was timed, the image ran in an emulator."""
    result = sample_result(replace(sample or Sample(), device=True))
    device = result.device
    assert device is not None
    fits = (
        ("fits in flash", device.flash_limit, device.flash),
        ("fits in RAM", device.ram_limit, device.ram),
    )
    return replace(
        result,
        target="cortex-m4@nucleo-f446re",
        target_title="Arm Cortex-M4, NUCLEO-F446RE",
        latency=None,
        budgets=tuple(one for one in result.budgets if "latency" not in one.name)
        + tuple(
            BudgetCheck(name, limit, found.value, "bytes", "lower", True, found.kind)
            for name, limit, found in fits
            if limit is not None
        ),
        size=result.size[2:],
        memory=(),
    )


def bare_result() -> DeploymentResult:
    """The least that a result may hold: every optional part is missing."""
    return DeploymentResult(
        name="bare",
        target=TARGET,
        target_title="LiteRT on this CPU",
        ok=True,
        budgets=(),
        accuracy=(),
        agreement=None,
        latency=None,
        size=(),
        memory=(),
        layers=(),
        worst_layers=(),
        confusion=None,
        parity=None,
        artifacts=(),
        provenance=Provenance("", "", "", "0.1.0", {}, {}, {}),
    )


def measured(
    metric: str, value: float, unit: str, samples: int, interval: Interval | None = None
) -> Measurement:
    """A measured figure of the sample's target."""
    return Measurement(metric, value, unit, Kind.MEASURED, TARGET, samples, interval)


def wilson(right: int, total: int) -> Interval:
    """The 95 % Wilson score interval of a share, in percent."""
    z, share = 1.959964, right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return Interval(100 * (middle - half), 100 * (middle + half))


def _budgets(
    accuracy: tuple[AccuracyRow, ...], latency: Latency, *, ok: bool
) -> tuple[BudgetCheck, ...]:
    drop = accuracy[0].accuracy.value - accuracy[-1].accuracy.value
    p90, limit = latency.deployed.p90.value, 5.0 if ok else 0.2
    return (
        BudgetCheck("accuracy drop", 0.5, drop, "points", "lower", True, Kind.MEASURED),
        BudgetCheck("prediction agreement", 99.0, 99.6, "%", "higher", True, Kind.MEASURED),
        BudgetCheck("latency p90", limit, p90, "ms", "lower", ok, Kind.MEASURED),
        BudgetCheck("model size", 200_000, 93_408, "bytes", "lower", True, Kind.MEASURED),
    )


def _accuracy(confusion: Confusion, total: int) -> tuple[AccuracyRow, ...]:
    before = sum(row[index] for index, row in enumerate(confusion.float_counts))
    after = sum(row[index] for index, row in enumerate(confusion.deployed_counts))
    forms = {
        "float": before,
        "fake-quantized": after + 1,
        "onnxruntime": after,
        "reference": after,
        "deployed": after,
    }
    return tuple(
        AccuracyRow(
            form, measured("accuracy", 100 * right / total, "%", total, wilson(right, total))
        )
        for form, right in forms.items()
    )


def _latency(draw: random.Random, runs: int) -> Latency:
    conditions = {"threads": "1", "warmups": "10"}

    def series(form: str, centre: float) -> LatencySeries:
        samples = [centre * draw.lognormvariate(0, 0.06) for _ in range(runs)]
        for index in range(0, runs, 37):
            samples[index] *= draw.uniform(1.3, 2.4)
        samples[runs // 2] *= 9  # the run that another process interrupted
        ordered = sorted(samples)

        def percentile(metric: str, share: float) -> Measurement:
            value = ordered[min(runs - 1, int(share * runs))]
            spread = Interval(value * 0.985, value * 1.02)
            return replace(measured(metric, value, "ms", runs, spread), conditions=conditions)

        return LatencySeries(
            form,
            percentile("latency median", 0.5),
            percentile("latency p90", 0.9),
            percentile("latency p99", 0.99),
            tuple(samples),
        )

    deployed, baseline = series("deployed", 0.204), series("float", 0.512)
    ratio = baseline.median.value / deployed.median.value
    interval = Interval(ratio * 0.98, ratio * 1.02)
    return Latency(
        deployed, baseline, measured("speedup over float", ratio, "x", runs, interval), 1, 10
    )


def _layers(draw: random.Random, sample: Sample) -> tuple[LayerRow, ...]:
    kinds = ("Conv2D", "DepthwiseConv2D", "Conv2D", "Add", "AveragePool2D", "FullyConnected")
    rows = []
    for index in range(sample.layers):
        op = kinds[index % len(kinds)]
        name = f"stage{index // 6 + 1}.{index % 6}.{op.lower()}"
        if index == 1:
            name = "backbone.features." + "inverted_residual_block.".join(["", "0.", "conv"]) * 2
        if sample.hostile and index < len(HOSTILE):
            name = HOSTILE[index]
        weighted = "Conv" in op or op == "FullyConnected"
        channels = 16 * 2 ** min(index // 6, 3)
        side = max(2, 28 >> min(index // 6, 3))
        macs = channels * channels * 9 * side * side // 4 if weighted else 0
        rows.append(
            LayerRow(
                index=index,
                name=name,
                op=op,
                output_shape=(1, side, side, channels),
                weight_bits=(4 if index % 7 == 3 else 8) if weighted else None,
                activation_bits=8,
                macs=macs,
                weight_bytes=channels * channels * 9 // 4 if weighted else 0,
                drift=tuple(_drift(draw, number, index) for number in range(len(EDGES))),
            )
        )
    return tuple(rows)


def _drift(draw: random.Random, number: int, index: int) -> DriftEdge:
    edge = EDGES[number]
    if number == 3 or (number == 1 and index % 3 == 0):
        return DriftEdge(edge, 0.0, 0.0, 0.0, None)
    if number:
        share = draw.uniform(0.0005, 0.003) * number
        return DriftEdge(edge, draw.choice((1.0, 1.0, 2.0)), share, share, draw.uniform(48, 62))
    depth = 1 + 3 * (1 - math.exp(-index / 20))
    spike = 6.0 if index % 9 == 2 else 1.0
    largest = round(spike * draw.uniform(2, 5) * depth, 2)
    return DriftEdge(edge, largest, largest / 6, draw.uniform(0.2, 0.6), 40 - 6 * depth - spike)


def _confusion(draw: random.Random, sample: Sample) -> Confusion:
    labels = [str(n) if sample.classes <= 10 else f"class {n:03d}" for n in range(sample.classes)]
    if sample.hostile:
        labels[: len(HOSTILE)] = HOSTILE[: sample.classes]
    before = [[0] * sample.classes for _ in labels]
    after = [[0] * sample.classes for _ in labels]
    for index in range(sample.classes):
        size = 100 - draw.randrange(8)
        for _ in range(size):
            wrong = draw.random() < 0.025
            said = draw.randrange(sample.classes) if wrong else index
            before[index][said] += 1
            changed = draw.random() < 0.004
            after[index][draw.randrange(sample.classes) if changed else said] += 1
    return Confusion(tuple(labels), tuple(map(tuple, before)), tuple(map(tuple, after)))


def _parity(layers: tuple[LayerRow, ...], *, ok: bool) -> Parity:
    rows = []
    for layer in layers:
        elements = math.prod(layer.output_shape)
        rows.append(ParityRow(layer.name, "activation", "int8", elements, True))
        if layer.weight_bits:
            weights = layer.weight_bytes
            dtype = f"int{layer.weight_bits}"
            rows.append(ParityRow(f"{layer.name}.weight", "weight", dtype, weights, True))
            rows.append(ParityRow(f"{layer.name}.bias", "bias", "int32", 16, True))
    if not ok and rows:
        last = rows.pop()
        difference = "scale 0.0123 became 0.0124; 3 of 16 codes differ, first at [2]: 17 became 18"
        rows.append(ParityRow(last.tensor, last.role, last.dtype, last.elements, False, difference))
    return Parity(len(rows), sum(not row.same for row in rows), tuple(rows))


def _artifacts() -> tuple[Artifact, ...]:
    files = (
        ("integer model", "mnist-cnn.tflite", 93_408),
        ("QDQ ONNX", "../export/mnist-cnn.qdq.onnx", 371_204),
        ("float model", "mnist-cnn.float.tflite", 349_952),
        ("result", "result.json", 48_112),
        ("JUnit XML", "junit.xml", 3_120),
    )
    return tuple(Artifact(name, path, size, digest(path)) for name, path, size in files)


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _provenance(draw: random.Random, sample: Sample) -> Provenance:
    spec = SPEC + "".join(f"# {text}\n" for text in HOSTILE) if sample.hostile else SPEC
    names = ("load", "quantize", "export", "lower", "build", "run", "measure", "validate")
    return Provenance(
        spec_path="examples/mnist/spec.yaml",
        spec_text=spec,
        spec_sha256=digest(spec),
        edgesmith_version="0.1.0",
        machine={
            "cpu": "AMD EPYC 9V74 80-Core Processor",
            "cores": "2",
            "memory": "24 GB",
            "system": "Linux 6.1 x86_64",
        },
        versions={
            "python": "3.11.2",
            "torch": "2.13.0",
            "brevitas": "0.13.4",
            "onnx": "1.23.2",
            "onnxruntime": "1.31.1",
            "ai-edge-litert": "2.3.0",
            "numpy": "2.3.4",
        },
        digests={
            f"{part} split": digest(part) for part in ("train", "calibration", "selection", "test")
        }
        | {"checkpoint": digest("checkpoint")},
        stages=tuple(
            (name, round(draw.uniform(0.05, 18), 2), index < 2) for index, name in enumerate(names)
        ),
    )
