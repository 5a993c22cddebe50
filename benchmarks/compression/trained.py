"""IC fine-tuned on the training split: the model that QAT and pruning begin with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    """

    module: nn.Module
    checkpoint: Path
    train: Split
    selection: Split
    test: Split
    percent: float


def trained(folder: Path) -> Trained:
    """IC, fine-tuned by the example's trainer once per folder."""
    load, parts = example("data").cifar10, ("train", "selection", "test")
    splits = {part: Split(*load(part)) for part in parts}
    module, checkpoint = example("models").image_classification(), folder / "ic-tuned.safetensors"
    if checkpoint.exists():
        module.load_state_dict(safetensors.torch.load_file(checkpoint))
        module.eval()
    else:
        with ConsoleObserver(Console(stderr=True)).running("fine-tuning IC") as progress:
            example("training").images(module, splits["train"], splits["selection"], SEED, progress)
        safetensors.torch.save_file(module.state_dict(), checkpoint)
    return Trained(module, checkpoint, **splits, percent=accuracy(module, splits["test"]))


def tuned(model: nn.Module, start: Trained, options: Training, label: str) -> float:
    """Train a model in place as a pruned one is fine-tuned; its accuracy on the test split.

    Args:
        start: the teacher, and the data.
    """
    with ConsoleObserver(Console(stderr=True)).running(label) as progress:
        trainer = Trainer(model, start.module, options, seed=SEED)
        trainer.run(start.train, start.selection, progress, label)
    return accuracy(model, start.test)
