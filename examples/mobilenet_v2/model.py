"""MobileNetV2 1.0 with seeded random weights: a network of realistic size for benchmarks.

It is not trained, so it has no spec; `benchmarks/` lowers it to see how long
that takes. Topology: M. Sandler et al., "MobileNetV2: Inverted Residuals and
Linear Bottlenecks", 2018, table 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# expansion factor, output channels, repeats, stride of the first repeat
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution with symmetric padding, and batch norm."""
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [conv, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; the input is added back where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [*_conv(inputs, hidden, 1), nn.ReLU6()] if expansion != 1 else []
        depthwise = [*_conv(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
        self.layers = nn.Sequential(*expand, *depthwise, *_conv(hidden, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Sequential):
    """Images [N, 3, 224, 224] -> logits [N, classes]; 3.5 million parameters at 1,000 classes."""

    def __init__(self, classes: int = 1000) -> None:
        blocks: list[nn.Module] = []
        channels = 32
        for expansion, outputs, repeats, first_stride in STAGES:
            for index in range(repeats):
                stride = first_stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, outputs, stride, expansion))
                channels = outputs
        super().__init__(
            nn.Sequential(*_conv(3, 32, 3, stride=2), nn.ReLU6()),
            *blocks,
            nn.Sequential(*_conv(channels, 1280, 1), nn.ReLU6()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(1280, classes),
        )


def build_model(classes: int = 1000, seed: int = 0) -> nn.Module:
    """MobileNetV2 for inference; the same seed gives the same weights and batch norm statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MobileNetV2(classes)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
    return model.eval()
