"""What decides how long a graph takes on a runtime: its operators, shapes and formats.

Codes, scales and names do not. What a runtime may fuse by, it sees in the graph: whether the
zero point of an activation is the least code (a clamp at zero is then no work) is kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

from edgesmith.pipeline.jsonvalue import to_data
from edgesmith.pipeline.spec import canonical_json
from edgesmith.targets.graph.ir import Graph, Op, Tensor

_NAMES = {field.name for field in fields(Op)}


def structure(graph: Graph) -> dict[str, Any]:
    """A graph without its values, JSON-ready; tensors are numbered in order of their use."""
    numbers: dict[str, int] = {}
    tensors: list[list[Any]] = []

    def number(name: str) -> int | None:
        if not name:
            return None
        if name not in numbers:
            numbers[name] = len(tensors)
            tensors.append(_tensor(graph[name]))
        return numbers[name]

    ops = [
        [op.kind, _attributes(op), [number(n) for n in op.inputs], [number(n) for n in op.outputs]]
        for op in graph.ops
    ]
    edges = [[number(name) for name in names] for names in (graph.inputs, graph.outputs)]
    return {"ops": ops, "tensors": tensors, "edges": edges}


def key_of(description: dict[str, Any]) -> str:
    """SHA-256 of a JSON-ready description."""
    return hashlib.sha256(canonical_json(description).encode()).hexdigest()


def _attributes(op: Op) -> dict[str, Any]:
    return {key: value for key, value in to_data(op).items() if key not in _NAMES}


def _tensor(tensor: Tensor) -> list[Any]:
    found: list[Any] = [tensor.dtype.value, list(tensor.shape), tensor.is_constant]
    q = tensor.quantization
    if q is None:
        return found
    if q.is_per_channel:
        return [*found, "per channel"]
    return [*found, bool(q.zero_point[0] == tensor.dtype.qmin)]
