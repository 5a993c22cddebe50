"""A legal graph in the operators that lowerings take one by one; it computes the same codes.

reshape(constant)        = a constant
concat(a, b, ..., z)     = concat(concat(a, ...), ..., concat(..., z)), no more operands
each than the kernel has pointers
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from edgesmith.targets.c.lowerings.movement import SLOTS
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Graph, Op, Tensor
from edgesmith.targets.graph.shapes import infer


def prepared(graph: Graph) -> Graph:
    """The graph that is lowered: with its tensors and, where operators were split, more."""
    tensors = dict(graph.tensors)
    ops: list[Op] = []
    for op in graph.ops:
        if _is_constant(op, tensors) and op.output not in graph.outputs:
            data = tensors[op.inputs[0]].data
            assert data is not None
            made = tensors[op.output]
            tensors[op.output] = replace(made, data=data.reshape(made.shape))
        elif isinstance(op, ir.Concat):
            ops += _in_groups(op, tensors)
        else:
            ops.append(op)
    return graph if tuple(ops) == graph.ops else replace(graph, ops=tuple(ops), tensors=tensors)


def _is_constant(op: Op, tensors: dict[str, Tensor]) -> bool:
    return isinstance(op, ir.Reshape) and tensors[op.inputs[0]].is_constant


def _in_groups(op: ir.Concat, tensors: dict[str, Tensor]) -> Iterator[ir.Concat]:
    """The concatenation behind those that it is made of; their results join `tensors`."""
    if len(op.inputs) > SLOTS:
        groups = math.ceil(len(op.inputs) / SLOTS)
        size = math.ceil(len(op.inputs) / groups)
        joined = []
        for number in range(groups):
            group = op.inputs[number * size : (number + 1) * size]
            name = f"{op.output}/joined{number}"
            while name in tensors:
                name += "_"
            part = replace(op, name=name, inputs=group, outputs=(name,))
            (shape,) = infer(part, [tensors[each] for each in group])
            tensors[name] = replace(tensors[op.output], name=name, shape=shape)
            joined.append(name)
            yield part
        yield from _in_groups(replace(op, inputs=tuple(joined)), tensors)
    else:
        yield op
