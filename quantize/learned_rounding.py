"""Learned rounding (AdaRound): decide per weight whether it rounds up or down, layer by layer.

Each layer's rounding minimizes the squared difference between its output on
quantized inputs and the float network's, through a relaxed decision h(v) in
[0, 1] that a regularizer drives to 0 or 1. Layers go in execution order, on what
the layers rounded before give. A layer keeps rounding to nearest where that is
not worse on the samples, and where its format is a float or binary.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training
Quantization", arXiv:2004.10568. The relaxation h is Brevitas'
`LearnedRoundHardSigmoid`; Brevitas ships no training loop for it, so that is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from brevitas.core.function_wrapper.learned_round import LearnedRoundHardSigmoid
from torch import Tensor, nn

from edgesmith.quantize.fakequant import AffineQuantizer, weight_quantizer
from edgesmith.quantize.network import Network, Step, float_module
from edgesmith.quantize.ops import Conv, Linear
from edgesmith.quantize.options import LearnedRounding

_WARM_UP = 0.2
"""Share of the iterations without regularizer."""
_BETA = (20.0, 2.0)
"""Exponent of the regularizer, from first to last."""


@dataclass(frozen=True)
class _Task:
    """One layer: its quantized inputs, float targets and float parameters."""

    step: Step
    layer: nn.Module
    inputs: Tensor
    targets: Tensor
    weight: Tensor
    bias: Tensor
    quantizer: AffineQuantizer

    def output(self, codes: Tensor, chosen: Tensor | slice) -> Tensor:
        parameters = {"weight": codes * self.quantizer.scale, "bias": self.bias}
        result: Tensor = torch.func.functional_call(self.layer, parameters, (self.inputs[chosen],))
        activation = self.step.activation
        return result if activation is None else activation.run(result)

    def error(self, codes: Tensor, chosen: Tensor | slice = slice(None)) -> Tensor:
        return (self.output(codes, chosen) - self.targets[chosen]).square().mean()

    def clamp(self, codes: Tensor) -> Tensor:
        return codes.clamp(self.quantizer.format.qmin, self.quantizer.format.qmax)


@torch.enable_grad()
def learn_rounding(
    floating: Network,
    fake: Network,
    samples: Tensor,
    options: LearnedRounding,
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    """Freeze the weight codes of every layer of `fake` whose format has neighbouring integers.

    Args:
        floating: the float network.
        samples: calibration inputs [N, *sample shape]; the first `options.samples` are used.
        progress: called with (layers done, layers in all).
    """
    samples = samples[: options.samples]
    generator = torch.Generator().manual_seed(seed)
    steps = fake.layer_steps()
    for index, step in enumerate(steps):
        quantizer = weight_quantizer(fake, step.name)
        if not (quantizer.format.is_float or quantizer.format.is_binary):
            codes = _learn(_task(floating, fake, step, samples), options, generator)
            quantizer.freeze(codes.numpy())
        progress(index + 1, len(steps))


@torch.no_grad()
def _task(floating: Network, fake: Network, step: Step, samples: Tensor) -> _Task:
    assert isinstance(step.op, Conv | Linear)
    layer = floating.layer(step.name)
    assert layer.bias is not None
    return _Task(
        step,
        float_module(step.op),
        _value(fake, samples, step.inputs[0]),
        _value(floating, samples, step.name),
        layer.weight.detach(),
        layer.bias.detach(),
        weight_quantizer(fake, step.name),
    )


def _value(network: Network, samples: Tensor, name: str) -> Tensor:
    """One tensor of the network on the samples."""
    found: dict[str, Tensor] = {}

    def visit(tensor: str, value: Tensor) -> None:
        if tensor == name:
            found[name] = value

    network(samples, visit)
    return found[name]


def _learn(task: _Task, options: LearnedRounding, generator: torch.Generator) -> Tensor:
    """The codes of one layer."""
    relaxed = LearnedRoundHardSigmoid()
    scaled = task.weight / task.quantizer.scale
    nearest = task.clamp(torch.round(scaled))
    decision = _initial(relaxed, scaled - scaled.floor()).requires_grad_()
    optimizer = torch.optim.Adam([decision], lr=options.learning_rate)
    with torch.no_grad():
        unit = task.error(nearest).clamp_min(torch.finfo(torch.float32).tiny)
    for iteration in range(options.iterations):
        chosen = torch.randint(len(task.inputs), (options.batch_size,), generator=generator)
        up = relaxed.train()(decision)
        codes = task.clamp(scaled.floor() + up)
        loss = task.error(codes, chosen) / unit + _regularizer(up, iteration, options)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        learned = task.clamp(scaled.floor() + relaxed.eval()(decision))
        return learned if task.error(learned) < task.error(nearest) else nearest


def _initial(relaxed: LearnedRoundHardSigmoid, fraction: Tensor) -> Tensor:
    """The v with h(v) = fraction, so that training starts at the float weights."""
    low, high = relaxed.learned_round_gamma, relaxed.learned_round_zeta
    return torch.logit((fraction - low) / (high - low)).detach()


def _regularizer(up: Tensor, iteration: int, options: LearnedRounding) -> Tensor:
    share = iteration / max(options.iterations - 1, 1)
    if share < _WARM_UP:
        return torch.zeros(())
    beta = _BETA[0] + (_BETA[1] - _BETA[0]) * (share - _WARM_UP) / (1 - _WARM_UP)
    return options.regularization * (1 - (2 * up - 1).abs().pow(beta)).mean()
