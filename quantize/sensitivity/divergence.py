"""The rise itself, with one group quantized at a time: a forward pass per group and format.

    rise(group, format) = loss(W with Q(W_group)) - loss(W)

With the loss `divergence` that is KL(float || quantized) of the predictions on calibration data.
No expansion is involved; what it leaves out is what groups do to each other.

Source: Cai et al., "ZeroQ", arXiv:2001.00281.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgesmith.pipeline.stage import Progress
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.fakequant import fake_quantize
from edgesmith.quantize.network import INPUT, Network, key, with_steps
from edgesmith.quantize.placement import Placement
from edgesmith.quantize.sensitivity.landscape import Landscape
from edgesmith.quantize.sensitivity.subject import Subject, Weights
from edgesmith.quantize.weights import find_scales


def rises(field: Landscape, perturbation: Weights, progress: Progress) -> dict[str, float]:
    """Layer -> measured rise of the loss with that layer alone perturbed."""
    weights = field.weights()
    start = field.value({})
    return {
        name: field.value({name: weights[name] + each}) - start
        for name, each in progress.track(perturbation.items(), "loss", len(perturbation))
    }


def activation_rises(
    subject: Subject, field: Landscape, activation_format: str, progress: Progress
) -> dict[str, float]:
    """Tied set, by its first tensor -> measured rise with that set alone quantized.

    Sets behind the point where the loss is taken (a final softmax) are 0.
    """
    placement, ranges = subject.activations(activation_format)
    quantizers = _quantizers(subject, placement, ranges)
    names = {INPUT, *(step.name for step in field.network.steps)}
    start = field.value({})
    found: dict[str, float] = {}
    sets = [root for root in ranges if root not in placement.parameters]
    for root in progress.track(sets, f"activations in {activation_format}"):
        of = {name: root for name, own in placement.quantizer_of.items() if own == root}
        tied = {name: root for name in of if name in names}
        if root not in subject.network.constant_names:
            found[root] = _with(field, tied, {root: quantizers[root]}).value({}) - start
    return found


def _with(field: Landscape, tied: dict[str, str], made: dict[str, torch.nn.Module]) -> Landscape:
    """The same landscape, with quantizers behind some tensors."""
    network = field.network
    layers = {step.name: network.layer(step.name) for step in network.layer_steps()}
    quantizing = Network(network.steps, layers, network.constants(), made, tied)
    return Landscape(
        quantizing, field.beta, field.inputs, field.targets, field.loss, field.batch_size
    )


def _quantizers(
    subject: Subject, placement: Placement, ranges: Mapping[str, Affine]
) -> dict[str, torch.nn.Module]:
    """The quantizer modules that the scored network has, by tied set."""
    scales = {}
    for step in subject.network.layer_steps():
        layer = subject.network.layer(step.name)
        fmt = placement.policy.groups[step.name].weight
        assert layer.bias is not None
        assert fmt is not None
        scale = ranges[placement.quantizer_of[step.inputs[0]]].scale
        arrays = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        scales[step.name] = find_scales(*arrays, scale, fmt, search=False)
    network = with_steps(subject.network, placement.steps)
    fake = fake_quantize(network, placement, ranges, scales)
    return {root: fake.quantizers[key(root)] for root in ranges}
