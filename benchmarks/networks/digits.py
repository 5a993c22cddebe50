"""A small vision transformer on scikit-learn's digits: eight tokens, the rows of 8x8 pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Split = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
EPOCHS = 25
BATCH = 32
OUTLIERS = 2
"""Channels of each layer norm that are planted as outliers."""
FACTOR = 64.0


def digits() -> tuple[Split, Split]:
    """1,198 images [8, 8] to train on and 599, every third, to test on; pixels from 0 to 1."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images, labels = (loaded.images / 16).astype(np.float32), loaded.target.astype(np.int64)
    test = np.arange(len(labels)) % 3 == 0
    return (images[~test], labels[~test]), (images[test], labels[test])


class Block(nn.Module):
    """Attention and a perceptron, each behind a layer norm and beside an identity."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        shape = (batch, tokens, self.heads, width // self.heads)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.project(mixed.reshape(batch, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """[N, 8, 8] -> 10 logits."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.positions = nn.Parameter(torch.randn(1, 8, width) * 0.1)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.embed(x) + self.positions))
        return self.head(x.mean(1))  # type: ignore[no-any-return]


def trained(images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Transformer:
    """Trained in some seconds; the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Transformer()
        inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
        steps = EPOCHS * -(-len(inputs) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(inputs)).split(BATCH):
                loss = F.cross_entropy(model(inputs[chosen]), targets[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()


@torch.no_grad()
def plant_outliers(model: Transformer) -> None:
    """Channels as large language models have them; the function stays the same.

    The channels of largest gain are multiplied, and divided in the weights that read them.
    """
    for block in model.blocks:
        assert isinstance(block, Block)
        for norm, reader in ((block.norm1, block.qkv), (block.norm2, block.up)):
            chosen = norm.weight.abs().topk(OUTLIERS).indices
            norm.weight[chosen] *= FACTOR
            norm.bias[chosen] *= FACTOR
            reader.weight[:, chosen] /= FACTOR
