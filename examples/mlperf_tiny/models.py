"""The four MLPerf Tiny reference models as torch modules, channels first.

They compute what the official float files compute. TensorFlow's SAME padding
is asymmetric where stride and size are both even, so it is explicit here
(`same_padding`), with the input size of every layer known when it is built.
Batch norm has Keras's epsilon. Layers are registered in the order in which
Keras numbers them; `weights.py` relies on that.

Source of the topologies: C. Banbury et al., "MLPerf Tiny Benchmark", 2021, and
its reference implementations.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

KERAS_EPSILON = 1e-3
Pair = tuple[int, int]


def same_padding(size: int, kernel: int, stride: int) -> Pair:
    """Zeros before and after one axis, as TensorFlow's SAME has them; the odd one goes after."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Module):
    """Convolution with bias and SAME padding on inputs of a fixed height and width."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Pair,
        size: Pair,
        stride: int = 1,
        *,
        groups: int = 1,
    ) -> None:
        super().__init__()
        top, bottom = same_padding(size[0], kernel[0], stride)
        left, right = same_padding(size[1], kernel[1], stride)
        symmetric = top == bottom and left == right
        self.pads = () if symmetric else (left, right, top, bottom)
        padding = (top, left) if symmetric else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.pads:
            x = F.pad(x, self.pads)
        out: Tensor = self.conv(x)
        return out


class ConvBlock(nn.Sequential):
    """Convolution, batch norm and, unless told otherwise, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Pair,
        size: Pair,
        stride: int = 1,
        *,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__(
            SameConv2d(inputs, outputs, kernel, size, stride, groups=groups),
            nn.BatchNorm2d(outputs, eps=KERAS_EPSILON),
            *([nn.ReLU()] if relu else []),
        )


class Separable(nn.Sequential):
    """Depthwise 3x3 block, then pointwise block."""

    def __init__(self, inputs: int, outputs: int, size: Pair, stride: int = 1) -> None:
        after = (-(-size[0] // stride), -(-size[1] // stride))
        super().__init__(
            ConvBlock(inputs, inputs, (3, 3), size, stride, groups=inputs),
            ConvBlock(inputs, outputs, (1, 1), after),
        )


class Classifier(nn.Module):
    """Features, average pooling, one dense layer and softmax.

    `archive` is the file with the official weights.
    """

    archive: ClassVar[str]

    def __init__(self, features: nn.Module, pool: Pair, channels: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AvgPool2d(pool)
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(channels, classes)
        self.softmax = nn.Softmax(dim=1)

    def logits(self, x: Tensor) -> Tensor:
        """What softmax gets, [N, classes]."""
        out: Tensor = self.dense(self.flatten(self.pool(self.features(x))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        probabilities: Tensor = self.softmax(self.logits(x))
        return probabilities


class ResidualStack(nn.Module):
    """Two 3x3 convolutions and a shortcut: the identity, or 1x1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int) -> None:
        super().__init__()
        after = size // stride
        self.first = ConvBlock(inputs, outputs, (3, 3), (size, size), stride)
        self.second = ConvBlock(outputs, outputs, (3, 3), (after, after), relu=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = SameConv2d(inputs, outputs, (1, 1), (size, size), stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.second(self.first(x)) + self.shortcut(x))
        return out


class ResNet8(Classifier):
    """Image classification: [N, 3, 32, 32], red-green-blue 0 to 255 -> CIFAR-10 probabilities."""

    archive = "ic_resnet8_weights.npz"

    def __init__(self) -> None:
        features = nn.Sequential(
            ConvBlock(3, 16, (3, 3), (32, 32)),
            ResidualStack(16, 16, size=32, stride=1),
            ResidualStack(16, 32, size=32, stride=2),
            ResidualStack(32, 64, size=16, stride=2),
        )
        super().__init__(features, (8, 8), channels=64, classes=10)


class DSCNN(Classifier):
    """Keyword spotting: 10 MFCCs of 49 frames [N, 1, 49, 10] -> probabilities of 12 keywords.

    With another number of classes, `weights.py` leaves the dense layer untrained.
    """

    archive = "kws_dscnn_weights.npz"

    def __init__(self, classes: int = 12) -> None:
        features = nn.Sequential(
            ConvBlock(1, 64, (10, 4), (49, 10), stride=2),
            *(Separable(64, 64, (25, 5)) for _ in range(4)),
        )
        super().__init__(features, (25, 5), channels=64, classes=classes)


class MobileNetV1(Classifier):
    """Visual wake words, width 0.25: [N, 3, 96, 96], 0 to 1 -> probabilities of two classes."""

    archive = "vww_mobilenetv1_025_96_weights.npz"
    strides: ClassVar[tuple[tuple[int, int], ...]] = (  # channels after each block, stride
        (16, 1),
        (32, 2),
        (32, 1),
        (64, 2),
        (64, 1),
        (128, 2),
        *((128, 1),) * 5,
        (256, 2),
        (256, 1),
    )

    def __init__(self) -> None:
        blocks: list[nn.Module] = [ConvBlock(3, 8, (3, 3), (96, 96), stride=2)]
        channels, size = 8, 48
        for outputs, stride in self.strides:
            blocks.append(Separable(channels, outputs, (size, size), stride))
            channels, size = outputs, size // stride
        super().__init__(nn.Sequential(*blocks), (size, size), channels, classes=2)


class Autoencoder(nn.Sequential):
    """Anomaly detection: 5 frames of 128 log-mel energies [N, 640] -> their reconstruction.

    The archive has a bias for every dense layer, but the converter that made the
    official TFLite files lost those in front of a batch norm, in the float file and
    in the int8 file. This module is the model of those files.
    """

    archive: ClassVar[str] = "ad_autoencoder_weights.npz"
    unused: ClassVar[tuple[str, ...]] = (
        "dense/bias",
        *(f"dense_{index}/bias" for index in range(1, 9)),
    )

    def __init__(self) -> None:
        widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)
        hidden = (
            nn.Sequential(
                nn.Linear(inputs, outputs, bias=False),
                nn.BatchNorm1d(outputs, eps=KERAS_EPSILON),
                nn.ReLU(),
            )
            for inputs, outputs in pairwise(widths)
        )
        super().__init__(*hidden, nn.Linear(128, 640))


def image_classification() -> nn.Module:
    """IC, without weights."""
    return ResNet8()


def keyword_spotting(classes: int = 12) -> nn.Module:
    """KWS, without weights."""
    return DSCNN(classes)


def visual_wake_words() -> nn.Module:
    """VWW, without weights."""
    return MobileNetV1()


def anomaly_detection() -> nn.Module:
    """AD, without weights."""
    return Autoencoder()
