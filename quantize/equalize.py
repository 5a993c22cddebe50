"""Cross-layer equalization: the same function, with weight ranges evened out between layers.

The algorithm and the code are Brevitas' (`EqualizeGraph`): for layers joined by
operators that commute with a positive scale per channel, output channel i of the
first is multiplied by s_i and input channel i of the second divided by it.
Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv:1906.04721, section 4.1.

What is ours is the graph that Brevitas is shown: only operators for which the
scaling is exact appear as such (it would take any product, and a linear layer
over another axis than the channels, for one), and a check that the network still
computes the same.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor, fx, nn

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.quantize.brevitas_tools import EqualizeGraph
from edgesmith.quantize.network import INPUT, Network, Step, shapes, with_steps
from edgesmith.quantize.ops import Add, Layer, Linear, Relu

TOLERANCE = 1e-3
"""Largest accepted change of an output, relative to the largest output."""


@torch.no_grad()
def equalize(network: Network, samples: Tensor) -> None:
    """Equalize a float network in place.

    Args:
        samples: a few inputs [n, *sample shape] for the check.

    Raises:
        QuantizationError: the equalized network computes something else.
    """
    before = network(samples)
    sample_shape = tuple(samples.shape[1:])
    sizes_before = _sizes(network, sample_shape) if network.statistics else {}
    EqualizeGraph().apply(_view(network, sample_shape))
    worst = float((network(samples) - before).abs().max())
    if not worst <= TOLERANCE * max(1.0, float(before.abs().max())):
        raise QuantizationError(
            f"cross-layer equalization changed the network's output by {worst:.3g}",
            fix="set `equalize: false`, and report the model's structure",
        )
    if network.statistics:
        sizes = _sizes(network, sample_shape)
        for name, each in network.statistics.items():
            factor = sizes[name] / sizes_before[name]
            # A channel of zeros has no size, and stays one whatever its factor is.
            network.statistics[name] = each.scaled(torch.where(factor.isfinite(), factor, 1.0))


def _sizes(network: Network, sample_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Size of every channel that has statistics; equalization scales both alike.

    Brevitas does not tell its factors. Relus, which commute with them, are left out so that
    no channel is silent.
    """
    steps = (
        replace(step, activation=None) if isinstance(step.activation, Relu) else step
        for step in network.steps
    )
    linear = {step.name for step in network.steps if isinstance(step.op, Linear)}
    probe = copy.deepcopy(with_steps(network, steps)).double()
    found: dict[str, Tensor] = {}

    def visit(name: str, value: Tensor) -> None:
        if name in network.statistics:
            axis = value.ndim - 1 if name in linear else 1
            found[name] = value.abs().sum([each for each in range(value.ndim) if each != axis])

    generator = torch.Generator().manual_seed(0)
    probe(torch.randn(4, *sample_shape, dtype=torch.float64, generator=generator), visit)
    return found


def _opaque(*operands: object) -> NoReturn:
    """Stands in the view for every operator that equalization may not cross."""
    raise NotImplementedError


def _view(network: Network, sample_shape: tuple[int, ...]) -> fx.GraphModule:
    """The network as Brevitas may see it; it shares the layers, and is never run."""
    sizes = shapes(network, sample_shape)
    graph = fx.Graph()
    modules: dict[str, nn.Module] = {"equivariant": nn.ReLU()}
    tensors = (INPUT, *network.constant_names)
    nodes = {name: graph.placeholder(f"tensor_{i}") for i, name in enumerate(tensors)}
    for index, step in enumerate(network.steps):
        operands = tuple(nodes[name] for name in step.inputs)
        if isinstance(step.op, Layer) and not _over_last_axis(step, sizes):
            modules[f"layer_{index}"] = network.layer(step.name)
            node = graph.call_module(f"layer_{index}", operands)
        elif step.op.homogeneous:
            node = graph.call_module("equivariant", operands)
        elif isinstance(step.op, Add) and len({sizes.get(name) for name in step.inputs}) == 1:
            node = graph.call_function(torch.add, operands)
        else:
            node = graph.call_function(_opaque, operands)
        if step.activation is not None:
            homogeneous = isinstance(step.activation, Relu)
            node = (
                graph.call_module("equivariant", (node,))
                if homogeneous
                else graph.call_function(_opaque, (node,))
            )
        nodes[step.name] = node
    graph.output(nodes[network.output])
    return fx.GraphModule(modules, graph)


def _over_last_axis(step: Step, sizes: dict[str, tuple[int, ...]]) -> bool:
    """A linear layer whose channels are not axis 1."""
    return isinstance(step.op, Linear) and len(sizes[step.name]) > 2
