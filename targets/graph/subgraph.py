"""One operator as a graph of its own: for teacher-forced comparison and per-layer measurement."""

from __future__ import annotations

from dataclasses import replace

from edgesmith.targets.graph.ir import Graph, Op, Quantize, Tensor


def single_op(graph: Graph, op: Op) -> Graph:
    """`op` alone; its activations become graph inputs, its constants stay."""
    names = [name for name in dict.fromkeys(op.inputs) if name]
    inputs = tuple(name for name in names if not graph[name].is_constant)
    tensors = {name: graph[name] for name in (*names, *op.outputs)}
    return Graph(op.name, tensors, (op,), inputs, op.outputs)


def conversion(source: Tensor, wanted: Tensor) -> tuple[Op, Graph] | None:
    """The Quantize between two layers, alone: `source` as one gives it, `wanted` as the other
    takes it. None where both have the same format.
    """
    same = source.quantization is not None and source.q.same_as(wanted.quantization)
    if source.dtype is wanted.dtype and same:
        return None
    given = replace(source, name="given", data=None)
    made = replace(wanted, name="wanted", shape=source.shape, data=None)
    op = Quantize(source.name, (given.name,), (made.name,))
    tensors = {given.name: given, made.name: made}
    return op, Graph("edge", tensors, (op,), (given.name,), (made.name,))
