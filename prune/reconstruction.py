"""What stays makes up for what goes: layer after layer, weights are solved again.

A layer made t from what it read in the whole model, and reads x in the smaller one: fewer channels,
and not quite the same. Its weights W become those nearby that come nearest to t,

    W + (t x^T - W x x^T) (x x^T + ridge I)^-1,  sums over samples and positions

x of a convolution are its patches, and a bias is the weight of a 1. That happens in one pass of all
samples through the smaller model: each layer is solved when its input arrives, which is what the
layers before it make with their new weights. Batch norms measure their statistics on the way.

Source: He et al., "Channel Pruning for Accelerating Very Deep Neural Networks",
arXiv:1707.06168, section 3.1: least squares against the unpruned model's outputs on inputs of
the pruned one. The ridge towards what is there, biases and statistics are added here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesmith.prune.conversion import with_heads
from edgesmith.prune.surgery import Conv, Norm, apply_plan
from edgesmith.prune.values import Cut, PrunePlan
from edgesmith.quantize.columns import columns_of

Solved = (*Conv, nn.Linear)
_Solved = nn.Conv1d | nn.Conv2d | nn.Linear
RIDGE = 0.01
"""Relative to the mean square of what is read: with few samples, only what is certain changes."""
_BATCH = 32
_WIDEST = 8192
"""Inputs of a layer: the matrix of more would take gigabytes."""
_KEPT_BYTES = 1 << 30
"""Outputs of the whole model's layers that are held: where all samples are more, some will do."""


class Reconstruction:
    """What the layers of one model make, and smaller forms of it that come near to that.

    Args:
        model: the model that plans are made for; not changed.
        attention: paths of attention whose heads may go (`Structure.attention`).
        inputs: samples [N, *sample shape].
    """

    def __init__(self, model: nn.Module, attention: Sequence[str], inputs: Tensor) -> None:
        self._model = model
        whole = with_heads(copy.deepcopy(model), tuple(attention)).eval()
        size = sum(each.nbytes for each in _made(whole, inputs[:1]).values())
        self._inputs = inputs[: max(2, _KEPT_BYTES // max(size, 1))]
        self._wanted = _made(whole, self._inputs)

    @torch.no_grad()
    def apply(self, plan: PrunePlan) -> nn.Module:
        """As `surgery.apply_plan`, with other weights and batch statistics; eval mode.

        Raises:
            CheckpointError: the plan belongs to another model.
        """
        made = apply_plan(self._model, plan).eval()
        hooks = [
            layer.register_forward_pre_hook(self._solver(path, plan.layers.get(path, Cut())))
            for path, layer in made.named_modules()
            if isinstance(layer, Solved) and path in self._wanted
        ]
        try:
            with measured_statistics(made, len(self._inputs)):
                made(self._inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return made

    def _solver(self, path: str, cut: Cut) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def solve(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            assert isinstance(layer, Solved)
            _solve(layer, given[0], self._wanted[path], cut)

        return solve


@contextmanager
def measured_statistics(model: nn.Module, samples: int) -> Iterator[None]:
    """Batch norms normalize the one batch that passes within by its statistics, and keep them."""
    norms = [m for m in model.modules() if isinstance(m, Norm) and m.running_mean is not None]
    if samples < 2:
        norms = []  # one sample has no variance
    momenta = [each.momentum for each in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def _made(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Path -> outputs of every layer that can be solved, and is called once."""
    found: dict[str, list[Tensor]] = {}
    hooks = []
    for path, layer in model.named_modules():
        if isinstance(layer, Solved) and layer.weight[0].numel() <= _WIDEST:

            def note(
                module: nn.Module, given: tuple[Tensor, ...], output: Tensor, path: str = path
            ) -> None:
                found.setdefault(path, []).append(output)

            hooks.append(layer.register_forward_hook(note))
    batches = inputs.split(_BATCH)
    try:
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {path: torch.cat(each) for path, each in found.items() if len(each) == len(batches)}


def _solve(layer: _Solved, x: Tensor, wanted: Tensor, cut: Cut) -> None:
    """Give a layer the weights that make of `x` what is wanted, in place.

    Args:
        x: all samples, as the layer reads them now.
        wanted: what the whole layer made of the same samples, with all its channels.
    """
    axis = wanted.ndim - 1 if isinstance(layer, nn.Linear) else 1
    if cut.out_kept is not None:
        wanted = wanted.index_select(axis, torch.tensor(cut.out_kept))
    weight = layer.weight.flatten(1)
    if layer.bias is not None:
        weight = torch.cat([weight, layer.bias[:, None]], 1)
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    now = weight.double().unflatten(0, (groups, -1))  # [groups, outputs, read]
    squares = torch.zeros(groups, now.shape[2], now.shape[2], dtype=torch.float64)
    across = torch.zeros_like(now)
    for part, target in zip(x.split(_BATCH), wanted.split(_BATCH), strict=True):
        read = columns_of(layer, part)
        if layer.bias is not None:
            read = F.pad(read, (0, 0, 0, 1), value=1.0)
        t = target.movedim(axis, 0).reshape(groups, now.shape[1], -1)
        squares += torch.bmm(read, read.mT)
        across += torch.bmm(t, read.mT)
    solved = (now + _change(now, squares, across)).flatten(0, 1).to(layer.weight.dtype)
    if layer.bias is not None:
        layer.bias.copy_(solved[:, -1])
        solved = solved[:, :-1]
    layer.weight.copy_(solved.reshape(layer.weight.shape))


def _change(now: Tensor, squares: Tensor, across: Tensor) -> Tensor:
    """What to add to weights [groups, outputs, read].

    Args:
        squares: sum of x x^T, [groups, read, read].
        across: sum of t x^T, [groups, outputs, read].
    """
    diagonal = squares.diagonal(dim1=1, dim2=2)
    # Groups that never read anything but zero have nothing to make up for.
    ridge = (RIDGE * diagonal.mean(1, keepdim=True)).clamp_min(1e-12).expand_as(diagonal)
    missing = across - now @ squares
    found: Tensor = torch.linalg.solve(squares + torch.diag_embed(ridge), missing.mT).mT
    return found
