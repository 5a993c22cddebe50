"""IC fine-tuned on the training split: the model that QAT and pruning begin with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from deployments import example
from rich.console import Console
from torch import nn

from edgesmith.pipeline.observer import ConsoleObserver
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.training.options import Training
from edgesmith.pipeline.training.trainer import Trainer, accuracy

SHAPE = (3, 32, 32)
SEED = 0
TRAINING = {"train": {"part": "train"}, "selection": {"part": "selection"}}
"""All images of both splits, where the example's spec reads some."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A fine-tuned IC.

    Args:
        module: eval mode.
        checkpoint: its weights.
        percent: accuracy on the test split.
        minutes: that fine-tuning took.
    """

    module: nn.Module
    checkpoint: Path
    train: Split
    selection: Split
    test: Split
    percent: float
    minutes: float


def trained(folder: Path) -> Trained:
    """IC, fine-tuned by the example's trainer once per folder."""
    load, parts = example("data").cifar10, ("train", "selection", "test")
    splits = {part: Split(*load(part)) for part in parts}
    module, checkpoint = example("models").image_classification(), folder / "ic-tuned.safetensors"
    if not checkpoint.exists():
        before = time.perf_counter()
        with ConsoleObserver(Console(stderr=True)).running("fine-tuning IC") as progress:
            example("training").images(module, splits["train"], splits["selection"], SEED, progress)
        took = {"minutes": str((time.perf_counter() - before) / 60)}
        safetensors.torch.save_file(module.state_dict(), checkpoint, took)
    with safetensors.safe_open(checkpoint, "pt") as file:
        minutes = float(file.metadata()["minutes"])
    module.load_state_dict(safetensors.torch.load_file(checkpoint))
    found = accuracy(module.eval(), splits["test"])
    return Trained(module, checkpoint, **splits, percent=found, minutes=minutes)


def tuned(model: nn.Module, start: Trained, options: Training, label: str) -> float:
    """Train a model in place as a pruned one is fine-tuned; its accuracy on the test split.

    Args:
        start: the teacher, and the data.
    """
    with ConsoleObserver(Console(stderr=True)).running(label) as progress:
        trainer = Trainer(model, start.module, options, seed=SEED)
        trainer.run(start.train, start.selection, progress, label)
    return accuracy(model, start.test)
