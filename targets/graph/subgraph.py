"""One operator as a graph of its own: for teacher-forced comparison and per-layer measurement."""

from __future__ import annotations

from edgesmith.targets.graph.ir import Graph, Op


def single_op(graph: Graph, op: Op) -> Graph:
    """`op` alone; its activations become graph inputs, its constants stay."""
    names = [name for name in dict.fromkeys(op.inputs) if name]
    inputs = tuple(name for name in names if not graph[name].is_constant)
    tensors = {name: graph[name] for name in (*names, *op.outputs)}
    return Graph(op.name, tensors, (op,), inputs, op.outputs)
