"""Error of each layer's own output, relative to that output: data, but no gradients.

    rise(layer) = sum (Q(W) x - W x)^2 / sum (W x + b)^2

over all calibration samples, on the float model's own inputs x; the layer is linear, so the
numerator is its response to Q(W) - W. It says nothing about what later layers make of the error.

Source: the objective of layer-wise reconstruction; Nagel et al., "Up or Down?", arXiv:2004.10568,
and Lin et al., "Fixed Point Quantization of Deep Convolutional Networks",
arXiv:1511.06393, for its ratio to the signal (SQNR).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from edgesmith.quantize.network import Network
from edgesmith.quantize.sensitivity.subject import Weights


@torch.no_grad()
def errors(
    network: Network, inputs: Tensor, perturbations: Mapping[str, Weights], batch_size: int
) -> dict[str, dict[str, float]]:
    """Format -> layer -> relative output error.

    Args:
        perturbations: format -> layer -> dW.
    """
    steps = network.layer_steps()
    wanted = {step.inputs[0] for step in steps}
    noise = {name: dict.fromkeys(each, 0.0) for name, each in perturbations.items()}
    signal = dict.fromkeys((step.name for step in steps), 0.0)
    for batch in torch.split(inputs, batch_size):
        seen: dict[str, Tensor] = {}
        network(batch, lambda name, value, to=seen: to.setdefault(name, value))
        values = {name: seen[name] for name in wanted}
        for step in steps:
            x, layer = values[step.inputs[0]], network.layer(step.name)
            assert layer.bias is not None
            signal[step.name] += _energy(layer(x))
            for name, each in perturbations.items():
                response = {"weight": each[step.name], "bias": torch.zeros_like(layer.bias)}
                noise[name][step.name] += _energy(functional_call(layer, response, (x,)))
    return {
        name: {layer: error / (signal[layer] or 1.0) for layer, error in each.items()}
        for name, each in noise.items()
    }


def _energy(values: Tensor) -> float:
    return float(values.double().square().sum())
