"""Small networks whose channels hang together in every way that pruning takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesmith.pipeline.splits import Split
from tests.quantize.nets import ResidualNet, Shape, SqueezeExcite, Transformer, plain, separable


class Concat(nn.Module):
    """Branches, and the input itself, concatenated; the result is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Conv2d(3, 8, 3, padding=1)
        self.c = nn.Conv2d(15, 6, 3, padding=1)
        self.d = nn.Conv2d(21, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([F.relu(self.a(x)), x, self.b(x)], dim=1)
        y = torch.cat([y, torch.sigmoid(self.c(y))], dim=1)
        return self.fc(self.d(y).mean((2, 3)))  # type: ignore[no-any-return]


class SplitNet(nn.Module):
    """One half of a convolution gates the other: channels i and i + 8 are tied.

    With `uneven` another layer reads one half, whose channels would then go alone.
    """

    def __init__(self, uneven: bool = False) -> None:
        super().__init__()
        self.uneven = uneven
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.gate = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.relu(self.bn(self.conv(x))).chunk(2, dim=1)
        mixed = self.gate(a) + b if self.uneven else self.gate(torch.sigmoid(a) * b)
        return self.fc(mixed.mean((2, 3)))  # type: ignore[no-any-return]


class Grouped(nn.Module):
    """A grouped convolution between plain ones, and a depthwise one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.bn = nn.BatchNorm2d(24)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.last = nn.Conv2d(24, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.grouped(F.relu(self.first(x)))))
        return self.fc(self.last(self.depthwise(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Embedded(nn.Module):
    """Tokens made by a linear layer, so that the model width is free, around torch's attention."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.positions = nn.Parameter(torch.randn(1, 5, width))
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.positions
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(x[:, 0])  # type: ignore[no-any-return]


class Scrambled(nn.Module):
    """Mixes channels by a sort, which no graph of channels describes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.mid = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mid(self.conv(x).sort(dim=1).values)
        return self.fc(F.relu(y).mean((2, 3)))  # type: ignore[no-any-return]


IMAGE: Shape = (3, 12, 12)
NETS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "plain": (plain, (1, 14, 14)),
    "residual": (ResidualNet, IMAGE),
    "separable": (separable, (3, 16, 16)),
    "concat": (Concat, IMAGE),
    "split": (SplitNet, IMAGE),
    "grouped": (Grouped, IMAGE),
    "squeeze-excite": (SqueezeExcite, IMAGE),
    "transformer": (Transformer, (6, 16)),
    "embedded": (Embedded, (5, 6)),
}


def make(name: str, seed: int = 0) -> tuple[nn.Module, Shape]:
    """A network with random weights and batch statistics; always the same for a seed."""
    build, shape = NETS[name]
    return settled(build, seed), shape


def settled(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Random weights, biases and batch statistics, none of them at its initial value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
                if module.weight is not None:
                    module.weight.data.uniform_(0.5, 1.5)
                    module.bias.data.normal_(0, 0.2)
            elif isinstance(module, nn.MultiheadAttention):
                assert module.in_proj_bias is not None
                module.in_proj_bias.data.normal_(0, 0.2)
                module.out_proj.bias.data.normal_(0, 0.2)
    return model.eval()


def batch(shape: Shape, samples: int = 4, seed: int = 1) -> Tensor:
    """Standard normal inputs [samples, *shape]."""
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed))


def blobs(samples: int, seed: int, classes: int = 4, size: int = 8) -> Split:
    """Images [N, 3, size, size] with a bright bar whose place is the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    images = rng.normal(0, 0.6, (samples, 3, size, size)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[label % 3, :, 2 * label : 2 * label + 2] += 0.8
    return Split(images, labels.astype(np.int64))


class Classifier(nn.Module):
    """A residual network for `blobs`, wide enough to lose channels."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(4 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + x)
        return self.fc(F.avg_pool2d(x, 2).flatten(1))  # type: ignore[no-any-return]


def trained(width: int = 16, steps: int = 60) -> nn.Module:
    """`Classifier`, fitted in a second."""
    data = blobs(256, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier(width)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        x, y = torch.from_numpy(data.inputs), torch.from_numpy(data.labels)
        for step in range(steps):
            part = slice(step % 4 * 64, step % 4 * 64 + 64)
            loss = F.cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()
