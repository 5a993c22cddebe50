"""Operators that only move values: they change views, or memory where a view cannot say it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.onnx_reader.layout import View
from edgesmith.targets.graph.onnx_reader.site import Axes, Site, operator
from edgesmith.targets.graph.onnx_reader.values import Activation, Constant, RealPad, Value


@operator("Identity", "Dropout")
def _identity(site: Site) -> Value:
    value = site.value(0)
    return value if isinstance(value, Constant) else replace(value, label=site.label)


@operator("Cast")
def _cast(site: Site) -> Value:
    value = site.activation(0)
    if site.node.integer("to") != 1:
        site.refuse("casts an activation", "keep activations in float32 between Q and DQ")
    return replace(value, label=site.label)


def _regrouped(site: Site, shape: tuple[int, ...]) -> Value:
    """The first operand under another ONNX shape."""
    value = site.value(0)
    if math.prod(value.shape) != math.prod(shape) or min(shape, default=1) < 1:
        site.broken(f"turns {list(value.shape)} into {list(shape)}")
    if isinstance(value, Constant):
        constant = value.reshaped(shape)
        if constant is None:
            site.refuse("cuts the axis that a constant is quantized along", "quantize afterwards")
        return constant
    view = value.view.reshaped(shape)
    if view is not None:
        return replace(value.viewed(view), label=site.label)
    plain = site.importer.arrange(value, value.view.identity)
    tensor = site.emit(ir.Reshape, [plain.tensor], shape=shape)
    return replace(
        plain, tensor=tensor.name, view=View.of(shape), label=site.label, image=False, pending=False
    )


@operator("Reshape")
def _reshape(site: Site) -> Value:
    old, wanted = site.value(0).shape, list(site.integers(1, "shape"))
    if not site.node.integer("allowzero"):
        for axis, size in enumerate(wanted):
            if size == 0:
                if axis >= len(old):
                    site.broken(f"copies axis {axis} of {list(old)}")
                wanted[axis] = old[axis]
    if wanted.count(-1) == 1:
        rest = math.prod(size for size in wanted if size != -1)
        if rest < 1 or math.prod(old) % rest:
            site.broken(f"turns {list(old)} into {wanted}")
        wanted[wanted.index(-1)] = math.prod(old) // rest
    return _regrouped(site, tuple(wanted))


@operator("Flatten")
def _flatten(site: Site) -> Value:
    shape = site.value(0).shape
    axis = site.node.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        site.broken(f"flattens {list(shape)} at axis {axis}")
    axis += len(shape) if axis < 0 else 0
    return _regrouped(site, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@operator("Squeeze")
def _squeeze(site: Site) -> Value:
    shape = site.value(0).shape
    given = site.axes(1)
    if given is None:
        axes = {axis for axis, size in enumerate(shape) if size == 1}
    else:
        axes = {site.axis(axis, len(shape)) for axis in given}
    if any(shape[axis] != 1 for axis in axes):
        site.broken(f"squeezes axes {sorted(axes)} of {list(shape)}")
    return _regrouped(site, tuple(size for axis, size in enumerate(shape) if axis not in axes))


@operator("Unsqueeze")
def _unsqueeze(site: Site) -> Value:
    shape = site.value(0).shape
    given = site.axes(1) or ()
    rank = len(shape) + len(given)
    axes = {site.axis(axis, rank) for axis in given}
    sizes = iter(shape)
    if len(axes) != len(given):
        site.broken(f"names an axis twice in {list(given)}")
    return _regrouped(site, tuple(1 if axis in axes else next(sizes) for axis in range(rank)))


@operator("Expand")
def _expand(site: Site) -> Value:
    shape = site.value(0).shape
    wanted = site.integers(1, "shape")
    if tuple(np.broadcast_shapes(shape, wanted)) != shape:
        site.refuse(f"repeats {list(shape)} to {list(wanted)}", "let the operator broadcast")
    return _regrouped(site, shape)


@operator("Transpose")
def _transpose(site: Site) -> Value:
    value = site.value(0)
    rank = len(value.shape)
    permutation = site.node.integers("perm") or tuple(reversed(range(rank)))
    if sorted(permutation) != list(range(rank)):
        site.broken(f"permutes {rank} axes by {list(permutation)}")
    if isinstance(value, Constant):
        return value.transposed(permutation)
    return replace(value.viewed(value.view.transposed(permutation)), label=site.label)


@operator("Concat")
def _concat(site: Site) -> Activation:
    values = [site.value(position) for position in range(len(site.node.inputs))]
    activations = site.computed(values)
    rank = len(values[0].shape)
    axis = site.axis(site.node.integer("axis"), rank)
    rests = {value.shape[:axis] + value.shape[axis + 1 :] for value in values}
    if len(rests) != 1 or len({len(value.shape) for value in values}) != 1:
        site.broken(f"joins {[list(value.shape) for value in values]} on axis {axis}")
    leader, axes = site.spread(next((v for v in activations if v.image), activations[0]))
    names = [site.placed(value, axes, broadcasts=False) for value in values]
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    tensor = site.emit(ir.Concat, names, axis=axes.memory[axis])
    return site.made(tensor, axes.view(tuple(shape)), image=leader.image)


Range = tuple[int, int, int]


def _cut(
    site: Site, value: Activation, axes: Axes, cuts: dict[int, Range], label: str
) -> Activation:
    """begin, end and step per ONNX axis; the value must be spread along `axes`."""
    shape = value.shape
    ranges = [cuts.get(axis, (0, size, 1)) for axis, size in enumerate(shape)]
    begin, end, stride = (
        axes.spread([item[part] for item in ranges], default)
        for part, default in enumerate((0, 1, 1))
    )
    tensor = site.importer.emit(
        ir.StridedSlice, [value.tensor], label, begin=begin, end=end, stride=stride
    )
    sizes = tuple(-(-(last - first) // step) for first, last, step in ranges)
    return replace(site.made(tensor, axes.view(sizes), image=value.image), label=label)


@operator("Slice")
def _slice(site: Site) -> Activation:
    value, axes = site.spread(site.activation(0))
    shape = value.shape
    starts, ends = site.integers(1, "starts"), site.integers(2, "ends")
    named = site.integers(3, "axes") if site.has(3) else tuple(range(len(starts)))
    steps = site.integers(4, "steps") if site.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(named) == len(steps):
        site.broken("has starts, ends, axes and steps of different lengths")
    cuts: dict[int, Range] = {}
    for start, end, name, step in zip(starts, ends, named, steps, strict=True):
        axis = site.axis(name, len(shape))
        if step < 1:
            site.refuse(f"steps by {step}", "slice forwards")
        first, last, _ = slice(start, end, step).indices(shape[axis])
        if last <= first:
            site.refuse(f"takes nothing of axis {axis}", "remove the empty slice")
        cuts[axis] = (first, last, step)
    if all(cut == (0, shape[axis], 1) for axis, cut in cuts.items()):
        return replace(value, label=site.label)
    return _cut(site, value, axes, cuts, site.label)


@operator("Split")
def _split(site: Site) -> tuple[Value, ...]:
    value, axes = site.spread(site.activation(0))
    axis = site.axis(site.node.integer("axis"), value.view.rank)
    size, count = value.shape[axis], len(site.node.outputs)
    if site.has(1):
        parts = site.integers(1, "split")
    else:
        chunk = -(-size // count)
        parts = tuple(min(chunk, size - chunk * index) for index in range(count))
    if len(parts) != count or sum(parts) != size or min(parts) < 1:
        site.broken(f"splits {size} into {list(parts)} for {count} outputs")
    ends = np.cumsum(parts).tolist()
    return tuple(
        _cut(site, value, axes, {axis: (end - part, end, 1)}, output or f"{site.label}/unused")
        for part, end, output in zip(parts, ends, site.node.outputs, strict=True)
    )


@operator("Gather")
def _gather(site: Site) -> Activation:
    """One entry of an axis: a slice of one, and the axis goes."""
    index = site.constant(1, "indices")
    value = site.activation(0)
    axis = site.axis(site.node.integer("axis"), value.view.rank)
    if index.array.ndim != 0 or index.array.dtype.kind not in "iu":
        site.refuse("gathers more than one entry", "take one entry, or a slice")
    position = site.axis(int(index.array), value.shape[axis])
    value, axes = site.spread(value)
    label = f"{site.label}/entry"
    taken = _cut(site, value, axes, {axis: (position, position + 1, 1)}, label)
    view = taken.view.reshaped(taken.shape[:axis] + taken.shape[axis + 1 :])
    assert view is not None
    return replace(taken.viewed(view), label=site.label)


@operator("Pad")
def _pad(site: Site) -> Activation:
    mode = site.node.text("mode", "constant")
    if mode != "constant":
        site.refuse(f"pads by {mode!r}", "pad with a constant")
    value, axes = site.spread(site.activation(0))
    rank = value.view.rank
    pads = site.integers(1, "pads")
    named = site.integers(3, "axes") if site.has(3) else tuple(range(rank))
    if len(pads) != 2 * len(named):
        site.broken(f"has {len(pads)} pads for {len(named)} axes")
    if min(pads, default=0) < 0:
        site.refuse(f"has negative pads {list(pads)}", "crop with a slice instead")
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(named):
        before[site.axis(axis, rank)] = pads[position]
        after[site.axis(axis, rank)] = pads[len(named) + position]
    real = 0.0
    if site.has(2):
        given = site.constant(2, "padding value").reals().reshape(-1)
        if given.size != 1:
            site.broken(f"pads with {given.size} values")
        real = float(given[0])
    if not any(pads):
        return replace(value, label=site.label)
    around = {"before": axes.spread(before, 0), "after": axes.spread(after, 0)}
    if real == 0.0:
        tensor = site.emit(ir.Pad, [value.tensor], **around)
    else:
        tensor = site.emit(RealPad, [value.tensor], real=real, **around)
    sizes = zip(before, value.shape, after, strict=True)
    shape = tuple(first + size + last for first, size, last in sizes)
    return site.made(tensor, axes.view(shape), image=value.image)


@operator("ReduceMean")
def _mean(site: Site) -> Activation:
    value = site.activation(0)
    rank = value.view.rank
    given = site.axes(1)
    if not given and site.node.integer("noop_with_empty_axes"):
        return replace(value, label=site.label)
    axes = {site.axis(axis, rank) for axis in given or range(rank)}
    value, where = site.spread(value)
    memory = tuple(sorted(where.memory[axis] for axis in axes))
    keep = bool(site.node.integer("keepdims", 1))
    tensor = site.emit(ir.Mean, [value.tensor], axes=memory, keep_dims=keep)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
    view = where.view(shape)
    if not keep:
        physical = tuple(g for place, g in enumerate(view.physical) if place not in memory)
        logical = tuple(g for axis, g in enumerate(view.logical) if axis not in axes)
        view = View(view.sizes, logical, physical)
    return site.made(tensor, view, image=value.image and keep)
