"""What an operator costs by its shapes alone: multiply-accumulates and weight bytes."""

from __future__ import annotations

import math

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.exported import OnnxOp
from edgesmith.targets.graph.ir import Graph, Op


def macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of one inference; 0 for operators that multiply nothing."""
    result = graph[op.output]
    if isinstance(op, ir.Conv2D | ir.DepthwiseConv2D):
        _, height, width, channels = graph[op.inputs[1]].shape
        per_output = height * width * (channels if isinstance(op, ir.Conv2D) else 1)
        return result.elements * per_output
    if isinstance(op, ir.FullyConnected):
        return result.elements * graph[op.inputs[1]].shape[1]
    if isinstance(op, OnnxOp):
        return op.macs
    if isinstance(op, ir.BatchMatMul):
        shape = graph[op.inputs[0]].shape
        return result.elements * shape[-2 if op.adjoint_x else -1]
    return result.elements if isinstance(op, ir.Mul) else 0


def weight_bytes(graph: Graph, op: Op) -> int:
    """Stored bytes of the operator's constants, sub-byte codes packed."""
    return sum(tensor.bytes for tensor in graph.operands(op) if tensor and tensor.is_constant)


def weight_bits(graph: Graph, op: Op) -> int | None:
    """Bits per weight, or None for operators without weights."""
    operands = graph.operands(op)
    weight = operands[1] if len(operands) > 1 else None
    return weight.dtype.bits if weight is not None and weight.is_constant else None


def largest_live_bytes(graph: Graph) -> int:
    """Most activation bytes alive at once when operators run in order: a bound on any arena."""
    last = {name: position for position, op in enumerate(graph.ops) for name in op.inputs if name}
    last |= dict.fromkeys(graph.outputs, len(graph.ops))
    born = dict.fromkeys(graph.inputs, 0) | {
        name: position for position, op in enumerate(graph.ops) for name in op.outputs
    }
    change = [0] * (len(graph.ops) + 2)
    for name, start in born.items():
        size = math.prod(graph[name].shape) * graph[name].dtype.bits // 8
        change[start] += size
        change[last.get(name, start) + 1] -= size
    live = peak = 0
    for delta in change:
        live += delta
        peak = max(peak, live)
    return peak
