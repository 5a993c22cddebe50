"""Bias correction: quantized weights keep the mean of every output channel.

The algorithm and the code are Brevitas' (`bias_correction_mode`): for each layer,
on inputs that went through the activation quantizers, the mean difference of its
float and quantized output per channel is added to its bias. Source: Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.2 (the empirical form).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from edgesmith.quantize.brevitas_tools import bias_correction_mode
from edgesmith.quantize.network import Network
from edgesmith.quantize.ops import Linear


@torch.no_grad()
def correct_biases(network: Network, batches: Iterable[Tensor], skip: Collection[str] = ()) -> None:
    """Change the biases of a fake-quantized network in place, but of the layers in `skip`.

    Linear layers on tensors of more than three axes are left alone: Brevitas
    would take another axis for their channels.
    """
    ranks: dict[str, int] = {}
    batches = list(batches)
    network(batches[0][:1], lambda name, value: ranks.update({name: value.ndim}))
    layers = [
        network.layer(step.name)
        for step in network.layer_steps()
        if not (isinstance(step.op, Linear) and ranks[step.name] > 3) and step.name not in skip
    ]
    if not layers:
        return
    with bias_correction_mode(nn.ModuleList(layers)):
        for batch in batches:
            network(batch)
