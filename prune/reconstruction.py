"""What stays makes up for what goes: layers that read removed channels are solved again.

A layer reads x = (x_K, x_R), and x_R goes. W_R x_R is what its outputs lose; the best linear guess
of that from what is still there is added to what stays:

    W_K + W_R G_RK (G_KK + ridge I)^-1,  G = sum of x x^T over samples

x of a convolution are its patches, and a bias is the weight of a 1. G of all layers takes one pass
over the samples through the whole model. Batch statistics are measured again afterwards.

Source: He et al., "Channel Pruning for Accelerating Very Deep Neural Networks",
arXiv:1707.06168, who solve the same least squares layer after layer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesmith.prune.attention import with_heads
from edgesmith.prune.surgery import Conv, Norm, apply_plan, has_inputs
from edgesmith.prune.values import Cut, PrunePlan
from edgesmith.quantize.columns import columns_of

Reader = (*Conv, nn.Linear)
_Reader = nn.Conv1d | nn.Conv2d | nn.Linear
RIDGE = 0.01
"""Relative to the mean square of what is read: with few samples, only what is certain is added."""
_BATCH = 32
_WIDEST = 8192
"""Inputs of a layer: the matrix of more would take gigabytes."""


class Reconstruction:
    """What the layers of one model read, and smaller forms of it that make up for what they lost.

    Args:
        model: the model that plans are made for; not changed.
        attention: paths of attention whose heads may go (`Structure.attention`).
        inputs: samples [N, *sample shape].
    """

    def __init__(self, model: nn.Module, attention: Sequence[str], inputs: Tensor) -> None:
        self._model = model
        self._inputs = inputs
        self._whole = with_heads(copy.deepcopy(model), tuple(attention)).eval()
        self._grams = _grams(self._whole, inputs)

    @torch.no_grad()
    def apply(self, plan: PrunePlan) -> nn.Module:
        """As `surgery.apply_plan`, with other weights in the layers that lose inputs; eval mode.

        Raises:
            CheckpointError: the plan belongs to another model.
        """
        made = apply_plan(self._model, plan).eval()
        for path, cut in plan.layers.items():
            if cut.in_kept is not None and path in self._grams:
                smaller = made.get_submodule(path)
                assert isinstance(smaller, Reader)
                self._solve(path, smaller, cut)
        _measure_statistics(made, self._inputs)
        return made

    def _solve(self, path: str, smaller: _Reader, cut: Cut) -> None:
        layer, gram = self._whole.get_submodule(path), self._grams[path]
        assert isinstance(layer, Reader)
        assert cut.in_kept is not None
        staying = torch.zeros(layer.weight.shape[1], dtype=torch.bool)
        staying[list(cut.in_kept)] = True
        read = staying.repeat_interleave(layer.weight[0, 0].numel())
        constant = torch.ones(int(layer.bias is not None), dtype=torch.bool)
        there, gone = torch.cat([read, constant]), torch.cat([~read, ~constant])
        lost = layer.weight.detach().flatten(1)[:, ~read].double()
        lost = lost.unflatten(0, (len(gram), -1))  # [groups, outputs, removed]
        more = _made_up(lost, gram[:, gone][:, :, there], gram[:, there][:, :, there])
        more = more.flatten(0, 1)  # [outputs, kept and constant]
        if cut.out_kept is not None:
            more = more[list(cut.out_kept)]
        weight, bias = smaller.weight, smaller.bias
        weight += more[:, : int(read.sum())].reshape(weight.shape).to(weight.dtype)
        if bias is not None:
            bias += more[:, -1].to(bias.dtype)


def _made_up(lost: Tensor, across: Tensor, known: Tensor) -> Tensor:
    """Weights of what is known that stand for lost ones: [groups, outputs, known].

    Args:
        lost: [groups, outputs, removed].
        across: of G, [groups, removed, known].
        known: of G, [groups, known, known].
    """
    diagonal = known.diagonal(dim1=1, dim2=2)
    # Groups that never read anything but zero have nothing to make up for.
    ridge = (RIDGE * diagonal.mean(1, keepdim=True)).clamp_min(1e-12).expand_as(diagonal)
    solved: Tensor = torch.linalg.solve(known + torch.diag_embed(ridge), (lost @ across).mT).mT
    return solved


@torch.no_grad()
def _grams(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Layer -> sum of x x^T over samples and positions, float64 [groups, K, K]."""
    found: dict[str, Tensor] = {}
    hooks = []
    for path, layer in model.named_modules():
        if has_inputs(layer) and layer.weight[0].numel() <= _WIDEST:

            def add(module: nn.Module, given: tuple[Tensor, ...], path: str = path) -> None:
                read = columns_of(module, given[0])
                if module.bias is not None:
                    read = F.pad(read, (0, 0, 0, 1), value=1.0)
                found[path] = found.get(path, 0.0) + torch.bmm(read, read.mT).double()

            hooks.append(layer.register_forward_pre_hook(add))
    try:
        for batch in inputs.split(_BATCH):
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def _measure_statistics(model: nn.Module, inputs: Tensor) -> None:
    """Running means and variances of batch norm over all samples, in place."""
    norms = [m for m in model.modules() if isinstance(m, Norm) and m.running_mean is not None]
    momenta = [each.momentum for each in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for batch in inputs.split(_BATCH) if norms else ():
        if len(batch) > 1:  # one sample has no variance
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
