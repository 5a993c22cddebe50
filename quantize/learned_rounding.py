"""Learned rounding (AdaRound, block by block): decide per weight whether it rounds up or down.

The rounding of all layers of a block (`blocks.py`) minimizes the squared difference between
the block's output on quantized inputs and the float network's, through a relaxed decision
h(v) in [0, 1] per weight that a regularizer drives to 0 or 1. Blocks go in execution order, on
what the blocks rounded before give. A block keeps rounding to nearest where that is not worse
on the samples, and a layer where its format is a float or binary. Weights that are exactly 0
keep code 0.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization",
arXiv:2004.10568; the blocks are those of Li et al., "BRECQ", arXiv:2102.05426. The relaxation h
is Brevitas' `LearnedRoundHardSigmoid`; Brevitas ships no training loop for it, so that is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from brevitas.core.function_wrapper.learned_round import LearnedRoundHardSigmoid
from torch import Tensor

from edgesmith.quantize.blocks import Block, round_by_blocks, run
from edgesmith.quantize.fakequant import AffineQuantizer, weight_quantizer
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import LearnedRounding

_WARM_UP = 0.2
"""Share of the iterations without regularizer."""
_BETA = (20.0, 2.0)
"""Exponent of the regularizer, from first to last."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """One layer's decisions.

    Args:
        scaled: weights over scales, whose integers are the codes.
        decision: v, which is trained.
    """

    quantizer: AffineQuantizer
    scaled: Tensor
    decision: Tensor

    @classmethod
    def of(cls, weight: Tensor, quantizer: AffineQuantizer) -> _Layer:
        scaled = weight / quantizer.scale
        # The v with h(v) = fraction, so that training starts at the float weights.
        low, high = _RELAXED.learned_round_gamma, _RELAXED.learned_round_zeta
        decision = torch.logit((scaled - scaled.floor() - low) / (high - low)).detach()
        return cls(quantizer, scaled, decision.requires_grad_())

    def up(self, *, relaxed: bool) -> Tensor:
        found: Tensor = _RELAXED.train(relaxed)(self.decision)
        return found

    def codes(self, up: Tensor) -> Tensor:
        codes = (self.scaled.floor() + up).masked_fill(self.scaled == 0, 0)
        return codes.clamp(self.quantizer.format.qmin, self.quantizer.format.qmax)

    def nearest(self) -> Tensor:
        return self.quantizer.nearest(self.scaled)


_RELAXED = LearnedRoundHardSigmoid()


def learn_rounding(
    floating: Network,
    fake: Network,
    samples: Tensor,
    options: LearnedRounding,
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> frozenset[str]:
    """Freeze the weight codes of every layer of `fake` whose format has neighbouring integers.

    The layers whose rounding was learned are returned. Their biases need no correction: what
    shifts a mean costs a block's output more than anything else, and is learned away first.

    Args:
        floating: the float network.
        samples: calibration inputs [N, *sample shape]; the first `options.samples` are used.
        progress: called with (layers done, layers in all).
    """
    generator = torch.Generator().manual_seed(seed)
    total, done = len(fake.layer_steps()), 0
    learned: set[str] = set()

    def treat(block: Block) -> None:
        nonlocal done
        layers = {
            step.name: _Layer.of(block.floating.layer(step.name).weight.detach(), quantizer)
            for step in block.layers
            for quantizer in [weight_quantizer(block.fake, step.name)]
            if not (quantizer.format.is_float or quantizer.format.is_binary)
        }
        if layers and _learn(block, list(layers.values()), options, generator):
            learned.update(layers)
        done += len(block.layers)
        progress(done, total)

    round_by_blocks(floating, fake, samples[: options.samples], treat)
    return frozenset(learned)


def _learn(
    block: Block, layers: list[_Layer], options: LearnedRounding, generator: torch.Generator
) -> bool:
    """Freeze the codes of one block; whether they are better than the nearest."""
    inputs, targets = block.fake_inputs, run(block.floating, block.inputs)

    def freeze(codes: list[Tensor]) -> None:
        for layer, each in zip(layers, codes, strict=True):
            layer.quantizer.codes = each

    def error() -> float:
        return float((run(block.open, inputs) - targets).square().mean())

    nearest = [layer.nearest() for layer in layers]
    freeze(nearest)
    before = error()
    _train(block, layers, targets, max(before, _TINY), options, generator)
    freeze([layer.codes(layer.up(relaxed=False)).detach() for layer in layers])
    better = error() < before
    if not better:
        freeze(nearest)
    return better


_TINY = torch.finfo(torch.float32).tiny


@torch.enable_grad()
def _train(
    block: Block,
    layers: list[_Layer],
    targets: Tensor,
    unit: float,
    options: LearnedRounding,
    generator: torch.Generator,
) -> None:
    """Adam on the decisions; the loss is relative to `unit`, the error of nearest rounding."""
    optimizer = torch.optim.Adam([layer.decision for layer in layers], lr=options.learning_rate)
    for iteration in range(options.iterations):
        chosen = torch.randint(len(targets), (options.batch_size,), generator=generator)
        ups = [layer.up(relaxed=True) for layer in layers]
        for layer, up in zip(layers, ups, strict=True):
            layer.quantizer.codes = layer.codes(up)
        error = (block.open(block.fake_inputs[chosen]) - targets[chosen]).square().mean()
        loss = error / unit + _regularizer(ups, iteration, options)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _regularizer(ups: list[Tensor], iteration: int, options: LearnedRounding) -> Tensor:
    """The mean over all decisions of how far each is from 0 and 1."""
    share = iteration / max(options.iterations - 1, 1)
    if share < _WARM_UP:
        return torch.zeros(())
    beta = _BETA[0] + (_BETA[1] - _BETA[0]) * (share - _WARM_UP) / (1 - _WARM_UP)
    total = sum((1 - (2 * up - 1).abs().pow(beta)).sum() for up in ups)
    return torch.as_tensor(options.regularization * total / sum(up.numel() for up in ups))
