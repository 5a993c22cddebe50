"""Quantization without data: ranges and bias correction from batch-norm statistics.

Ranges are those of `moments.py`. The bias correction is the analytic one: for weights that
are rounded by dW, layer outputs shift by dW E[x] on average, which is taken off the bias.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv:1906.04721, section 4.2. Own implementation: Brevitas corrects biases on
calibration data only, and folds batch norms without keeping their statistics.
"""

from __future__ import annotations

import torch

from edgesmith.quantize import ops
from edgesmith.quantize.moments import moments, run_layer
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import DataFree
from edgesmith.quantize.placement import Placement


def statistical_ranges(
    network: Network, placement: Placement, sample_shape: tuple[int, ...], options: DataFree
) -> dict[str, tuple[float, float]]:
    """The range of every quantizer that is not fixed, from the tensors that bring its values.

    Args:
        network: the float network with the placement's steps.

    Raises:
        QuantizationError: batch norms do not tell them.
    """
    found = moments(network, sample_shape, options)
    return {
        quantizer: (
            min(float(found[name].low.min()) for name in names),
            max(float(found[name].high.max()) for name in names),
        )
        for quantizer, names in placement.observed.items()
    }


@torch.no_grad()
def correct_biases_analytically(
    floating: Network, fake: Network, sample_shape: tuple[int, ...], options: DataFree
) -> None:
    """Change the biases of a fake-quantized network in place.

    Layers that read the network's input, whose mean nobody knows, are left alone.
    """
    found = moments(floating, sample_shape, options)
    for step in fake.layer_steps():
        x = found[step.inputs[0]]
        if not x.known:
            continue
        layer = fake.layer(step.name)
        quantized = layer.weight_quant(layer.weight).value  # type: ignore[operator]
        error = quantized.double() - floating.layer(step.name).weight.double()
        shift = run_layer(floating.layer(step.name), x.mean, error)
        axis = shift.ndim - 1 if isinstance(step.op, ops.Linear) else 1
        others = [each for each in range(shift.ndim) if each != axis]
        assert layer.bias is not None
        layer.bias -= shift.mean(others).float()
