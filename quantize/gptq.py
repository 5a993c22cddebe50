"""GPTQ: weights are rounded column by column, and the columns left make up for each error.

For a layer with inputs X the error of rounding W to Q is tr((Q - W) H (Q - W)^T) with
H = X X^T. Rounding column i by an error e changes the columns behind it by
-e U[i, i+1:] / U[i, i], where U is the upper Cholesky factor of the inverse of H; that is
optimal for the columns that are left. Layers go in execution order, on the quantized outputs of
the layers before. An output channel keeps rounding to nearest where that is not worse on the
samples. Weights that are exactly 0 keep code 0, as in SparseGPT (arXiv:2301.00774): their
columns make up for nothing, and their drift is made up for by the others.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv:2210.17323. Brevitas has it (`gptq_mode`), and gives the same codes where
both apply (tested); it does not keep zeros nor compare with nearest rounding, takes linear
layers on four axes for something else, and goes through the groups of a depthwise convolution
one by one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgesmith.quantize.blocks import Block, round_by_blocks, run
from edgesmith.quantize.columns import columns_of
from edgesmith.quantize.fakequant import weight_quantizer
from edgesmith.quantize.formats import stored_codes
from edgesmith.quantize.network import Network, Step
from edgesmith.quantize.ops import Conv
from edgesmith.quantize.options import GPTQ

Round = Callable[[Tensor], Tensor]
"""Weights [..., O] of one column -> the nearest values that the format has, same shape."""


def round_by_gptq(
    floating: Network,
    fake: Network,
    samples: Tensor,
    options: GPTQ,
    *,
    progress: Callable[[int, int], None],
) -> None:
    """Freeze the weight codes of every layer of `fake`.

    Args:
        floating: the float network.
        samples: calibration inputs [N, *sample shape]; the first `options.samples` are used.
        progress: called with (layers done, layers in all).
    """
    total = len(fake.layer_steps())
    done = 0

    def treat(block: Block) -> None:
        nonlocal done
        for step in block.layers:
            _round_layer(block, step, options)
            done += 1
            progress(done, total)

    round_by_blocks(floating, fake, samples[: options.samples], treat)


def _round_layer(block: Block, step: Step, options: GPTQ) -> None:
    quantizer = weight_quantizer(block.fake, step.name)
    weight = block.floating.layer(step.name).weight.detach()
    hessian = _hessian(block, step)
    groups = len(hessian)
    columns = weight.reshape(groups, weight.shape[0] // groups, -1).double()
    scale = quantizer.scale.expand(weight.shape[0], *[1] * (weight.ndim - 1))
    scale = scale.reshape(groups, -1).double()

    def nearest(values: Tensor) -> Tensor:
        return quantizer.nearest(values / scale) * scale

    found = quantize_columns(columns, hessian, nearest, options)
    codes = (found / scale.unsqueeze(-1)).float().reshape(weight.shape)
    quantizer.freeze(stored_codes(codes.numpy(), quantizer.format))


def quantize_columns(weight: Tensor, hessian: Tensor, nearest: Round, options: GPTQ) -> Tensor:
    """Rounded weights, float64 [G, O, K], for weights [G, O, K] and Hessians [G, K, K].

    Args:
        nearest: rounds one column [G, O].
    """
    plain = torch.stack([nearest(column) for column in weight.unbind(-1)], -1)
    plain[weight == 0] = 0
    order = _order(hessian, options)
    moved = _compensated(_taken(weight, order), _both(hessian, order), nearest, options.damping)
    back = order.argsort(-1)
    found = _taken(moved, back)
    better = _error(found - weight, hessian) < _error(plain - weight, hessian)
    return torch.where(better.unsqueeze(-1), found, plain)


def _compensated(weight: Tensor, hessian: Tensor, nearest: Round, damping: float) -> Tensor:
    """One column after the other, in the order given."""
    zeros = weight == 0
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    damped = hessian + torch.diag_embed(
        # Groups that never see a value but zero have nothing to minimize.
        (damping * diagonal.mean(-1, keepdim=True)).clamp_min(1e-12).expand_as(diagonal)
    )
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor = torch.linalg.cholesky(inverse, upper=True)
    left = weight.clone()
    for i in range(weight.shape[-1]):
        rounded = nearest(left[..., i]).masked_fill(zeros[..., i], 0)
        error = (left[..., i] - rounded) / factor[:, i, i].unsqueeze(-1)
        left[..., i:] -= error.unsqueeze(-1) * factor[:, i, i:].unsqueeze(-2)
        left[..., i] = rounded
    return left


def _order(hessian: Tensor, options: GPTQ) -> Tensor:
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    if options.order == "hessian":
        return torch.argsort(diagonal, dim=-1, descending=True, stable=True)
    return torch.arange(diagonal.shape[-1]).expand_as(diagonal)


def _taken(weight: Tensor, order: Tensor) -> Tensor:
    return weight.gather(-1, order.unsqueeze(-2).expand_as(weight))


def _both(hessian: Tensor, order: Tensor) -> Tensor:
    rows = hessian.gather(-2, order.unsqueeze(-1).expand_as(hessian))
    return rows.gather(-1, order.unsqueeze(-2).expand_as(hessian))


def _error(change: Tensor, hessian: Tensor) -> Tensor:
    """Squared output error of every output channel [G, O]."""
    return (change @ hessian * change).sum(-1)


def _hessian(block: Block, step: Step) -> Tensor:
    """X X^T per group, float64 [G, K, K], over the block's quantized inputs."""
    layer = block.fake.layer(step.name)
    groups = step.op.groups if isinstance(step.op, Conv) else 1
    size = layer.weight[0].numel()
    total = torch.zeros(groups, size, size, dtype=torch.float64)

    def add(_: nn.Module, inputs: tuple[Tensor]) -> None:
        read = columns_of(layer, inputs[0])
        total.add_(torch.bmm(read, read.transpose(1, 2)).double())

    hook = layer.register_forward_pre_hook(add)
    try:
        run(block.fake, block.fake_inputs)
    finally:
        hook.remove()
    return total
