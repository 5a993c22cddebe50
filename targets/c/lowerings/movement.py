"""Operators that move elements: concatenation, transposition, padding, slicing."""

from __future__ import annotations

import math

from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.matrix import reference_call
from edgesmith.targets.c.lowerings.shared import (
    Axes,
    dense_steps,
    item_bytes,
    make_call,
    struct,
)
from edgesmith.targets.c.program import Call, Struct
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Op

AXES = 4  # of runs; picked elements have one more
SLOTS = 8  # operands of one concatenation
SHORTEST_RUN = 5  # elements; below, a call of memcpy costs more than it saves
COPY_RUNS = "portable/copy_runs.c"


def _item(op: Op, site: Site) -> int:
    """Bytes of an element; refuses what the reference executor refuses."""
    tensors = [site.tensor(name) for name in (*op.inputs, op.output)]
    types = {tensor.dtype for tensor in tensors}
    if len(types) > 1 or not types <= {DType.INT8, DType.UINT8, DType.INT16}:
        raise site.unsupported(op, f"moves {', '.join(sorted(types))}")
    quantization = tensors[-1].quantization
    for tensor in tensors[:-1]:
        if tensor.quantization is not None and not tensor.quantization.same_as(quantization):
            raise site.unsupported(op, f"changes scale or zero point of {tensor.name!r}")
    return item_bytes(tensors[-1].dtype)


def _runs(op: Op, site: Site, axes: Axes, item: int) -> Struct | None:
    """es_runs of a walk over input and output; None where neighbours part in the input."""
    merged = axes.merged()
    run = 1
    if merged.sizes and all(steps[-1] == 1 for steps in merged.steps):
        run = merged.sizes[-1]
        merged = Axes(merged.sizes[:-1], tuple(steps[:-1] for steps in merged.steps))
    elif merged.sizes:
        return None
    outer = merged.padded(AXES)
    if outer is None:
        raise site.unsupported(op, f"moves along more than {AXES + 1} axes")
    in_step, out_step = (tuple(step * item for step in steps) for steps in outer.steps)
    return struct("es_runs", run=run * item, size=outer.sizes, in_step=in_step, out_step=out_step)


def _gather(op: Op, site: Site, steps: tuple[int, ...], begin: int) -> Call:
    """A dense output whose neighbours lie `steps` apart in the input, from element `begin` on."""
    item = _item(op, site)
    result = site.tensor(op.output).shape
    axes = Axes(result, (steps, dense_steps(result)))
    merged = axes.merged()
    picked = merged.padded(AXES + 1)
    if picked is None:
        raise site.unsupported(op, f"moves along more than {AXES + 1} axes")
    runs = _runs(op, site, axes, item)
    if runs is not None and (not merged.sizes or merged.sizes[-1] >= SHORTEST_RUN):
        fields = (("offset", begin * item), *runs.fields)
        return make_call(op, "es_copy_runs", Struct("es_runs", fields))
    arguments = struct("es_pick_args", offset=begin, size=picked.sizes, step=picked.steps[0])
    return make_call(op, f"es_pick_s{8 * item}", arguments)


@lowers(ir.Transpose)
def transpose(op: ir.Transpose, site: Site) -> Call:
    """Runs where the last axes stay, else element by element in the order of the output."""
    steps = dense_steps(site.tensor(op.inputs[0]).shape)
    return _gather(op, site, tuple(steps[axis] for axis in op.permutation), 0)


@lowers(ir.Reshape)
def reshape(op: ir.Reshape, site: Site) -> Call:
    """A copy: for a constant that is a graph output; elsewhere a reshape is a view."""
    return _gather(op, site, dense_steps(site.tensor(op.output).shape), 0)


@lowers(ir.StridedSlice)
def strided_slice(op: ir.StridedSlice, site: Site) -> Call:
    """The same walk with a start."""
    steps = dense_steps(site.tensor(op.inputs[0]).shape)
    begin = sum(first * step for first, step in zip(op.begin, steps, strict=True))
    strided = tuple(stride * step for stride, step in zip(op.stride, steps, strict=True))
    return _gather(op, site, strided, begin)


@lowers(ir.Pad)
def pad(op: ir.Pad, site: Site) -> Call:
    """The output filled, then runs of the input copied in."""
    item = _item(op, site)
    source, result = site.tensor(op.inputs[0]).shape, site.tensor(op.output)
    out_steps = dense_steps(result.shape)
    runs = _runs(op, site, Axes(source, (dense_steps(source), out_steps)), item)
    if runs is None:  # an innermost axis of one element: single elements are runs too
        runs = _single_runs(op, site, source, out_steps, item)
    begin = sum(before * step for before, step in zip(op.before, out_steps, strict=True))
    value = reference_call(op, site).scalar(result)[1] if op.value is None else op.value
    arguments = struct(
        "es_pad_args",
        bytes=result.elements * item,
        element_bytes=item,
        value=value,
        offset=begin * item,
        runs=Struct("es_runs", (("offset", 0), *runs.fields)),
    )
    return make_call(op, "es_pad", arguments, more_sources=(COPY_RUNS,))


def _single_runs(
    op: Op, site: Site, source: tuple[int, ...], out_steps: tuple[int, ...], item: int
) -> Struct:
    axes = Axes((*source, 1), ((*dense_steps(source), 1), (*out_steps, 1)))
    outer = Axes(axes.sizes[:-1], tuple(steps[:-1] for steps in axes.steps)).merged().padded(AXES)
    if outer is None:
        raise site.unsupported(op, f"moves along more than {AXES + 1} axes")
    in_step, out_step = (tuple(step * item for step in steps) for steps in outer.steps)
    return struct("es_runs", run=item, size=outer.sizes, in_step=in_step, out_step=out_step)


@lowers(ir.Concat)
def concat(op: ir.Concat, site: Site) -> Call:
    """Runs of all operands, side by side."""
    item = _item(op, site)
    if len(op.inputs) > SLOTS:  # `prepare` has split it, where a whole graph is lowered
        raise site.unsupported(op, f"joins {len(op.inputs)} operands at once, at most {SLOTS}")
    result = site.tensor(op.output).shape
    axis = op.axis % len(result)
    runs = [math.prod(site.tensor(name).shape[axis:]) * item for name in op.inputs]
    missing = SLOTS - len(op.inputs)
    arguments = struct(
        "es_concat_args",
        rows=math.prod(result[:axis]),
        operands=len(op.inputs),
        run=(*runs, *(0,) * missing),
    )
    return make_call(op, "es_concat", arguments, reads=(*op.inputs, *op.inputs[:1] * missing))
