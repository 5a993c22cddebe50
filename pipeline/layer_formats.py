"""Formats, zeros and widths of every layer, read from the graph that ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.results import LayerFormats, LayerRow
from edgesmith.pipeline.values import FLOAT8_STORAGE, Granularity, Policy, QFormat
from edgesmith.targets.graph.ir import Graph, Op, Tensor

if TYPE_CHECKING:
    from edgesmith.prune.values import PruneResult

POLICY = "policy.json"
_WEIGHT = ".weight"


def read_policy(quantized: Path | None) -> Policy:
    """The formats that the quantize stage chose; none where the model came as a file."""
    path = None if quantized is None else quantized / POLICY
    if path is None or not path.exists():
        return Policy({})
    return from_json(Policy, path.read_bytes())


def with_formats(
    rows: Sequence[LayerRow], graph: Graph, policy: Policy, pruned: PruneResult | None
) -> tuple[LayerRow, ...]:
    """The rows with the formats of their operators.

    Args:
        graph: as read back from the artifact.
        policy: names formats that a wider type stores, such as int3; others are their storage.
    """
    widths = {each.layer: (each.before, each.after) for each in pruned.widths} if pruned else {}
    return tuple(
        replace(row, formats=layer_formats(graph, graph.ops[row.index], policy, widths))
        for row in rows
    )


def layer_formats(
    graph: Graph, op: Op, policy: Policy, widths: dict[str, tuple[int, int]]
) -> LayerFormats:
    """The formats of one operator; its weights are its second operand, where that is constant."""
    operands = graph.operands(op)
    second = operands[1] if len(operands) > 1 else None
    weight = second if second is not None and second.is_constant else None
    source = next((each for each in operands if each is not None and not each.is_constant), None)
    layer = (weight.name if weight is not None else op.name).removesuffix(_WEIGHT)
    found = LayerFormats(
        reads=_activation(source or graph[op.output], policy),
        writes=_activation(graph[op.output], policy),
        weight=None,
        per_channel=False,
        weights=0,
        zeros=0,
        code_bytes=0,
        channels=widths.get(layer),
    )
    if weight is None:
        return found
    group = policy.groups.get(layer)
    fmt = group.weight if group is not None else None
    return replace(
        found,
        weight=_stored(weight) if fmt is None else fmt.name,
        per_channel=_per_channel(weight, fmt),
        weights=weight.elements,
        zeros=zero_codes(weight),
        code_bytes=weight.bytes,
    )


def zero_codes(tensor: Tensor) -> int:
    """How many codes of a constant stand for exactly zero."""
    assert tensor.data is not None
    if tensor.dtype.is_float8:
        return int(np.sum((tensor.data.astype(np.uint8) & 0x7F) == 0))  # of both signs
    if tensor.quantization is None:
        return int(np.sum(tensor.data == 0))
    zero, axis = tensor.quantization.zero_point, tensor.quantization.axis
    shape = [1] * tensor.data.ndim
    if axis is not None:
        shape[axis] = -1
    return int(np.sum(tensor.data == zero.reshape(shape if zero.size > 1 else -1)))


def _activation(tensor: Tensor, policy: Policy) -> str:
    """A format's name, without what holds for every activation."""
    group = policy.groups.get(tensor.name)
    if group is not None and group.activation.activation_storage == str(tensor.dtype):
        return group.activation.name
    return _stored(tensor)


def _stored(tensor: Tensor) -> str:
    """The name of the format that a storage type is for."""
    fmt = FLOAT8_STORAGE.get(str(tensor.dtype))
    return str(tensor.dtype) if fmt is None else fmt.name


def _per_channel(weight: Tensor, fmt: QFormat | None) -> bool:
    if fmt is not None:
        return fmt.granularity is Granularity.PER_CHANNEL
    return weight.quantization is not None and weight.quantization.scale.size > 1
