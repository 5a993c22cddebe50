"""Image resizing by tables of source rows and columns."""

from __future__ import annotations

import numpy as np

from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.shared import (
    integer_call,
    item_bytes,
    make_call,
    struct,
    suffix,
)
from edgesmith.targets.c.program import Array, Call, Role, Value
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.reference import kernel, resize


def _geometry(call: kernel.Call) -> dict[str, Value]:
    batch, height, width, _ = call.tensor(0).shape
    return {
        "batch": batch,
        "in_height": height,
        "in_width": width,
        "out_height": call.output.shape[1],
        "out_width": call.output.shape[2],
    }


def _checked(op: ir.ResizeNearest | ir.ResizeBilinear, site: Site) -> kernel.Call:
    call = integer_call(op, site, 0)
    resize.require_resizable(op, call)
    if max(*call.tensor(0).shape[1:3], *op.size) >= 1 << 16:
        raise site.unsupported(op, "has more rows or columns than 16-bit tables hold")
    return call


@lowers(ir.ResizeNearest)
def resize_nearest(op: ir.ResizeNearest, site: Site) -> Call:
    """Pixels copied; equal rows copied whole."""
    call = _checked(op, site)
    source = call.tensor(0)
    rows, columns = (
        Array(
            resize.nearest_rows(source.shape[1 + i], op.size[i], op).astype(np.uint16), Role.TABLE
        )
        for i in (0, 1)
    )
    pixel = source.shape[3] * item_bytes(source.dtype)
    arguments = struct(
        "es_resize_nearest_args", **_geometry(call), pixel=pixel, row=rows, column=columns
    )
    return make_call(op, "es_resize_nearest", arguments)


@lowers(ir.ResizeBilinear)
def resize_bilinear(op: ir.ResizeBilinear, site: Site) -> Call:
    """Four neighbours of every output position, with weights of 20 bits."""
    call = _checked(op, site)
    source = call.tensor(0)
    rows, columns = (_between(op, source.shape[1 + i], op.size[i]) for i in (0, 1))
    arguments = struct(
        "es_resize_bilinear_args",
        **_geometry(call),
        channels=source.shape[3],
        row=rows,
        column=columns,
    )
    return make_call(op, f"es_resize_bilinear_{suffix(source.dtype)}", arguments)


def _between(op: ir.ResizeBilinear, size: int, wanted: int) -> Array:
    """Lower and upper neighbour and the weight of the upper one, for every output index."""
    lower, upper, weight = resize.bilinear_rows(size, wanted, op)
    # Where both are one, the weight has no effect, and may lie outside its range.
    weight = np.where(lower == upper, 0, weight)
    return Array(np.stack([lower, upper, weight], axis=1).astype(np.uint16), Role.TABLE)
