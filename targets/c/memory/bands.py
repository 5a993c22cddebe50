"""Patch-based execution in horizontal bands (after MCUNetV2, arXiv:2110.15352).

The first stages of a network have the largest tensors. Split the rows of a later, smaller
tensor into bands and compute band after band from the graph's inputs: only a band of every
tensor between exists at a time. In NHWC a range of rows is a range of bytes, so bands of
full width need no copies: they are views. What neighbouring bands both need is computed
twice; how much that costs is stated.

A stage is the first K operators if they all work row by row and only the last one's output
is used after them. Residual blocks are such stages too: a tensor read in several places is
computed for the hull of the rows that its readers need, and every reader sees its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.c.program import View
from edgesmith.targets.graph import costs, ir
from edgesmith.targets.graph.ir import Graph, Op, Padding, Tensor

ROWS = 1  # the axis of rows in NHWC

Rows = tuple[int, int]  # [first, end)

ELEMENTWISE = (
    ir.Relu,
    ir.Clip,
    ir.HardSwish,
    ir.Logistic,
    ir.Tanh,
    ir.Gelu,
    ir.LayerNorm,
    ir.Softmax,
    ir.Quantize,
)
BINARY = (ir.Add, ir.Sub, ir.Mul)
WINDOWED = (ir.Conv2D, ir.DepthwiseConv2D, ir.AveragePool2D, ir.MaxPool2D, ir.Pad)


@dataclass(frozen=True, eq=False)
class Banded:
    """A graph whose first stage runs in bands.

    Args:
        graph: the operators of every band, then those after the stage. Constants are shared.
            Tensors in `views` are not produced by an operator, or are produced in place.
        views: rows of graph inputs, of band tensors and of the stage's output: byte ranges.
        stage: how many of the original operators run in bands.
        bands: how many bands.
        recomputed_macs: multiply-accumulates beyond the plain graph's; below 0 where a stride
            skips rows, which bands do not compute at all.
    """

    graph: Graph
    views: Mapping[str, View]
    stage: int
    bands: int
    recomputed_macs: int


@dataclass(frozen=True)
class Window:
    """How rows of an operator's output depend on rows of its inputs."""

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    top: int = 0

    def reads(self, rows: Rows) -> Rows:
        """The input rows of these output rows; may leave the input, which is padding."""
        first = rows[0] * self.stride - self.top
        last = (rows[1] - 1) * self.stride - self.top + (self.kernel - 1) * self.dilation
        return first, last + 1


def window(graph: Graph, op: Op) -> Window | None:
    """The row window of an operator, or None where it does not work row by row."""
    output = graph[op.output]
    activations = [t for t in graph.operands(op) if t is not None and not t.is_constant]
    if any(len(t.shape) != 4 or t.shape[0] != 1 for t in (output, *activations)):
        return None
    if any(t.dtype.bits % 8 for t in (output, *activations)):
        return None
    if isinstance(op, ir.Pad):
        inside = op.before[0] == op.after[0] == 0
        return Window(top=op.before[ROWS]) if inside else None
    if isinstance(op, ir.Conv2D | ir.DepthwiseConv2D):
        if graph[op.inputs[0]].is_constant or len(activations) != 1:
            return None
        kernel = graph[op.inputs[1]].shape[1]
        return Window(kernel, op.stride[0], op.dilation[0], op.padding.top)
    if isinstance(op, ir.AveragePool2D | ir.MaxPool2D):
        return Window(op.kernel[0], op.stride[0], 1, op.padding.top)
    rowwise = isinstance(op, ELEMENTWISE) and output.dtype.is_integer
    rowwise |= isinstance(op, BINARY) and all(_per_row(t, output) for t in graph.operands(op))
    rowwise |= isinstance(op, ir.Concat) and op.axis % 4 > ROWS
    rowwise &= all(t.shape[ROWS] == output.shape[ROWS] for t in activations)
    return Window() if rowwise else None


def _per_row(tensor: Tensor | None, output: Tensor) -> bool:
    """Whether an operand of a broadcasting operator looks the same in every row, or has rows."""
    if tensor is None or not tensor.is_constant:
        return True
    return len(tensor.shape) < len(output.shape) - ROWS or tensor.shape[-3] == 1


def stages(graph: Graph) -> tuple[int, ...]:
    """How many first operators can run in bands: every possible number, ascending."""
    found = []
    last_use = {name: at for at, op in enumerate(graph.ops) for name in op.inputs if name}
    last_use |= dict.fromkeys(graph.outputs, len(graph.ops))
    made: set[str] = set()
    for at, op in enumerate(graph.ops):
        if window(graph, op) is None or graph[op.output].shape[ROWS] < 2:
            break
        escaping = [name for name in made if last_use.get(name, at) > at]
        made.add(op.output)
        if not escaping:
            found.append(at + 1)
    return tuple(found)


def band_rows(rows: int, bands: int) -> tuple[Rows, ...]:
    """Split rows as evenly as possible, larger bands first."""
    size, longer = divmod(rows, bands)
    ends = [0]
    for band in range(bands):
        ends.append(ends[-1] + size + (band < longer))
    return tuple(pairwise(ends))


def split(graph: Graph, stage: int, bands: int) -> Banded:
    """Run the first `stage` operators in `bands` bands.

    Raises:
        UnsupportedError: the stage is none of `stages(graph)`, has fewer rows than bands, or
            a band would consist of padding alone.
    """
    if stage not in stages(graph):
        raise UnsupportedError(
            f"the first {stage} operators of graph {graph.name!r} cannot run in bands",
            fix=f"choose one of {list(stages(graph)) or 'none'}",
        )
    final = graph[graph.ops[stage - 1].output]
    if not 1 <= bands <= final.shape[ROWS]:
        raise UnsupportedError(
            f"tensor {final.name!r} has {final.shape[ROWS]} rows, too few for {bands} bands",
            fix="take fewer bands",
        )
    return _Splitter(graph, stage, bands).banded()


def demand(graph: Graph, stage: int, rows: Rows) -> dict[str, Rows]:
    """The rows of every activation that these rows of the stage's output need.

    Raises:
        UnsupportedError: some operator would read padding alone.
    """
    needed = {graph.ops[stage - 1].output: rows}
    for op in reversed(graph.ops[:stage]):
        if op.output not in needed:
            needed[op.output] = (0, 1)  # nobody reads it
        for name, (first, end) in _reads(graph, op, needed[op.output]).items():
            old = needed.get(name, (first, end))
            needed[name] = (min(first, old[0]), max(end, old[1]))
    return needed


def _reads(graph: Graph, op: Op, rows: Rows) -> dict[str, Rows]:
    """The existing rows that an operator reads of each of its activations."""
    shape = window(graph, op)
    assert shape is not None
    first, end = shape.reads(rows)
    found = {}
    for tensor in graph.operands(op):
        if tensor is None or tensor.is_constant:
            continue
        inside = max(first, 0), min(end, tensor.shape[ROWS])
        if inside[0] >= inside[1]:
            raise UnsupportedError(
                f"rows {rows[0]} to {rows[1]} of {op.kind} {op.name!r} come from padding alone",
                fix="take fewer bands, or end the stage before this operator",
            )
        found[tensor.name] = inside
    return found


class _Splitter:
    """Builds the banded graph band by band."""

    def __init__(self, graph: Graph, stage: int, bands: int) -> None:
        self.graph = graph
        self.stage = stage
        self.bands = bands
        self.tensors = dict(graph.tensors)
        self.views: dict[str, View] = {}
        self.ops: list[Op] = []

    @cached_property
    def mark(self) -> str:
        """What stands between a name and its band: in no name of the graph."""
        names = {*self.graph.tensors, *(op.name for op in self.graph.ops)}
        mark = "@"
        while any(mark in name for name in names):
            mark += "@"
        return mark

    @cached_property
    def inner(self) -> set[str]:
        """Tensors that exist as bands only."""
        return {op.output for op in self.graph.ops[: self.stage - 1]}

    def banded(self) -> Banded:
        final = self.graph[self.graph.ops[self.stage - 1].output]
        for band, rows in enumerate(band_rows(final.shape[ROWS], self.bands)):
            self._band(band, final, demand(self.graph, self.stage, rows))
        self.ops.extend(self.graph.ops[self.stage :])
        for name in self.inner:
            del self.tensors[name]
        graph = replace(
            self.graph,
            tensors=self.tensors,
            ops=tuple(self.ops),
            origin={n: o for n, o in self.graph.origin.items() if n in self.tensors},
            layout={n: o for n, o in self.graph.layout.items() if n in self.tensors},
        )
        plain = sum(costs.macs(self.graph, op) for op in self.graph.ops)
        spent = sum(costs.macs(graph, op) for op in graph.ops)
        return Banded(graph, self.views, self.stage, self.bands, spent - plain)

    def _band(self, band: int, final: Tensor, needed: Mapping[str, Rows]) -> None:
        """Add one band's tensors and operators."""
        for op in self.graph.ops[: self.stage]:
            rows = needed[op.output]
            output = self._rows(f"{op.output}{self.mark}{band}", self.graph[op.output], rows)
            if op.output == final.name:
                self._view(output, final.name, rows[0])
            inputs = {}
            for name, read in _reads(self.graph, op, rows).items():
                inputs[name] = self._operand(band, op, name, read, needed[name])
            changed = _with_rows(self.graph, op, rows)
            self.ops.append(
                replace(
                    changed,
                    name=f"{op.name}{self.mark}{band}",
                    inputs=tuple(inputs.get(name, name) for name in op.inputs),
                    outputs=(output.name,),
                )
            )

    def _operand(self, band: int, op: Op, name: str, read: Rows, held: Rows) -> str:
        """The tensor by which an operator of a band reads rows of an activation."""
        source = self.graph[name]
        if name not in self.inner:
            if read == (0, source.shape[ROWS]):
                return name
            tensor = self._rows(f"{name}{self.mark}{read[0]}:{read[1]}", source, read)
            self._view(tensor, name, read[0])
            return tensor.name
        whole = f"{name}{self.mark}{band}"
        if read == held:
            return whole
        tensor = self._rows(f"{whole}:{op.name}", source, read)
        self._view(tensor, whole, read[0] - held[0])
        return tensor.name

    def _rows(self, name: str, tensor: Tensor, rows: Rows) -> Tensor:
        shape = (1, rows[1] - rows[0], *tensor.shape[2:])
        self.tensors[name] = replace(tensor, name=name, shape=shape)
        return self.tensors[name]

    def _view(self, tensor: Tensor, parent: str, row: int) -> None:
        row_bytes = tensor.bytes // tensor.shape[ROWS]
        self.views[tensor.name] = View(parent, row * row_bytes, tensor.bytes)


def _with_rows(graph: Graph, op: Op, rows: Rows) -> Op:
    """The operator with the vertical padding that these output rows see."""
    if not isinstance(op, WINDOWED):
        return op
    shape = window(graph, op)
    assert shape is not None
    first, end = shape.reads(rows)
    top, bottom = max(0, -first), max(0, end - graph[op.inputs[0]].shape[ROWS])
    if isinstance(op, ir.Pad):
        before, after = list(op.before), list(op.after)
        before[ROWS], after[ROWS] = top, bottom
        return replace(op, before=tuple(before), after=tuple(after))
    padding = Padding(top, bottom, op.padding.left, op.padding.right)
    return replace(op, padding=padding)
