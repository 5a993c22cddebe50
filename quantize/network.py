"""The normalized network: a list of steps over named tensors, run by one small torch module.

A step is one operator with, where TFLite can fuse it, the clamp behind it. The
same class runs the float network (no quantizers, plain layers) and the
fake-quantized one (Brevitas layers, one quantizer after every step).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgesmith.quantize.channel_statistics import Statistics
from edgesmith.quantize.ops import Activation, Conv, Layer, Linear, Op

INPUT = "input"
"""Name of the network's input tensor."""

Visit = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Step:
    """One fusable group: `name` is also the name of its output tensor.

    `inputs` name the input, earlier steps or constants.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    activation: Activation | None = None


def key(name: str) -> str:
    """A tensor's name as torch allows it as a module or buffer name."""
    return name.replace(".", "/")


def float_module(op: Conv | Linear) -> nn.Conv1d | nn.Conv2d | nn.Linear:
    """A plain torch layer with bias and the operator's attributes, weights not yet set."""
    # Built without storage, so that no random number is drawn for weights that are set anyway.
    if isinstance(op, Linear):
        return nn.Linear(op.in_features, op.out_features, device="meta").to_empty(device="cpu")
    kind = nn.Conv1d if len(op.kernel) == 1 else nn.Conv2d
    return kind(**conv_arguments(op), device="meta").to_empty(device="cpu")


def conv_arguments(op: Conv) -> dict[str, Any]:
    """The attributes of a convolution, as torch's and Brevitas' layers take them."""
    return {
        "in_channels": op.in_channels,
        "out_channels": op.out_channels,
        "kernel_size": op.kernel,
        "stride": op.stride,
        "padding": op.padding,
        "dilation": op.dilation,
        "groups": op.groups,
        "bias": True,
    }


class Network(nn.Module):
    """Runs steps on a batch [N, *sample shape]; float32 in and out.

    Args:
        steps: in execution order; the last one is the output.
        layers: step name -> torch or Brevitas layer, for every `Layer` step.
        constants: constant name -> values.
        quantizers: quantizer name -> module; empty in a float network.
        quantizer_of: tensor name -> quantizer name, for the input and every step.
        statistics: layer step -> what the batch norm that was folded into it knew of its output.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        layers: Mapping[str, nn.Module],
        constants: Mapping[str, Tensor],
        quantizers: Mapping[str, nn.Module] | None = None,
        quantizer_of: Mapping[str, str] | None = None,
        statistics: Mapping[str, Statistics] | None = None,
    ) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.layers = nn.ModuleDict({key(name): layer for name, layer in layers.items()})
        self.constant_names = tuple(constants)
        for name, value in constants.items():
            self.register_buffer(f"constant:{key(name)}", value.detach().clone())
        self.quantizers = nn.ModuleDict({key(n): q for n, q in (quantizers or {}).items()})
        self.quantizer_of = dict(quantizer_of or {})
        self.statistics = dict(statistics or {})
        self._last_use = {name: step.name for step in self.steps for name in step.inputs}
        self.eval()

    @property
    def output(self) -> str:
        return self.steps[-1].name

    def layer(self, name: str) -> nn.Conv1d | nn.Conv2d | nn.Linear:
        """The layer that runs a step; Brevitas layers are subclasses of torch's."""
        layer = self.layers[key(name)]
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)
        return layer

    def constant(self, name: str) -> Tensor:
        return self.get_buffer(f"constant:{key(name)}")

    def constants(self) -> dict[str, Tensor]:
        return {name: self.constant(name) for name in self.constant_names}

    def layer_steps(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if isinstance(step.op, Layer))

    def forward(self, x: Tensor, visit: Visit | None = None) -> Tensor:
        """The output; `visit` sees the input and every step's output, by name, in order."""
        values = self.constants()
        values[INPUT] = self._quantized(INPUT, x)
        if visit is not None:
            visit(INPUT, values[INPUT])
        for step in self.steps:
            values[step.name] = self.compute(step, [values[name] for name in step.inputs])
            if visit is not None:
                visit(step.name, values[step.name])
            for name in step.inputs:
                if self._last_use[name] == step.name:
                    values.pop(name, None)
        return values[self.output]

    def compute(self, step: Step, operands: list[Tensor]) -> Tensor:
        """What a step makes of its operands, through its quantizer."""
        if isinstance(step.op, Layer):
            result: Tensor = self.layers[key(step.name)](*operands)
        else:
            result = step.op.run(*operands)
        result = result if step.activation is None else step.activation.run(result)
        return self._quantized(step.name, result)

    def _quantized(self, name: str, value: Tensor) -> Tensor:
        quantizer = self.quantizer_of.get(name)
        if quantizer is None:
            return value
        quantized: Tensor = self.quantizers[key(quantizer)](value)
        return quantized


@torch.no_grad()
def shapes(
    network: Network, sample_shape: tuple[int, ...], batch: int = 1
) -> dict[str, tuple[int, ...]]:
    """Shape of the input and of every step's output."""
    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, value: Tensor) -> None:
        found[name] = tuple(value.shape)

    network(torch.zeros(batch, *sample_shape), visit)
    return found


def batch_axes(network: Network, sample_shape: tuple[int, ...]) -> dict[str, int]:
    """Along which axis the input and every step's output hold the samples."""
    one, two = (shapes(network, sample_shape, batch) for batch in (1, 2))
    return {
        name: next(axis for axis, size in enumerate(shape) if size != two[name][axis])
        for name, shape in one.items()
    }


def with_steps(network: Network, steps: Iterable[Step]) -> Network:
    """A float network with other steps over the same layers and constants."""
    layers = {step.name: network.layer(step.name) for step in network.layer_steps()}
    return Network(steps, layers, network.constants(), statistics=network.statistics)
