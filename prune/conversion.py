"""Attention of a model as `HeadAttention`, whose heads can be removed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgesmith.prune.attention import HeadAttention
from edgesmith.prune.written_out import FORWARD_ERRORS, RELATIVE, self_attention


def attention_in(model: nn.Module, sample_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Paths of attention that `convert` can give layers of its own.

    Args:
        model: eval mode; not changed.
    """
    x = torch.randn(1, *sample_shape, generator=torch.Generator().manual_seed(0))
    found = ((path, convert(module)) for path, module in model.named_modules() if path)
    return tuple(path for path, made in found if made is not None and _takes(model, path, made, x))


@torch.no_grad()
def _takes(model: nn.Module, path: str, made: HeadAttention, x: Tensor) -> bool:
    """Whether a model computes the same with it, called in whatever way it calls it."""
    changed = copy.deepcopy(model)
    replace_module(changed, path, made)
    expected = model(x)
    try:
        out = changed(x)
    except FORWARD_ERRORS:
        return False
    return torch.allclose(out, expected, RELATIVE, RELATIVE * float(expected.abs().max()))


def convert(module: nn.Module) -> HeadAttention | None:
    """The same attention with layers of its own; None where there is none, or none that computes
    the same: queries, keys and values have one width, and nothing is added to them.
    """
    if not isinstance(module, nn.MultiheadAttention):
        return self_attention(module)
    plain = bool(module._qkv_same_embed_dim) and module.bias_k is None
    return _of_torch(module) if plain and not module.add_zero_attn else None


@torch.no_grad()
def _of_torch(module: nn.MultiheadAttention) -> HeadAttention:
    width, bias = module.embed_dim, module.in_proj_bias is not None
    made = HeadAttention(
        width,
        width,
        module.head_dim,
        bias=bias,
        batch_first=bool(module.batch_first),
        dropout=module.dropout,
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
        made = convert(model.get_submodule(path))
        assert made is not None
        replace_module(model, path, made)
    return model
