"""A small vision transformer: for 32x32 images, of a size that a microcontroller holds."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from edgesmith.quantize.export import to_onnx
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import QuantizedModel, quantize
from edgesmith.targets.graph.ir import Graph
from edgesmith.targets.graph.onnx_reader import read_onnx
from tests.quantize.nets import FloatArray, inputs

IMAGE = (3, 32, 32)


class SelfAttention(nn.Module):
    """Softmax(q k^T / sqrt(d)) v over several heads, written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        shape = (batch, tokens, self.heads, width // self.heads)
        q, k, v = (each.reshape(shape).transpose(1, 2) for each in (q, k, v))
        scores = q @ k.transpose(-2, -1) * shape[-1] ** -0.5
        mixed = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2)
        return self.project(mixed.reshape(batch, tokens, width))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a two-layer perceptron, each normalized before and added after."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.act = nn.GELU()
        self.down = nn.Linear(expansion * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.act(self.up(self.norm2(x))))  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Patches by a convolution, learned positions, blocks; a class token or the mean of tokens."""

    def __init__(
        self,
        width: int = 64,
        heads: int = 4,
        expansion: int = 2,
        depth: int = 4,
        patch: int = 4,
        classes: int = 10,
        class_token: bool = False,
    ) -> None:
        super().__init__()
        tokens = (IMAGE[1] // patch) * (IMAGE[2] // patch) + class_token
        self.patches = nn.Conv2d(IMAGE[0], width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width)) if class_token else None
        self.positions = nn.Parameter(torch.randn(1, tokens, width) * 0.3)
        self.blocks = nn.Sequential(*(Block(width, heads, expansion) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.norm(self.blocks(x + self.positions))
        pooled = x[:, 0] if self.token is not None else x.mean(1)
        return self.head(pooled)  # type: ignore[no-any-return]


def tiny_vit(
    width: int = 64,
    heads: int = 4,
    expansion: int = 2,
    depth: int = 4,
    *,
    class_token: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Random weights with attention and normalization away from their initial sameness."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VisionTransformer(width, heads, expansion, depth, class_token=class_token)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.2)
            elif isinstance(module, SelfAttention):
                module.qkv.weight.data *= 2
    return model.eval()


@cache
def quantized_vit(
    options: PTQOptions | None = None, *, class_token: bool = False
) -> QuantizedModel:
    """`tiny_vit`, quantized on 32 random images."""
    model = tiny_vit(class_token=class_token)
    return quantize(model, images(32), options or PTQOptions(), seed=0)


@cache
def tiny_vit_graph(options: PTQOptions | None = None, *, class_token: bool = False) -> Graph:
    """The IntegerGraph of `quantized_vit`, read from its QDQ ONNX; about 140,000 weights."""
    made = quantized_vit(options, class_token=class_token)
    return read_onnx(to_onnx(made).SerializeToString(), "tiny-vit")


def images(samples: int) -> FloatArray:
    """Random images [samples, 3, 32, 32]; always the same."""
    return inputs(IMAGE, samples)
