"""Normalization rules of attention: products, a softmax and linear layers of the integer formats.

    scores = q k^T        weights = softmax(scores / sqrt(d))        result = weights v

The scale becomes the softmax's beta (`groups.fold_softmax_scales`), so it costs nothing.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from edgesmith.quantize import ops
from edgesmith.quantize.draft import Call, Ref
from edgesmith.quantize.rules import rule

_PLAIN = "leave masks, dropout and causality out, or write attention as matmul, add and softmax"


@rule(F.scaled_dot_product_attention)
def _attention(
    call: Call,
    query: Ref,
    key: Ref,
    value: Ref,
    attn_mask: object = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Ref:
    if attn_mask is not None or is_causal or dropout_p or enable_gqa:
        call.refuse("it has a mask, dropout, causality or grouped heads", _PLAIN)
    return _attended(call, query, key, value, scale or 1 / math.sqrt(query.shape[-1]))


def _attended(call: Call, query: Ref, key: Ref, value: Ref, scale: float) -> Ref:
    """softmax(scale * query key^T) value, over the last two axes."""
    order = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    turned = call.emit(ops.Transpose(tuple(order)), key, part=True)
    scores = call.emit(ops.MatMul(), query, turned, part=True)
    scaled = call.emit(ops.Mul(), scores, scale, part=True)
    weights = call.emit(ops.Softmax(scores.rank - 1), scaled, part=True)
    return call.emit(ops.MatMul(), weights, value, part=True)


@rule(nn.MultiheadAttention)
def _multihead(
    call: Call,
    query: Ref,
    key: Ref,
    value: Ref,
    key_padding_mask: object = None,
    need_weights: bool = True,
    attn_mask: object = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Ref, None]:
    """The module as linear layers and `_attended`; its second result, the weights, is None."""
    module = call.module
    assert isinstance(module, nn.MultiheadAttention)
    if key_padding_mask is not None or attn_mask is not None or is_causal:
        call.refuse("it has a mask", _PLAIN)
    if module.bias_k is not None or module.add_zero_attn or module.in_proj_weight is None:
        call.refuse(
            "it has kdim, vdim, add_bias_kv or add_zero_attn",
            "leave them out, or write attention as linear, matmul and softmax",
        )
    if not module.batch_first or query.rank != 3:
        call.refuse("its tensors are not [batch, tokens, width]", "set batch_first=True")
    width, bias = module.embed_dim, module.in_proj_bias
    parts = [slice(start, start + width) for start in range(0, 3 * width, width)]
    queries, keys, values = (
        _heads(
            call,
            _linear(call, x, module.in_proj_weight[part], None if bias is None else bias[part]),
            module.num_heads,
        )
        for x, part in zip((query, key, value), parts, strict=True)
    )
    scale = 1 / math.sqrt(width // module.num_heads)
    mixed = _attended(call, queries, keys, values, scale)
    joined = call.emit(ops.Transpose((0, 2, 1, 3)), mixed, part=True)
    tokens = query.shape[1]
    flat = call.emit(ops.Reshape((-1, tokens, width), (1, tokens, width)), joined, part=True)
    return _linear(call, flat, module.out_proj.weight, module.out_proj.bias), None


def _linear(call: Call, x: Ref, weight: Tensor, bias: Tensor | None) -> Ref:
    op = ops.Linear(weight.shape[1], weight.shape[0])
    return call.layer(op, x, weight, bias, weight.shape[0], part=True)


def _heads(call: Call, x: Ref, heads: int) -> Ref:
    """[batch, tokens, width] -> [batch, heads, tokens, width / heads]."""
    shape = (x.shape[1], heads, x.shape[2] // heads)
    split = call.emit(ops.Reshape((-1, *shape), (1, *shape)), x, part=True)
    return call.emit(ops.Transpose((0, 2, 1, 3)), split, part=True)
