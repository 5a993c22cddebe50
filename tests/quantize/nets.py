"""Small networks that together use every operator the quantizer takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FloatArray = npt.NDArray[np.float32]
Shape = tuple[int, ...]


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + x)  # type: ignore[no-any-return]


class ResidualNet(nn.Module):
    """Layers with batch norm, residual additions, global pooling by function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.layer1 = nn.Sequential(Residual(8), Residual(8))
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.layer1(self.stem(x)), 1)
        return self.fc(self.drop(torch.flatten(x, 1)))  # type: ignore[no-any-return]


def plain() -> nn.Module:
    """Convolutions with bias, pooling of both kinds, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, dilation=1),
        nn.ReLU(),
        nn.AvgPool2d(2, padding=1),
        nn.Flatten(),
        nn.Linear(72, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )


def separable() -> nn.Module:
    """Depthwise and pointwise convolutions with ReLU6, and asymmetric padding."""
    return nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 12, 1),
        nn.BatchNorm2d(12),
        nn.ReLU6(),
        nn.Conv2d(12, 12, 4, padding="same", groups=4),
        nn.Hardtanh(),
        nn.AdaptiveAvgPool2d((2, 2)),
        nn.Flatten(),
        nn.Linear(48, 4),
        nn.Softmax(dim=1),
    )


class Inception(nn.Module):
    """Concatenation of branches, one of them with fixed output parameters; up- and downsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Conv2d(3, 4, 3, padding=1)
        self.c = nn.Conv2d(3, 4, 1)
        self.head = nn.Conv2d(15, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        small = F.max_pool2d(x, 2)
        back = F.interpolate(small, scale_factor=2, mode="nearest")
        parts = [F.relu(self.a(x)), self.b(x).clamp(-0.5, 2.0), torch.sigmoid(self.c(x)), back]
        y = self.head(torch.cat(parts, dim=1))
        y = F.interpolate(y, size=(9, 9), mode="bilinear", align_corners=False)
        y = F.interpolate(y, size=(5, 5), mode="bilinear", align_corners=True)
        return y.mean(dim=(2, 3))


class SqueezeExcite(nn.Module):
    """Hard-swish, and a gate of global mean, linear layers and sigmoid."""

    def __init__(self, hard: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.Hardswish()
        self.down = nn.Linear(8, 4)
        self.up = nn.Linear(4, 8)
        self.gate: nn.Module = nn.Hardsigmoid() if hard else nn.Sigmoid()
        self.project = nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv(x)))
        scale = self.gate(self.up(F.relu(self.down(x.mean((2, 3))))))
        x = x * scale[:, :, None, None]
        return torch.tanh(self.project(x)).mean((2, 3))


class Waves(nn.Module):
    """One-dimensional: convolutions, pooling, silu, chunk and slices."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, 8, 5, stride=2, padding=2)
        self.bn1 = nn.BatchNorm1d(8)
        self.conv2 = nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.act = nn.SiLU()
        self.pool = nn.MaxPool1d(2)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        a, b = self.act(self.conv2(x)).chunk(2, dim=1)
        x = (a - b)[:, :, 1:-1:2] * 0.5 + 0.25
        x = F.avg_pool1d(F.pad(x, (1, 1)), 2)
        return self.fc(x.reshape(x.size(0), -1))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """One block of self-attention with a class token and learned positions."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 6, width) * 0.1)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        x = torch.cat([self.token.expand(batch, -1, -1), x], 1) + self.positions
        shape = (batch, length + 1, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q @ k.transpose(-2, -1)) / (width // self.heads) ** 0.5).softmax(dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length + 1, width)
        return self.head((x + self.project(mixed))[:, 0])  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Normalization, torch's own attention module and function, and a perceptron with GELU."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        x = x + y
        y = self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        x = x + y
        x = x + F.scaled_dot_product_attention(y, y, x)
        return self.head(x.mean(1))  # type: ignore[no-any-return]


NETS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "plain": (plain, (1, 14, 14)),
    "residual": (ResidualNet, (3, 16, 16)),
    "separable": (separable, (3, 16, 16)),
    "inception": (Inception, (3, 12, 12)),
    "squeeze-excite": (SqueezeExcite, (3, 8, 8)),
    "hard-sigmoid": (lambda: SqueezeExcite(hard=True), (3, 8, 8)),
    "waves": (Waves, (2, 32)),
    "attention": (Attention, (5, 16)),
    "transformer": (Transformer, (6, 16)),
}


def make(name: str, samples: int = 64) -> tuple[nn.Module, FloatArray]:
    """A network with random weights and batch statistics, and random inputs; always the same."""
    build, shape = NETS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name))
        model = build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.2)
    return model.eval(), inputs(shape, samples)


def inputs(shape: Shape, samples: int = 64) -> FloatArray:
    """Standard normal inputs [samples, *shape]; always the same."""
    return np.random.default_rng(7).standard_normal((samples, *shape)).astype(np.float32)


@torch.no_grad()
def outputs(model: nn.Module, values: FloatArray) -> FloatArray:
    """What the float model computes."""
    result: FloatArray = model(torch.from_numpy(values)).numpy()
    return result
