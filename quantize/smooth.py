"""SmoothQuant: outliers of activation channels move into weights, where they round finer.

Of the channels between a layer or layer norm and the layers that read them, channel j is
divided by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) at its source and multiplied by it in
the weights that read it: the same function. `channel_paths.py` finds where that is exact:
behind layer norms, between layers, and from attention's values to its projection, through
heads, reshapes and the product with the attention weights.

Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", arXiv:2211.10438. Brevitas has it (`GraphActivationEqualization`) for torch.fx
graphs of modules that it runs itself, and does not cross attention; Neural Compressor's needs
Intel's extension for PyTorch. So this is our own.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.quantize import ops
from edgesmith.quantize.blocks import run
from edgesmith.quantize.channel_paths import Paths, Sink, channel_axis, follow
from edgesmith.quantize.network import Network, Step, shapes
from edgesmith.quantize.options import SmoothQuant

TOLERANCE = 1e-3
"""Largest accepted change of an output, relative to the largest output."""
_SMALLEST = 1e-5
"""Channels are taken for no smaller than this share of the largest."""


@torch.no_grad()
def migrate(network: Network, samples: Tensor, options: SmoothQuant) -> int:
    """Migrate outliers of a float network in place; how many channels have a factor.

    Args:
        samples: calibration inputs [N, *sample shape]; the first `options.samples` are used.

    Raises:
        QuantizationError: the network computes something else afterwards.
    """
    samples = samples[: options.samples]
    before = run(network, samples)
    sizes = shapes(network, tuple(samples.shape[1:]))
    found = [(step, follow(network, step, sizes)) for step in _sources(network)]
    found = [(step, paths) for step, paths in found if paths.sinks and paths.free.any()]
    peaks = _peaks(network, samples, {s.step.inputs[0] for _, paths in found for s in paths.sinks})
    for step, paths in found:
        _move(network, step, paths, peaks, options.alpha)
    worst = float((run(network, samples) - before).abs().max())
    if not worst <= TOLERANCE * max(1.0, float(before.abs().max())):
        raise QuantizationError(
            f"migrating activation outliers changed the network's output by {worst:.3g}",
            fix="leave `smooth_quant` out, and report the model's structure",
        )
    return sum(int(paths.free.sum()) for _, paths in found)


def _sources(network: Network) -> list[Step]:
    """Layers whose activation commutes with positive factors, and layer norms."""
    uses = Counter(name for step in network.steps for name in step.inputs)
    return [
        step
        for step in network.steps
        if (isinstance(step.op, ops.Layer) and isinstance(step.activation, ops.Relu | None))
        or (
            isinstance(step.op, ops.LayerNorm)
            and all(name in network.constant_names and uses[name] == 1 for name in step.inputs[1:])
        )
    ]


def _peaks(network: Network, samples: Tensor, names: set[str]) -> dict[str, Tensor]:
    """Largest magnitude of every position of tensors, over the samples' axis 0."""
    found: dict[str, Tensor] = {}

    def visit(name: str, value: Tensor) -> None:
        if name in names:
            largest = value.abs().amax(0)
            found[name] = torch.maximum(found[name], largest) if name in found else largest

    run(network, samples, visit)
    return found


def _move(
    network: Network, source: Step, paths: Paths, peaks: dict[str, Tensor], alpha: float
) -> None:
    channels = len(paths.free)
    activation, weight = torch.zeros(channels + 1), torch.zeros(channels + 1)
    for sink in paths.sinks:
        peak = peaks[sink.step.inputs[0]]
        axis = channel_axis(sink.step, peak.ndim + 1) - 1
        _largest(activation, sink, peak.movedim(axis, 0).reshape(peak.shape[axis], -1).amax(1))
        _largest(weight, sink, _columns(network, sink.step).abs().amax((1, 3)).flatten())
    movable = paths.free & (activation[1:] > 0) & (weight[1:] > 0)
    activation = activation.clamp_min(_SMALLEST * float(activation.max()))
    factors = activation.pow(alpha) / weight.clamp_min(_SMALLEST * float(weight.max())).pow(
        1 - alpha
    )
    factors[1:][~movable] = 1.0
    factors[0] = 1.0
    _divide(network, source, factors[1:])
    for sink in paths.sinks:
        columns = _columns(network, sink.step)
        columns *= factors[sink.numbers].reshape(columns.shape[0], 1, columns.shape[2], 1)


def _largest(values: Tensor, sink: Sink, found: Tensor) -> None:
    values.scatter_reduce_(0, sink.numbers, found, "amax")


def _columns(network: Network, step: Step) -> Tensor:
    """A view of a layer's weights [groups, outputs, inputs, kernel], of one group each."""
    weight = network.layer(step.name).weight.data
    groups = step.op.groups if isinstance(step.op, ops.Conv) else 1
    return weight.view(groups, weight.shape[0] // groups, weight.shape[1], -1)


def _divide(network: Network, source: Step, factors: Tensor) -> None:
    """Divide a step's output channels."""
    if isinstance(source.op, ops.LayerNorm):
        for name in source.inputs[1:]:
            network.constant(name).div_(factors)
        return
    layer = network.layer(source.name)
    assert layer.bias is not None
    layer.weight.data /= factors.reshape(-1, *[1] * (layer.weight.ndim - 1))
    layer.bias.data /= factors
    if source.name in network.statistics:
        statistics = network.statistics[source.name]
        network.statistics[source.name] = statistics.scaled(1 / factors.double())
