"""`make bench-ptq`: what each algorithm of post-training quantization is worth.

    python benchmarks/ptq.py [NETWORK ...]

Networks: ic, kws (MLPerf Tiny with their official weights; they read EDGESMITH_DATA and are
left out visibly without it) and transformer (trained here on scikit-learn's digits, with
outlying channels planted behind its layer norms); all by default.

Every algorithm is switched on or off alone, from the same float model and calibration data;
accuracy is that of the quantized module on the test split, agreement the share of test samples
that get the float model's class, error the mean difference of an output from the float model's: a
few hundred samples tell small gains by it that accuracy does not. What has a seed runs with three
of them: mean and worst.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rows import Row, publish

from edgesmith.quantize.options import (
    GPTQ,
    DataFree,
    LearnedRounding,
    PTQOptions,
    SmoothQuant,
)

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (0, 1, 2)
INT8 = PTQOptions()
W4A8 = PTQOptions(weights="int4")
Inputs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """A trained network with its data; inputs [N, *sample shape], labels [N].

    Args:
        low: smallest value that an input may have.
        high: largest value.
    """

    model: nn.Module
    calibration: Inputs
    inputs: Inputs
    labels: npt.NDArray[np.int64]
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """One value of each seed.

    Args:
        accuracy, agreement: percent of the test samples.
        error: mean magnitude of what outputs differ by.
    """

    accuracy: tuple[float, ...]
    agreement: tuple[float, ...]
    error: tuple[float, ...]


def cases(low: float, high: float) -> dict[str, PTQOptions]:
    """What is quantized of the convolutional networks."""
    free = DataFree(low, high)
    return {
        "int8": INT8,
        "int8, ranges min-max": replace(INT8, ranges="min-max"),
        "int8, ranges percentile": replace(INT8, ranges="percentile"),
        "int8, ranges kl": replace(INT8, ranges="kl"),
        "int8, no equalization": replace(INT8, equalize=False),
        "int8, no bias correction": replace(INT8, bias_correction=False),
        "int8, data-free": replace(INT8, data_free=free),
        "W4A8": W4A8,
        "W4A8, weight scales of the largest magnitude": replace(W4A8, ranges="min-max"),
        "W4A8, no equalization": replace(W4A8, equalize=False),
        "W4A8, no bias correction": replace(W4A8, bias_correction=False),
        "W4A8, GPTQ": replace(W4A8, gptq=GPTQ()),
        "W4A8, learned rounding": replace(W4A8, learned_rounding=LearnedRounding()),
        "W4A8, data-free": replace(W4A8, data_free=free),
        "W4A8, data-free, no bias correction": replace(W4A8, data_free=free, bias_correction=False),
    }


TRANSFORMER_CASES = {
    "int8": INT8,
    "int8, SmoothQuant": replace(INT8, smooth_quant=SmoothQuant()),
    "W4A8": W4A8,
    "W4A8, SmoothQuant": replace(W4A8, smooth_quant=SmoothQuant()),
    "W4A8, SmoothQuant, GPTQ": replace(W4A8, smooth_quant=SmoothQuant(), gptq=GPTQ()),
}


@dataclass(frozen=True)
class Goal:
    """Accuracy against that of another case of the same network: at least `points` above it.

    Args:
        than: another case, or "float".
        points: negative for at most so many below; None judges the error instead, which may not
            be larger.
    """

    case: str
    than: str
    points: float | None


CONVOLUTIONAL_GOALS = (
    Goal("int8", "float", -0.3),
    Goal("int8, data-free", "float", -1.0),
    Goal("W4A8, GPTQ", "W4A8", 0.0),
    Goal("W4A8, learned rounding", "float", -1.5),
    Goal("W4A8, data-free", "W4A8, data-free, no bias correction", None),
)
TRANSFORMER_GOALS = (
    Goal("int8, SmoothQuant", "int8", 0.0),
    Goal("int8, SmoothQuant", "float", -1.0),
    Goal("W4A8, SmoothQuant", "W4A8", 0.0),
)


def figure(subject: Subject, options: PTQOptions) -> Figure:
    """Quantize and score, once or with every seed."""
    from edgesmith.quantize.ptq import quantize

    exact = outputs(subject)
    seeds = SEEDS if options.learned_rounding is not None else SEEDS[:1]
    accuracy, agreement, error = [], [], []
    for seed in seeds:
        made = quantize(subject.model, subject.calibration, options, seed=seed)
        found = made.predict(subject.inputs)
        accuracy.append(percent(found, subject.labels))
        agreement.append(percent(found, exact.argmax(1)))
        error.append(float(np.abs(found - exact).mean()))
    return Figure(tuple(accuracy), tuple(agreement), tuple(error))


def outputs(subject: Subject) -> Inputs:
    """The float model's, [N, classes]."""
    import torch

    with torch.no_grad():
        parts = [subject.model(x) for x in torch.from_numpy(subject.inputs).split(250)]
    found: Inputs = torch.cat(parts).numpy()
    return found


def percent(found: Inputs, labels: npt.NDArray[np.int64]) -> float:
    """Of the samples, those whose largest output is their label."""
    return 100 * float((found.argmax(1) == labels).mean())


def rows(
    title: str, samples: int, found: Mapping[str, Figure], goals: tuple[Goal, ...]
) -> Iterator[Row]:
    """What was found of every case, then its goals, on the worst seed."""
    for name, each in found.items():
        shown = {"accuracy": (each.accuracy, "%"), "agreement": (each.agreement, "%")}
        shown["error"] = (each.error, "")
        for what, (values, unit) in shown.items():
            label = f"{title} {name}: {what}, {samples:,} samples"
            if name == "float" and what != "accuracy":
                continue
            many = len(values) > 1
            yield Row(label + (", mean of seeds" if many else ""), mean(values), unit)
            if many:
                worst = max(values) if what == "error" else min(values)
                yield Row(f"{label}, worst of {len(values)} seeds", worst, unit)
    for goal in goals:
        case, than = found[goal.case], found[goal.than]
        if goal.points is None:
            label = f"{title} {goal.case}, error against {goal.than}"
            yield Row(label, max(case.error), "", goal=mean(than.error))
            continue
        sign = f"{goal.than} {goal.points:+g} points" if goal.points else goal.than
        yield Row(
            f"{title} {goal.case} against {sign}",
            min(case.accuracy),
            "%",
            goal=mean(than.accuracy) + goal.points,
            better="higher",
        )


def image_classification() -> Subject:
    """ResNet-8 on CIFAR-10, official weights."""
    modules = example()
    model = modules["models"].image_classification()
    modules["weights"].load_official(model)
    calibration, _ = modules["data"].cifar10("calibration")
    inputs, labels = modules["data"].cifar10("test")
    return Subject(model, calibration, inputs, labels, low=0, high=255)


def keyword_spotting() -> Subject:
    """DS-CNN on spoken digits, fine-tuned by its example."""
    from edgesmith.pipeline.splits import Split
    from edgesmith.pipeline.stage import SilentProgress

    modules = example()
    data = modules["data"]
    model = modules["models"].keyword_spotting(classes=10)
    train, selection = (Split(*data.spoken_digits(part)) for part in ("train", "selection"))
    modules["training"].digits(model, train, selection, 0, SilentProgress())
    calibration, _ = data.spoken_digits("calibration")
    # The features' range is not bounded by their format; this is what training saw.
    low, high = float(train.inputs.min()), float(train.inputs.max())
    inputs, labels = data.spoken_digits("test")
    return Subject(model, calibration, inputs, labels, low=low, high=high)


def example() -> dict[str, Any]:
    """Modules of examples/mlperf_tiny."""
    import importlib

    folder = str(ROOT / "examples" / "mlperf_tiny")
    if folder not in sys.path:
        sys.path.append(folder)
    return {
        name: importlib.import_module(name) for name in ("models", "weights", "data", "training")
    }


def transformer() -> Subject:
    """A small vision transformer on scikit-learn's digits, rows of pixels as tokens."""
    from networks.digits import digits, plant_outliers, trained

    (images, digit), (inputs, labels) = digits()
    model = trained(images, digit)
    plant_outliers(model)
    return Subject(model, images[:512], inputs, labels, low=0, high=1)


@dataclass(frozen=True)
class Network:
    """What the bench knows about one network."""

    title: str
    make: Callable[[], Subject]
    goals: tuple[Goal, ...]
    needs_data: bool = True


NETWORKS = {
    "ic": Network("IC", image_classification, CONVOLUTIONAL_GOALS),
    "kws": Network("KWS", keyword_spotting, CONVOLUTIONAL_GOALS),
    "transformer": Network("transformer", transformer, TRANSFORMER_GOALS, needs_data=False),
}


def ablation(name: str) -> Iterator[Row]:
    """All rows of one network."""
    network = NETWORKS[name]
    subject = network.make()
    exact = percent(outputs(subject), subject.labels)
    found = {"float": Figure((exact,), (100.0,), (0.0,))}
    chosen = TRANSFORMER_CASES if name == "transformer" else cases(subject.low, subject.high)
    for case, options in chosen.items():
        begin = time.perf_counter()
        found[case] = figure(subject, options)
        seconds = time.perf_counter() - begin
        Console().print(
            f"{network.title} {case}: {mean(found[case].accuracy):.2f} % ({seconds:.0f} s)"
        )
    yield from rows(network.title, len(subject.labels), found, network.goals)


def main(chosen: list[str]) -> bool:
    """Run networks, write and print what they found; whether every goal is met.

    Raises:
        SystemExit: there is no such network.
    """
    import torch

    if unknown := [name for name in chosen if name not in NETWORKS]:
        raise SystemExit(f"no network {', '.join(unknown)}; choose of {', '.join(NETWORKS)}")
    torch.set_num_threads(1)
    names = chosen or list(NETWORKS)
    if not os.environ.get("EDGESMITH_DATA"):
        left_out = [name for name in names if NETWORKS[name].needs_data]
        names = [name for name in names if name not in left_out]
        if left_out:
            Console().print(f"[bold]left out without EDGESMITH_DATA: {', '.join(left_out)}[/]")
    found = [row for name in names for row in ablation(name)]
    # A part of the networks is a look, not the record: it goes to a file of its own.
    return publish("ptq" if names == list(NETWORKS) else "ptq-partial", found)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
