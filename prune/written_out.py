"""Self-attention that a model writes out itself, recognized by what it computes.

A module with the linear layers of an attention is one if, whatever its weights, it computes what
`SelfAttention` computes with them. So the names of its layers and how it is written do not matter.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import permutations

import torch
from torch import Tensor, nn

from edgesmith.prune.attention import HeadAttention

_TOKENS = 5
RELATIVE = 1e-4
FORWARD_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""What a forward pass raises whose shapes do not fit."""
Parts = tuple[Tensor, ...]
"""Weights, and biases where there are some, of queries, keys and values: [inner, width] each."""


class SelfAttention(HeadAttention):
    """`HeadAttention` of one input with itself, [N, T, width] -> [N, T, width]."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, x, x)[0]


def self_attention(module: nn.Module) -> SelfAttention | None:
    """The same attention with layers of its own; None of a module that is none.

    Dropout makes it none, which `SelfAttention` does not have.
    """
    if len(_layers(module)) not in (2, 4):
        return None
    probe = _randomized(module)
    ways = _candidates(_layers(probe))
    found = next((way for way, made in enumerate(ways) if _same(probe, made)), None)
    if found is None:
        return None
    made = [*_candidates(_layers(module))][found]
    return made.train(module.training)


def _layers(module: nn.Module) -> list[nn.Linear]:
    """Its linear layers, if nothing else in it has weights."""
    children = [each for each in module.children() if type(each) is nn.Linear]
    own = {id(value) for each in children for value in each.parameters()}
    return children if all(id(value) in own for value in module.parameters()) else []


def _randomized(module: nn.Module) -> nn.Module:
    """Weights may be such that many attentions compute the same: zeros, for one."""
    probe = copy.deepcopy(module).float().cpu()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in probe.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * value.shape[-1] ** -0.5)
    return probe


@torch.no_grad()
def _candidates(layers: Sequence[nn.Linear]) -> Iterator[SelfAttention]:
    """Every attention that these layers may be, in an order that weights do not change."""
    *first, last = layers
    width, inner = first[0].in_features, last.in_features
    sizes = {layer.out_features for layer in first}
    fits = last.out_features == width and all(layer.in_features == width for layer in first)
    if not fits or sizes != {inner if len(first) == 3 else 3 * inner}:
        return
    for head_width in (size for size in range(1, inner + 1) if inner % size == 0):
        for parts in _separate(first) if len(first) == 3 else _fused(first[0], head_width):
            bias = first[0].bias is not None
            made = SelfAttention(width, inner, head_width, bias=bias, batch_first=True)
            made.to(last.weight.dtype)
            made.output = copy.deepcopy(last)
            for layer, values in zip((made.query, made.key, made.value), parts, strict=True):
                for own, value in zip(layer.parameters(), values, strict=True):
                    own.copy_(value)
            yield made


def _separate(layers: Sequence[nn.Linear]) -> Iterator[tuple[Parts, ...]]:
    if len({layer.bias is None for layer in layers}) == 1:
        yield from permutations([tuple(layer.parameters()) for layer in layers])


def _fused(layer: nn.Linear, head_width: int) -> Iterator[tuple[Parts, ...]]:
    """One layer makes all three: one after the other, or one after the other in every head."""
    own = [*layer.parameters()]
    whole = [value.chunk(3) for value in own]
    yield tuple(zip(*whole, strict=True))
    by_head = [value.unflatten(0, (-1, 3, head_width)).unbind(1) for value in own]
    yield tuple(zip(*([part.flatten(0, 1) for part in each] for each in by_head), strict=True))


@torch.no_grad()
def _same(module: nn.Module, made: SelfAttention) -> bool:
    """Whether both compute the same, in training too."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, _TOKENS, made.query.in_features, generator=generator)
    for training in (False, True):
        try:
            out, expected = module.train(training)(x), made.train(training)(x)
        except FORWARD_ERRORS:
            return False
        if not isinstance(out, Tensor) or out.shape != expected.shape:
            return False
        if not torch.allclose(out, expected, RELATIVE, RELATIVE * float(expected.abs().max())):
            return False
    return True
