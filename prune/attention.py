"""Multi-head attention whose number of heads is free of its width.

`nn.MultiheadAttention` insists on heads * head width = model width, so a head cannot leave it.
`HeadAttention` computes the same with four plain linear layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HeadAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v over heads; called as `nn.MultiheadAttention` is.

    Args:
        width: of the inputs and outputs.
        inner: heads * head width.
        head_width: d; the number of heads follows from the layers' own width.
        batch_first: inputs are [N, T, width], otherwise [T, N, width].
        dropout: share of the attention weights that are dropped in training.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        head_width: int,
        *,
        bias: bool,
        batch_first: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.head_width = head_width
        self.batch_first = batch_first
        self.query = nn.Linear(width, inner, bias=bias)
        self.key = nn.Linear(width, inner, bias=bias)
        self.value = nn.Linear(width, inner, bias=bias)
        self.output = nn.Linear(inner, width, bias=bias)
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()

    @property
    def heads(self) -> int:
        return self.query.out_features // self.head_width

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, None]:
        """Attention weights are never returned."""
        if not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        q, k, v = self._split(self.query(query)), self._split(self.key(key)), self.value(value)
        scores = q @ k.transpose(-2, -1) * self.head_width**-0.5
        weights = self.drop(torch.softmax(scores, dim=-1))
        mixed = (weights @ self._split(v)).transpose(1, 2)
        out: Tensor = self.output(mixed.flatten(2))
        return (out if self.batch_first else out.transpose(0, 1)), None

    def _split(self, x: Tensor) -> Tensor:
        """[N, T, inner] -> [N, heads, T, head width]."""
        shape = (x.shape[0], x.shape[1], self.heads, self.head_width)
        return x.reshape(shape).transpose(1, 2)
