"""Neural Compressor's own static INT8 beside this pipeline's, on the same model and samples.

Its accuracy is that of its converted module. Its latency is that of the module ahead-of-time
compiled by torch's Inductor with frozen weights (`aoti_compile_and_package`), called from Python:
the fastest of the forms that it can be deployed in here. Of one IC inference on one core,
`torch.compile` with frozen weights took 1.7 times as long, and with a C++ wrapper 1.5 times.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deployments import example
from torch import Tensor, nn

from edgesmith.pipeline.evaluation import predictions
from edgesmith.pipeline.lowering import build_for, prove, read_model
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import BuildProducts
from edgesmith.quantize.engines.containment import contained
from edgesmith.quantize.export import export_qdq
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import quantize
from edgesmith.targets.cpu.worker import open_session
from edgesmith.targets.graph.edges import encode_inputs

TARGETS = {"cpu-onnxruntime": "onnxruntime", "cpu-litert": "litert"}
"""Where this pipeline's artifact runs -> the runtime in a worker's words."""
FORM = "torch Inductor, ahead of time, frozen weights"
INDUCTOR = {
    "freezing": True,
    # Inductor remembers where a precompiled header lies, and each comparison's folder goes away.
    "aot_inductor.precompile_headers": False,
}
WARMUPS, RUNS, BATCH = 50, 500, 64


@dataclass(frozen=True)
class Model:
    """A network of MLPerf Tiny: its factory, trainer and data in the examples."""

    title: str
    factory: str
    args: Mapping[str, int]
    trainer: tuple[str, str]
    data: str


MODELS = {
    "ic": Model("IC", "image_classification", {}, ("weights", "official"), "cifar10"),
    "kws": Model(
        "KWS", "keyword_spotting", {"classes": 10}, ("training", "digits"), "spoken_digits"
    ),
}


@dataclass(frozen=True)
class Deployed:
    """This pipeline's INT8 on one target.

    Args:
        percent: accuracy of the artifact on the test split.
        milliseconds: median of one inference.
        over_peer: median over rounds of its time over Neural Compressor's in the same round.
    """

    percent: float
    milliseconds: float
    over_peer: float


@dataclass(frozen=True)
class SideBySide:
    """One model under both.

    Args:
        samples: of the test split.
        percent, milliseconds: Neural Compressor's; `form` is what was timed.
        rounds: interleaved inferences, batch 1, one thread.
        ours: target -> this pipeline's.
    """

    title: str
    samples: int
    float_percent: float
    percent: float
    milliseconds: float
    form: str
    rounds: int
    ours: Mapping[str, Deployed]


@dataclass(frozen=True, eq=False)
class _Data:
    train: Split
    calibration: Split
    selection: Split
    test: Split


def side_by_side(name: str, options: PTQOptions | None = None) -> SideBySide:
    """Quantize a model of `MODELS` with both, and compare.

    Args:
        options: this pipeline's; its defaults, if None.

    Raises:
        SystemExit: no C++ compiler, which Neural Compressor's deployed form needs.
    """
    if shutil.which("g++") is None:
        raise SystemExit("torch's Inductor needs g++: apt-get install -y g++")
    chosen = MODELS[name]
    data = _Data(*(_split(chosen.data, part) for part in _Data.__annotations__))
    model = _trained(chosen, data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _compared(chosen.title, model, data, options or PTQOptions(), Path(folder))
    finally:
        torch.set_num_threads(threads)


def _compared(
    title: str, model: nn.Module, data: _Data, options: PTQOptions, folder: Path
) -> SideBySide:
    sample = data.test.inputs[:1]
    percents, calls = {}, {}
    for target, products, percent in _deployments(model, data, options, folder):
        percents[target] = percent
        calls[target] = _invocation(TARGETS[target], products)
    # Its threads and settings are restored only when the timing is done.
    with contained() as work:
        converted = _converted(model, torch.from_numpy(data.calibration.inputs))
        theirs = _percent(converted, data.test)
        compiled = _compiled(converted, torch.from_numpy(sample), work)
        times = _interleaved([compiled, *calls.values()])
    medians = np.median(times, axis=1)
    ratios = np.median(times / times[0], axis=1)
    ours = {
        target: Deployed(percents[target], float(medians[at]), float(ratios[at]))
        for at, target in enumerate(calls, start=1)
    }
    exact = _percent(model, data.test)
    count = len(data.test)
    return SideBySide(title, count, exact, theirs, float(medians[0]), FORM, RUNS, ours)


def _split(factory: str, part: str) -> Split:
    return Split(*getattr(example("data"), factory)(part))


def _trained(chosen: Model, data: _Data) -> nn.Module:
    model: nn.Module = getattr(example("models"), chosen.factory)(**chosen.args)
    module, function = chosen.trainer
    getattr(example(module), function)(model, data.train, data.selection, 0, SilentProgress())
    return model.eval()


@torch.no_grad()
def _percent(model: nn.Module, split: Split) -> float:
    outputs = torch.cat([model(part) for part in torch.from_numpy(split.inputs).split(BATCH)])
    return 100.0 * float((predictions(outputs.numpy()) == split.labels).mean())


def _converted(model: nn.Module, calibration: Tensor) -> nn.Module:
    """Neural Compressor's own way, with its own defaults, from the model as it is."""
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

    example = (calibration[:2],)
    exported = export(model, example, dynamic_shapes=({0: torch.export.Dim("batch")},))
    prepared = prepare(exported, StaticQuantConfig(), example_inputs=example)
    with torch.no_grad():
        for part in calibration.split(BATCH):
            prepared(part)
    converted: nn.Module = convert(prepared)
    return converted


@torch.no_grad()
def _compiled(converted: nn.Module, sample: Tensor, folder: Path) -> Callable[[], object]:
    """A call of the converted module's deployed form, batch 1."""
    import torch._inductor

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    package = torch._inductor.aoti_compile_and_package(
        torch.export.export(converted, (sample,)),
        package_path=str(folder / "model.pt2"),
        inductor_configs=INDUCTOR,
    )
    run = torch._inductor.aoti_load_package(package)
    worst = float((run(sample) - converted(sample)).abs().max())
    if worst > 1e-3:
        raise SystemExit(f"the compiled module differs from the converted one by {worst:.3g}")
    return lambda: run(sample)


def _deployments(
    model: nn.Module, data: _Data, options: PTQOptions, folder: Path
) -> list[tuple[str, BuildProducts, float]]:
    """This pipeline's artifacts, proven, with their accuracy."""
    quantized = quantize(model, data.calibration.inputs, options, seed=0)
    export_qdq(quantized, folder / "model.onnx")
    made = []
    for name in TARGETS:
        target = get_target(name)
        (folder / name).mkdir()
        products, legal = build_for(read_model(folder / "model.onnx"), target, folder / name)
        _, shipped = prove(quantized.searched(), target, products, legal.positions)
        source = shipped[shipped.inputs[0]]
        codes = encode_inputs(source, data.test.inputs, legal.layout.get(source.name))
        outputs = target.run(products, [codes])[shipped.outputs[0]]
        hits = predictions(outputs) == data.test.labels
        made.append((name, products, 100.0 * float(hits.mean())))
    return made


def _invocation(runtime: str, products: BuildProducts) -> Callable[[], object]:
    """A call of an artifact on one thread, as the pipeline's own workers time it."""
    request = {"runtime": runtime, "threads": 1, "kernels": "default"}
    session = open_session(request, str(Path(products.folder) / products.main))
    session.set_inputs(session.example())
    invoke: Callable[[], object] = session.invoke
    return invoke


def _interleaved(calls: Sequence[Callable[[], object]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Milliseconds [calls, rounds]: one call of each in turn."""
    for call in calls:
        for _ in range(WARMUPS):
            call()
    times = np.empty((len(calls), RUNS))
    for at in range(RUNS):
        for row, call in enumerate(calls):
            start = time.perf_counter_ns()
            call()
            times[row, at] = (time.perf_counter_ns() - start) / 1e6
    return times
