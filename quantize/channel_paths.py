"""Which input channels of later layers are which output channels of a step, times nothing else.

Every element of the step's output is given its channel's number, and the operators behind it
are run on the numbers: operators that move, pool or mix positions keep them, and a matrix
product hands on those of one operand. A number that reaches anything else, an addition or the
network's output, is frozen: that channel cannot be scaled alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgesmith.quantize import ops
from edgesmith.quantize.network import Network, Step

_NONE = 0  # number of padding, which is zero whatever the scale
_KEEPING = (
    *(ops.Reshape, ops.Transpose, ops.Pad, ops.Slice, ops.Resize),
    *(ops.Relu, ops.Pool, ops.Mean, ops.Requantize),
)


@dataclass(frozen=True, eq=False)
class Sink:
    """A layer that reads the channels.

    Args:
        numbers: of each of its input channels, from 1; 0 where it is only padding.
    """

    step: Step
    numbers: Tensor


@dataclass
class Paths:
    """Where the output channels of one step lead.

    Args:
        free: per channel, whether it reaches layers only.
    """

    free: Tensor
    sinks: list[Sink] = field(default_factory=list)


def channel_axis(step: Step, rank: int) -> int:
    """The axis of a layer's input or output, of that many axes, that holds its channels."""
    return 1 if isinstance(step.op, ops.Conv) else rank - 1


def follow(network: Network, source: Step, shapes: dict[str, tuple[int, ...]]) -> Paths:
    """Follow every output channel of a step.

    Args:
        shapes: of every tensor, for one sample.
    """
    shape = shapes[source.name]
    axis = channel_axis(source, len(shape))
    view = [1] * len(shape)
    view[axis] = -1
    numbers = torch.arange(1, shape[axis] + 1, dtype=torch.float64).reshape(view).expand(shape)
    paths = Paths(torch.ones(shape[axis], dtype=torch.bool))
    found = {source.name: numbers}
    begin = network.steps.index(source) + 1
    for step in network.steps[begin:]:
        marked = [name for name in step.inputs if name in found]
        if not marked:
            continue
        if len(marked) == 1:
            made = _through(step, found[marked[0]], marked[0], shapes, paths)
            if made is not None:
                found[step.name] = made
                continue
            if isinstance(step.op, ops.Layer):
                continue
        for name in marked:
            _freeze(paths, found[name])
    if network.output in found:
        _freeze(paths, found[network.output])
    return paths


def _through(
    step: Step, numbers: Tensor, name: str, shapes: dict[str, tuple[int, ...]], paths: Paths
) -> Tensor | None:
    """Numbers of the step's output; None where they end, in a sink or because they mix."""
    if isinstance(step.op, ops.Layer):
        per_channel = _constant_but(numbers, channel_axis(step, numbers.ndim))
        if per_channel is None:
            _freeze(paths, numbers)
        else:
            paths.sinks.append(Sink(step, per_channel.long()))
        return None
    if step.activation is not None:
        return None
    if isinstance(step.op, ops.MatMul):
        contracted = -1 if step.inputs[0] == name else -2
        kept = numbers.narrow(contracted, 0, 1)
        return kept.expand(shapes[step.name]) if bool((numbers == kept).all()) else None
    if not isinstance(step.op, _KEEPING):
        return None
    moved = step.op.run(numbers)
    # An average of equal numbers has the same square; one of different numbers has not.
    mixed = (step.op.run(numbers.square()) - moved.square()).abs().max() > 1e-6
    return None if mixed else moved.round()


def _constant_but(numbers: Tensor, axis: int) -> Tensor | None:
    """The number of every channel, if each has one alone, padding aside."""
    rows = numbers.movedim(axis, 0).reshape(numbers.shape[axis], -1)
    largest = rows.amax(1)
    same = (rows == largest.unsqueeze(1)) | (rows == _NONE)
    return largest if bool(same.all()) else None


def _freeze(paths: Paths, numbers: Tensor) -> None:
    present = numbers.unique().long()
    paths.free[present[present != _NONE] - 1] = False
