"""Official weights moved to the data at hand: spoken digits, and CIFAR-10 as JPEG."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from edgesmith.pipeline.errors import FactoryError
from edgesmith.pipeline.training.options import Training
from edgesmith.pipeline.training.trainer import Trainer

from weights import load_official

if TYPE_CHECKING:
    from edgesmith.pipeline.splits import Split
    from edgesmith.pipeline.stage import Progress

    from models import DSCNN

CLASSES = 10
RECORDINGS = 1680  # of the train split; variants of them may follow
EPOCHS = 12
BATCH = 32
PEAK_LEARNING_RATE = 0.005
IMAGES = Training(
    epochs=10,
    learning_rate=2e-3,
    patience=10,
    flip=True,
    shift=2,
    precision="bfloat16",
)


def digits(model: nn.Module, train: Split, selection: Split, seed: int, progress: Progress) -> None:
    """Train a `DSCNN` with 10 classes in place, from the official weights; under half a minute.

    The same seed gives the same weights, whatever variants the spec adds for what is searched. The
    schedule is fixed, so `selection` is not needed to stop.

    Raises:
        FactoryError: the model is another one.
    """
    dense = getattr(model, "dense", None)
    keywords = getattr(model, "archive", None) == "kws_dscnn_weights.npz"
    if not keywords or not isinstance(dense, nn.Linear) or dense.out_features != CLASSES:
        raise FactoryError(
            f"`digits` trains a DSCNN with {CLASSES} classes, not this {type(model).__name__}",
            fix="use `factory: models.py:keyword_spotting` with `args: {classes: 10}`",
        )
    network = cast("DSCNN", model)
    features = torch.from_numpy(train.inputs[:RECORDINGS])
    labels = torch.from_numpy(train.labels[:RECORDINGS])
    steps = EPOCHS * math.ceil(len(features) / BATCH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        load_official(model, skip=("dense",))
        network.dense.reset_parameters()
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, steps)
        model.train()
        for _ in progress.track(range(EPOCHS), "fine-tuning"):
            for chosen in torch.randperm(len(features)).split(BATCH):
                loss = F.cross_entropy(network.logits(features[chosen]), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    model.eval()


def images(model: nn.Module, train: Split, selection: Split, seed: int, progress: Progress) -> None:
    """Train a `ResNet8` on images in place, from the official weights; some minutes.

    The same seed gives the same weights.
    """
    load_official(model)
    Trainer(model, None, IMAGES, seed=seed).run(train, selection, progress, "fine-tuning")
