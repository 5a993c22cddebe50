"""Means over any axes."""

from __future__ import annotations

import math

from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.shared import (
    LARGEST_SUM,
    Axes,
    dense_steps,
    integer_call,
    make_call,
    scaling,
    struct,
    suffix,
)
from edgesmith.targets.c.program import Call
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.reference.reduce import mean_multiplier

AXES = 3  # kept and reduced ones each, after merging


@lowers(ir.Mean)
def mean(op: ir.Mean, site: Site) -> Call:
    """Sums over the merged reduced axes, one output after the other."""
    call = integer_call(op, site, 0)
    source = call.tensor(0)
    scale, zero = call.scalar(source)
    output_scale, output_zero = call.scalar(call.output)
    count = math.prod(source.shape[axis] for axis in op.axes)
    dtype = source.dtype
    if count << dtype.bits > LARGEST_SUM:
        raise site.unsupported(op, f"averages {count} elements, more than 32-bit sums hold")
    steps = dense_steps(source.shape)
    groups = []
    for reduced in (False, True):
        own = [axis for axis in range(len(steps)) if (axis in op.axes) is reduced]
        sizes = tuple(source.shape[axis] for axis in own)
        merged = Axes(sizes, (tuple(steps[axis] for axis in own),)).merged().padded(AXES)
        if merged is None:
            raise site.unsupported(op, f"averages over axes {op.axes} of {source.shape}")
        groups.append(merged)
    kept, reduced_axes = groups
    arguments = struct(
        "es_mean_args",
        kept=kept.sizes,
        kept_step=kept.steps[0],
        reduced=reduced_axes.sizes,
        reduced_step=reduced_axes.steps[0],
        offset=zero * count,
        **scaling(mean_multiplier(scale, output_scale, count)),
        zero=output_zero,
    )
    return make_call(op, f"es_mean_{suffix(dtype)}", arguments)
