"""The default example's model: a small residual CNN for 28x28 grey images, and its training.

Every layer is one that integer runtimes have a kernel for: 3x3 convolutions
with symmetric padding and stride 1, batch norm (which folds away), ReLU,
residual additions, 2x2 max pooling, global average pooling, one linear layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from edgesmith.pipeline.splits import Split
    from edgesmith.pipeline.stage import Progress

EPOCHS = 14
BATCH = 64
PEAK_LEARNING_RATE = 0.01
WARM_UP = 0.2  # of all steps


class ConvBnRelu(nn.Sequential):
    """3x3 convolution, batch norm, ReLU; keeps height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is added back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBnRelu(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.norm(self.second(self.first(x))) + x)
        return out


class ResidualCNN(nn.Module):
    """Images [N, 1, 28, 28] -> logits [N, classes]."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = ConvBnRelu(1, width)
        self.pool1 = nn.MaxPool2d(2)
        self.block1 = Residual(width)
        self.widen = ConvBnRelu(width, 2 * width)
        self.pool2 = nn.MaxPool2d(2)
        self.block2 = Residual(2 * width)
        self.pool3 = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(self.pool1(self.stem(x)))
        x = self.block2(self.pool2(self.widen(x)))
        logits: Tensor = self.classifier(self.flatten(self.pool3(x)))
        return logits


def build_model(width: int = 16) -> nn.Module:
    """The untrained model; `width` is the number of channels of the first half."""
    return ResidualCNN(width)


def train(model: nn.Module, train: Split, selection: Split, seed: int, progress: Progress) -> None:
    """Train `model` in place, from scratch; the same seed gives the same weights.

    AdamW on a one-cycle learning rate with small random shifts; about 15 seconds
    on two cores. The schedule is fixed, so `selection` is not needed to stop.
    """
    images, labels = torch.from_numpy(train.inputs), torch.from_numpy(train.labels)
    steps = EPOCHS * math.ceil(len(images) / BATCH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.apply(_reset)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, PEAK_LEARNING_RATE, steps, pct_start=WARM_UP
        )
        model.train()
        for _ in progress.track(range(EPOCHS), "training"):
            for chosen in torch.randperm(len(images)).split(BATCH):
                loss = F.cross_entropy(model(_shifted(images[chosen])), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    model.eval()


def _shifted(images: Tensor, most: int = 2) -> Tensor:
    """The batch, moved as a whole by up to `most` pixels along each axis, zeros moving in."""
    down, right = torch.randint(0, 2 * most + 1, (2,)).tolist()
    height, width = images.shape[-2:]
    return F.pad(images, [most] * 4)[..., down : down + height, right : right + width]


def _reset(module: nn.Module) -> None:
    """Forget what a layer learned."""
    if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
        module.reset_parameters()
