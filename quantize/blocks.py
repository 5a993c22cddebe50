"""Blocks: the shortest stretches of a network between tensors that alone carry everything on.

Behind a chain's every layer lies such a tensor, behind a residual block one after the
addition. What happens inside a block stays in it, so weights can be rounded block by block on
stored inputs (Li et al., "BRECQ", arXiv:2102.05426).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgesmith.quantize.network import INPUT, Network, Step, Visit, key

BATCH = 64


@dataclass(frozen=True, eq=False)
class Block:
    """The same steps of the float network and of the fake-quantized one, which share layers.

    Args:
        open: the fake-quantized steps, but for the quantizer of the block's output.
        inputs: what the float block gets on the calibration samples, [N, ...].
        fake_inputs: what the other one gets, with all earlier weights as they are now.
    """

    floating: Network
    fake: Network
    open: Network
    inputs: Tensor
    fake_inputs: Tensor

    @property
    def layers(self) -> tuple[Step, ...]:
        return self.fake.layer_steps()


def split(network: Network) -> Iterator[tuple[Step, ...]]:
    """The network's steps, cut wherever later ones read no tensor but the last."""
    last = {name: index for index, step in enumerate(network.steps) for name in step.inputs}
    live = {INPUT}
    begin = 0
    for index, step in enumerate(network.steps):
        live = {name for name in live | {step.name} if last.get(name, -1) > index}
        if live <= {step.name}:
            yield network.steps[begin : index + 1]
            begin = index + 1


@torch.no_grad()
def round_by_blocks(
    floating: Network, fake: Network, samples: Tensor, treat: Callable[[Block], None]
) -> None:
    """Call `treat` for every block that has layers, in order, each after the one before.

    Args:
        samples: calibration inputs [N, *sample shape]; values between blocks are kept for all
            of them, of both networks.
    """
    source = INPUT
    inputs, fake_inputs = samples, samples
    for steps in split(fake):
        block = Block(
            _part(floating, steps, source),
            _part(fake, steps, source),
            _part(fake, steps, source, unquantized=steps[-1].name),
            inputs,
            fake_inputs,
        )
        if block.layers:
            treat(block)
        inputs, fake_inputs = run(block.floating, inputs), run(block.fake, fake_inputs)
        source = steps[-1].name


@torch.no_grad()
def run(network: Network, inputs: Tensor, visit: Visit | None = None) -> Tensor:
    """Outputs for all inputs, batch by batch."""
    return torch.cat([network(batch, visit) for batch in torch.split(inputs, BATCH)])


def _part(network: Network, steps: tuple[Step, ...], source: str, unquantized: str = "") -> Network:
    """A network of some steps over the same layers and quantizers; `source` is its input."""
    read = {name for step in steps for name in step.inputs}
    made = {step.name for step in steps} | ({INPUT} if source == INPUT else set())
    made.discard(unquantized)
    quantizer_of = {name: root for name, root in network.quantizer_of.items() if name in made}
    return Network(
        [
            replace(step, inputs=tuple(INPUT if n == source else n for n in step.inputs))
            for step in steps
        ],
        {step.name: network.layer(step.name) for step in network.layer_steps() if step in steps},
        {name: network.constant(name) for name in network.constant_names if name in read},
        {root: network.quantizers[key(root)] for root in set(quantizer_of.values())},
        quantizer_of,
    )
