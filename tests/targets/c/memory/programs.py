"""Small programs for the planner's tests: written by hand, drawn, and from MLPerf files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgesmith.targets.c.program import Call, Overlap, Program, Storage, Struct, View
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Graph, Op

ALIASES = (ir.Reshape,)


def call(
    name: str,
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    *,
    scratch: int = 0,
    overlaps: Mapping[str, Overlap] | None = None,
) -> Call:
    """A call of no kernel in particular."""
    nothing = Struct("es_args", ())
    return Call(
        name, "Op", "es_op", (), nothing, reads, writes, scratch, dict(overlaps or {}), macs=0
    )


def program(
    calls: tuple[Call, ...],
    sizes: Mapping[str, int],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    *,
    views: Mapping[str, View] | None = None,
    alignment: int = 1,
) -> Program:
    storages = {name: Storage(name, size, alignment) for name, size in sizes.items()}
    return Program(calls, storages, dict(views or {}), inputs, outputs)


def drawn_program(rng: np.random.Generator, calls: int, largest: int) -> Program:
    """A random program: every call reads one to three tensors in use, some die, some overlap."""
    sizes = {"t0": int(rng.integers(1, largest + 1))}
    alive, made = ["t0"], []
    for time in range(calls):
        count = min(len(alive), int(rng.integers(1, 4)))
        reads = tuple(str(name) for name in rng.choice(alive, count, replace=False))
        target = f"t{time + 1}"
        sizes[target] = int(rng.integers(1, largest + 1))
        overlaps = {
            name: Overlap(int(rng.integers(-2, largest)), bool(rng.random() < 0.3))
            for name in reads
            if rng.random() < 0.6
        }
        scratch = int(rng.integers(1, largest + 1)) if rng.random() < 0.2 else 0
        made.append(call(f"c{time}", reads, (target,), scratch=scratch, overlaps=overlaps))
        alive = [name for name in alive if name not in reads or rng.random() < 0.3] + [target]
    return program(
        tuple(made),
        sizes,
        ("t0",),
        (f"t{calls}",),
        alignment=int(rng.choice([1, 1, 2, 4])),
    )


def lowered(
    graph: Graph, views: Mapping[str, View] | None = None, *, dense: bool = True
) -> Program:
    """A program by simple rules: what lowerings do, without kernels.

    Windows and element-wise operators may write over their dying input at the distance that
    a kernel needs which writes an output pixel after it read its window.
    """
    placed = dict(views or {})
    calls = []
    for op in graph.ops:
        reads = tuple(name for name in op.inputs if name and not graph[name].is_constant)
        if isinstance(op, ALIASES):
            placed[op.output] = View(reads[0], 0)
            continue
        overlaps = {name: over for name in reads if (over := overlap_of(graph, op, name))}
        calls.append(call(op.name, reads, op.outputs, overlaps=overlaps if dense else {}))
    storages = {
        tensor.name: Storage(tensor.name, tensor.bytes)
        for tensor in graph.tensors.values()
        if not tensor.is_constant and tensor.name not in placed
    }
    return Program(tuple(calls), storages, placed, graph.inputs, graph.outputs)


def overlap_of(graph: Graph, op: Op, name: str) -> Overlap | None:
    """How a kernel that goes pixel by pixel may lay its output over this input."""
    source, target = graph[name], graph[op.output]
    if source.bytes == target.bytes and isinstance(op, ir.Add | ir.Mul | ir.Relu | ir.HardSwish):
        return Overlap(0)
    if isinstance(op, ir.DepthwiseConv2D) and source.bytes == target.bytes:
        return Overlap(0, exact=True)
    if isinstance(op, ir.Conv2D | ir.DepthwiseConv2D):
        _, kernel_h, kernel_w, _ = graph[op.inputs[1]].shape
        return Overlap(_distance(graph, op, (kernel_h, kernel_w), op.stride, op.padding))
    if isinstance(op, ir.AveragePool2D | ir.MaxPool2D):
        return Overlap(_distance(graph, op, op.kernel, op.stride, op.padding))
    return None


def _distance(
    graph: Graph, op: Op, kernel: tuple[int, int], stride: tuple[int, int], padding: ir.Padding
) -> int:
    """Least address(input) - address(output) such that no pixel is overwritten before its use."""
    _, height, width, channels = graph[op.inputs[0]].shape
    _, rows, columns, depth = graph[op.output].shape
    needed, distance = height * width * channels, 0
    for pixel in reversed(range(rows * columns)):
        row, column = divmod(pixel, columns)
        distance = max(distance, (pixel + 1) * depth - needed)
        top = max(0, row * stride[0] - padding.top)
        left = max(0, column * stride[1] - padding.left)
        needed = min(needed, (top * width + left) * channels)
    return distance
