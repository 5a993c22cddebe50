"""Trained models of every kind that a search takes, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.examples.loading import example
from tests.prune.nets import NETS as PRUNED
from tests.prune.nets import settled
from tests.quantize.nets import Shape
from tests.quantize.vit import tiny_vit


class Layer(nn.Module):
    """A pre-norm encoder layer: attention and a perceptron, each a residual module."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Mixing(width, heads)
        self.perceptron = Perceptron(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.perceptron(self.attention(x))
        return out


class Mixing(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        out: Tensor = x + self.mix(y, y, y, need_weights=False)[0]
        return out


class Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(F.gelu(self.up(self.norm(x))))
        return out


class PostNorm(nn.Module):
    """An encoder layer as BERT has it: normalized after attention, and after the perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mixed = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.out = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mixed(x + self.mix(x, x, x, need_weights=False)[0])
        out: Tensor = self.out(y + self.down(F.gelu(self.up(y))))
        return out


class Encoder(nn.Module):
    """Embedded tokens, learned positions, encoder layers, a classifier on the first token."""

    def __init__(
        self,
        width: int = 32,
        heads: int = 4,
        depth: int = 2,
        layer: Callable[[int, int], nn.Module] = Layer,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(12, width)
        self.positions = nn.Parameter(torch.randn(1, 6, width))
        self.layers = nn.Sequential(*(layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(self.embed(x) + self.positions)
        out: Tensor = self.head(self.norm(y)[:, 0])
        return out


class Cropped(nn.Module):
    """Kernels that shrink, padded with zeros as every target can."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.point = nn.Conv2d(8, 12, 1)
        self.oblong = nn.Conv2d(12, 8, (5, 3), padding=(2, 1))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.norm(self.stem(x)))))
        x = torch.relu(self.oblong(torch.relu(self.point(x))))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class Kernels(nn.Module):
    """Kernels of many sizes, strides, dilations and paddings."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=4, dilation=2, groups=8)
        self.oblong = nn.Conv2d(8, 8, (5, 3), padding="same")
        self.mirrored = nn.Conv2d(8, 8, 5, padding=2, padding_mode="reflect")
        self.valid = nn.Conv2d(8, 8, 5)
        self.even = nn.Conv2d(8, 8, 6, padding=2)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.large(x))))
        x = torch.relu(self.mirrored(torch.relu(self.oblong(x))))
        x = torch.relu(self.even(torch.relu(self.valid(x))))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.other = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.other.weight = self.one.weight
        self.side = nn.Linear(8, 16)
        self.last = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.other(torch.relu(self.one(torch.relu(self.first(x)))))
        out: Tensor = self.last(torch.relu(self.side(y)))
        return out


class Asking(nn.Module):
    """Python asks for shapes, in one region for a number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.into = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.region = _Sixteen()
        self.out = nn.Conv2d(16, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() == 4, "images"
        x = torch.relu(self.into(torch.relu(self.stem(x))))
        x = torch.relu(self.out(self.region(x)))
        found: Tensor = self.fc(x.mean((2, 3)))
        return found


class _Sixteen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 16:
            raise ValueError("sixteen channels, please")
        for _ in range(x.shape[2] // 4):
            x = torch.relu(self.conv(x))
        return x


def _mlperf(factory: str) -> Callable[[], nn.Module]:
    found: Callable[[], nn.Module] = example("mlperf_tiny", f"models.py:{factory}")
    return found


NETS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "cnn": (lambda: example("mnist", "model.py:build_model")(8), (1, 28, 28)),
    "resnet8": (_mlperf("image_classification"), (3, 32, 32)),
    "mobilenet-v1": (_mlperf("visual_wake_words"), (3, 96, 96)),
    "mobilenet-v2": (lambda: example("mobilenet_v2", "model.py:build_model")(10), (3, 64, 64)),
    "dscnn": (_mlperf("keyword_spotting"), (1, 49, 10)),
    "autoencoder": (_mlperf("anomaly_detection"), (640,)),
    "vit": (lambda: tiny_vit(depth=2), (3, 32, 32)),
    "encoder": (Encoder, (6, 12)),
    "bert": (lambda: Encoder(layer=PostNorm), (6, 12)),
    "cropped": (Cropped, (3, 16, 16)),
    "kernels": (Kernels, (3, 24, 24)),
    "tied": (Tied, (6,)),
    "asking": (Asking, (3, 16, 16)),
    **{name: PRUNED[name] for name in ("concat", "split", "grouped", "squeeze-excite")},
}


def make(name: str) -> tuple[nn.Module, Shape]:
    """A network with random weights and batch statistics; always the same."""
    build, shape = NETS[name]
    return settled(build), shape
