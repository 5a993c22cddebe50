"""`make bench-main`: what the main pipeline claims, measured.

    python benchmarks/main.py [GROUP ...]

Groups: arithmetic, roundtrip, example, resnet8, speed, lowering, latency; all by
default. Groups that need the MLPerf Tiny files read EDGESMITH_DATA and fail
without it: a figure that was not measured is no figure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from deployments import ROOT, deploy, edgesmith, percent
from rows import Row, publish

from edgesmith.targets.base import LatencyOptions
from edgesmith.targets.cpu.runtime import Runtime
from edgesmith.targets.graph.ir import Graph
from edgesmith.targets.graph.onnx_trace import from_storage, to_storage
from edgesmith.targets.graph.onnx_writer import write_onnx
from edgesmith.targets.graph.reference import PROFILES, execute, run_op
from edgesmith.targets.graph.subgraph import single_op
from edgesmith.targets.graph.tflite_reader import read_tflite
from edgesmith.targets.graph.tflite_writer import write_tflite

Array = npt.NDArray[Any]

MODELS = ("kws", "ic", "vww", "ad")
SAMPLES = 200
TEACHER_FORCED_SAMPLES = 20
LITERT = Runtime("litert", sys.executable)
LITERT_REFERENCE = Runtime("litert", sys.executable, kernels="reference")
ORT = Runtime("onnxruntime", sys.executable)
ORT_UNOPTIMIZED = Runtime("onnxruntime", sys.executable, kernels="reference")


def data_folder() -> Path:
    """The folder with the official models and data.

    Raises:
        SystemExit: EDGESMITH_DATA does not name it.
    """
    folder = Path(os.environ.get("EDGESMITH_DATA", ""))
    if not (folder / "mlperf_tiny").is_dir():
        raise SystemExit("set EDGESMITH_DATA to the folder that holds mlperf_tiny/")
    return folder


def official(model: str) -> Path:
    """An official int8 file of MLPerf Tiny."""
    return data_folder() / "mlperf_tiny" / f"{model}_int8.tflite"


def random_codes(shape: tuple[int, ...], samples: int) -> Array:
    """Uniform int8 codes [samples, *shape], the same every time."""
    return np.random.default_rng(0).integers(-128, 128, (samples, *shape)).astype(np.int8)


def run_tflite_micro(model: bytes, codes: Array) -> Array:
    """First output of TFLite Micro on the host for every sample."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model)
    outputs = []
    for sample in codes:
        interpreter.set_input(sample, 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).copy())
    return np.stack(outputs)


def arithmetic() -> Iterator[Row]:
    """The reference executor against TFLite Micro, LiteRT and ONNX Runtime."""
    worst: dict[tuple[str, str], list[Array]] = {}
    for model in MODELS:
        path = official(model)
        graph = read_tflite(path.read_bytes(), model)
        codes = random_codes(graph[graph.inputs[0]].shape, SAMPLES)
        oracles = {
            "tflite-micro": run_tflite_micro(path.read_bytes(), codes),
            "litert-reference": next(iter(LITERT_REFERENCE.run(path, [codes]).values())),
        }
        for profile, oracle in oracles.items():
            found = execute(graph, [codes], PROFILES[profile])[graph.outputs[0]]
            differing = float(np.sum(found != oracle))
            yield Row(f"{model}: bytes that differ from {profile}", differing, "bytes", goal=0)
        few = codes[:TEACHER_FORCED_SAMPLES]
        values = execute(graph, [few], PROFILES["litert-reference"], trace=True)
        for op in graph.ops:
            expected = run_op(graph, op, values, PROFILES["litert-reference"]).astype(np.int64)
            for runtime, found in forced(single_op(graph, op), values):
                worst.setdefault((runtime, op.kind), []).append(
                    np.abs(found.astype(np.int64) - expected).ravel()
                )
    for (runtime, kind), parts in sorted(worst.items()):
        lsb = np.concatenate(parts)
        yield Row(f"{kind} against {runtime}, teacher-forced", float(lsb.max()), "LSB", goal=1)
        share = 100.0 * float(np.mean(lsb > 0))
        yield Row(f"{kind} against {runtime}, elements that differ", share, "%")


def forced(graph: Graph, values: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Outputs of a one-operator graph in the runtimes that round otherwise."""
    inputs = [values[name] for name in graph.inputs]
    output = graph.outputs[0]
    with tempfile.TemporaryDirectory() as folder:
        tflite, onnx = Path(folder) / "op.tflite", Path(folder) / "op.onnx"
        tflite.write_bytes(write_tflite(graph))
        yield "LiteRT default kernels", LITERT.run(tflite, inputs)[output]
        onnx.write_bytes(write_onnx(graph))
        stored = [to_storage(array) for array in inputs]
        for name, runtime in (
            ("ONNX Runtime", ORT),
            ("ONNX Runtime, optimizations off", ORT_UNOPTIMIZED),
        ):
            yield name, from_storage(runtime.run(onnx, stored))[output]


def roundtrip() -> Iterator[Row]:
    """TFLite -> IntegerGraph -> TFLite."""
    for model in MODELS:
        source = official(model).read_bytes()
        graph = read_tflite(source, model)
        written = write_tflite(graph)
        again = read_tflite(written, model)
        changed = sum(
            not tensor.quantization.same_as(again[name].quantization)
            for name, tensor in graph.tensors.items()
            if tensor.quantization is not None
        )
        yield Row(f"{model}: quantization parameters changed by a round trip", changed, "", goal=0)
        codes = random_codes(graph[graph.inputs[0]].shape, 20)
        differing = float(
            np.sum(run_tflite_micro(source, codes) != run_tflite_micro(written, codes))
        )
        yield Row(f"{model}: outputs changed by a round trip", differing, "bytes", goal=0)


def example() -> Iterator[Row]:
    """The default example: accuracy, agreement, and how long it takes."""
    spec = ROOT / "examples" / "mnist" / "spec.yaml"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        result = deploy(spec, folder, "cpu-litert")["cpu-litert"]
        yield Row("default example, empty cache", time.perf_counter() - start, "s", goal=180)
        start = time.perf_counter()
        deploy(spec, folder, "cpu-litert")
        yield Row("default example, full cache", time.perf_counter() - start, "s", goal=5)
    drop = percent(result, "float") - percent(result, "deployed")
    yield Row("default example: float accuracy", percent(result, "float"), "%")
    yield Row("default example: accuracy drop, deployed", drop, "points", goal=0.5)
    assert result.agreement is not None
    agreement = result.agreement.value
    yield Row("default example: agreement", agreement, "%", goal=99, better="higher")


def resnet8() -> Iterator[Row]:
    """MLPerf Tiny IC, quantized here from its float weights, against the official int8 file."""
    with tempfile.TemporaryDirectory() as name:
        spec = ROOT / "examples" / "mlperf_tiny" / "ic.yaml"
        result = deploy(spec, Path(name), "cpu-litert")["cpu-litert"]
    theirs = official_accuracy()
    ours, floating = percent(result, "deployed"), percent(result, "float")
    yield Row("IC: float accuracy, CIFAR test split", floating, "%")
    yield Row("IC: official int8 accuracy", theirs, "%")
    yield Row("IC: accuracy drop, quantized here", floating - ours, "points", goal=0.5)
    yield Row("IC: deployed accuracy", ours, "%", goal=theirs, better="higher")


def official_accuracy() -> float:
    """Top-1 of the official int8 IC file on the same test split, LiteRT."""
    sys.path.insert(0, str(ROOT / "examples" / "mlperf_tiny"))
    from data import cifar10  # type: ignore[import-not-found]

    from edgesmith.targets.graph.edges import encode_inputs

    images, labels = cifar10("test")
    graph = read_tflite(official("ic").read_bytes(), "ic")
    codes = encode_inputs(graph[graph.inputs[0]], np.moveaxis(images, 1, -1))
    outputs = next(iter(LITERT.run(official("ic"), [codes]).values()))
    predicted = outputs.reshape(len(labels), -1).argmax(axis=1)
    return 100.0 * float(np.mean(predicted == labels))


def speed() -> Iterator[Row]:
    """`lint` and `plan`, best of five fresh processes."""
    spec = str(ROOT / "examples" / "mnist" / "spec.yaml")
    for command in ("lint", "plan"):
        seconds = min(edgesmith(command, spec) for _ in range(5))
        yield Row(f"edgesmith {command}", seconds, "s", goal=0.5)


_LOWERING = """
import sys, time
from pathlib import Path
from edgesmith.pipeline.lowering import read_model
from edgesmith.pipeline.target_facts import get_target
from edgesmith.targets.graph.legalizer import legalize
start = time.perf_counter()
target = get_target("cpu-litert")
plan = target.build(legalize(read_model(Path(sys.argv[1])), target.describe()))
seconds = time.perf_counter() - start
status = Path("/proc/self/status").read_text()
peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
print(seconds, peak, len(plan.files[plan.main]))
"""


def lowering() -> Iterator[Row]:
    """A QDQ MobileNetV2, read, legalized and written as TFLite in a fresh process."""
    import torch

    sys.path.insert(0, str(ROOT / "examples" / "mobilenet_v2"))
    from model import build_model  # type: ignore[import-not-found]

    from edgesmith.quantize.export import export_qdq
    from edgesmith.quantize.options import PTQOptions
    from edgesmith.quantize.ptq import quantize

    samples = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0)).numpy()
    options = PTQOptions(ranges="min-max", equalize=False, bias_correction=False, batch_size=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mobilenet_v2.onnx"
        export_qdq(quantize(build_model(), samples, options, seed=0), path)
        command = [sys.executable, "-c", _LOWERING, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak, size = map(float, done.stdout.split())
    yield Row("MobileNetV2: QDQ ONNX to TFLite", seconds, "s", goal=5)
    yield Row("MobileNetV2: peak memory of lowering", peak / 1e9, "GB", goal=2)
    yield Row("MobileNetV2: TFLite file", size, "bytes")


def latency() -> Iterator[Row]:
    """MobileNetV1 0.25 96x96: int8 against float, both on LiteRT, interleaved."""
    import torch

    sys.path.insert(0, str(ROOT / "examples" / "mlperf_tiny"))
    from edgesmith.pipeline.lowering import build_for, prove, read_model
    from edgesmith.pipeline.target_facts import get_target
    from edgesmith.pipeline.torch_model import export_float
    from edgesmith.quantize.export import export_qdq
    from edgesmith.quantize.options import PTQOptions
    from edgesmith.quantize.ptq import quantize

    from models import visual_wake_words  # type: ignore[import-not-found]
    from weights import load_official  # type: ignore[import-not-found]

    model = visual_wake_words()
    load_official(model)
    samples = torch.rand(32, 3, 96, 96, generator=torch.Generator().manual_seed(0)).numpy()
    quantized = quantize(model.eval(), samples, PTQOptions(), seed=0)
    target = get_target("cpu-litert")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_qdq(quantized, folder / "model.onnx")
        export_float(model, (3, 96, 96), folder / "float.onnx")
        products, legal = build_for(read_model(folder / "model.onnx"), target, folder)
        prove(quantized.searched(), target, products, legal.positions)
        baseline = target.float_baseline(folder / "float.onnx", folder)
        run = target.measure_latency(products, baseline, LatencyOptions(warmups=50, runs=1000))
    assert run is not None
    assert run.float_baseline is not None
    floating, ours = run.float_baseline.median.value, run.deployed.median.value
    yield Row("MobileNetV1: float LiteRT, median", floating, "ms")
    yield Row("MobileNetV1: INT8 LiteRT, median", ours, "ms")
    yield Row("MobileNetV1: INT8 over float", floating / ours, "x", goal=1, better="higher")


GROUPS: dict[str, Callable[[], Iterator[Row]]] = {
    "arithmetic": arithmetic,
    "roundtrip": roundtrip,
    "example": example,
    "resnet8": resnet8,
    "speed": speed,
    "lowering": lowering,
    "latency": latency,
}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(GROUPS)
    # A part of the groups is a look, not the record: it goes to a file of its own.
    name = "main" if chosen == list(GROUPS) else "main-partial"
    met = publish(name, (row for group in chosen for row in GROUPS[group]()))
    sys.exit(0 if met else 1)
