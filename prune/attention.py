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
    """

    def __init__(
        self, width: int, inner: int, head_width: int, *, bias: bool, batch_first: bool
    ) -> None:
        super().__init__()
        self.head_width = head_width
        self.batch_first = batch_first
        self.query = nn.Linear(width, inner, bias=bias)
        self.key = nn.Linear(width, inner, bias=bias)
        self.value = nn.Linear(width, inner, bias=bias)
        self.output = nn.Linear(inner, width, bias=bias)

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
        mixed = (torch.softmax(scores, dim=-1) @ self._split(v)).transpose(1, 2)
        out: Tensor = self.output(mixed.flatten(2))
        return (out if self.batch_first else out.transpose(0, 1)), None

    def _split(self, x: Tensor) -> Tensor:
        """[N, T, inner] -> [N, heads, T, head width]."""
        shape = (x.shape[0], x.shape[1], self.heads, self.head_width)
        return x.reshape(shape).transpose(1, 2)


def convertible(module: nn.Module) -> bool:
    """Whether `convert` computes the same: queries, keys and values of one width, no extras."""
    return (
        isinstance(module, nn.MultiheadAttention)
        and bool(module._qkv_same_embed_dim)
        and module.bias_k is None
        and not module.add_zero_attn
        and module.dropout == 0.0
    )


@torch.no_grad()
def convert(module: nn.MultiheadAttention) -> HeadAttention:
    """The same attention with layers of its own."""
    width, bias = module.embed_dim, module.in_proj_bias is not None
    made = HeadAttention(
        width, width, module.head_dim, bias=bias, batch_first=bool(module.batch_first)
    )
    assert module.in_proj_weight is not None
    made.to(module.in_proj_weight.dtype)
    layers = (made.query, made.key, made.value)
    for layer, weight in zip(layers, module.in_proj_weight.chunk(3), strict=True):
        layer.weight.copy_(weight)
    made.output.weight.copy_(module.out_proj.weight)
    if module.in_proj_bias is not None:
        for layer, values in zip(layers, module.in_proj_bias.chunk(3), strict=True):
            layer.bias.copy_(values)
        made.output.bias.copy_(module.out_proj.bias)
    return made.train(module.training)


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put another module at a path."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def with_heads(model: nn.Module, paths: tuple[str, ...]) -> nn.Module:
    """The model, in place, with `HeadAttention` at these paths."""
    for path in paths:
        attention = model.get_submodule(path)
        assert isinstance(attention, nn.MultiheadAttention)
        replace_module(model, path, convert(attention))
    return model
