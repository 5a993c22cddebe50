"""Image resizing: nearest neighbour, and bilinear in 10-bit fixed point."""

from __future__ import annotations

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array
from edgesmith.targets.graph.reference.kernel import Call, kernel, sample_blocks
from edgesmith.targets.graph.requantize import Int64Array, saturate

Resize = ir.ResizeNearest | ir.ResizeBilinear

FRACTION_BITS = 10
UNIT = 1 << FRACTION_BITS


def require_resizable(op: Resize, call: Call) -> None:
    """Refuse what the operator does not define."""
    call.integer_activations(0)
    if call.scalar(call.tensor(0)) != call.scalar(call.output):
        raise call.refuse("input and output differ in scale or zero point", "legalize the graph")
    if op.align_corners and op.half_pixel_centers:
        raise call.refuse("align_corners together with half_pixel_centers", "use one of them")


def nearest_rows(size: int, wanted: int, op: ir.ResizeNearest) -> Int64Array:
    """Source index of every output index, in the float32 arithmetic of GetNearestNeighbor."""
    corners = op.align_corners and wanted > 1
    scale = np.float32(size - corners) / np.float32(wanted - corners)
    offset = np.float32(0.5 if op.half_pixel_centers else 0.0)
    position = (np.arange(wanted, dtype=np.float32) + offset) * scale
    rounded = np.floor(position + np.float32(0.5)) if op.align_corners else np.floor(position)
    return saturate(rounded.astype(np.int64), 0, size - 1)


@kernel(ir.ResizeNearest)
def resize_nearest(op: ir.ResizeNearest, call: Call) -> Array:
    """Copies the nearest source element."""
    require_resizable(op, call)
    x = call.value(0)
    rows, columns = (nearest_rows(x.shape[2 + i], op.size[i], op) for i in (0, 1))
    return x[:, :, rows][:, :, :, columns]


def bilinear_rows(
    size: int, wanted: int, op: ir.ResizeBilinear
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Lower and upper source index and the upper one's weight in 1/1024 of every output index."""
    corners = op.align_corners and wanted > 1
    steps = wanted - corners
    scale = (UNIT * (size - corners) + steps // 2) // steps
    position = np.arange(wanted, dtype=np.int64) * scale
    if op.half_pixel_centers:
        position += scale // 2 - UNIT // 2
    # C division rounds towards zero, which differs only below zero, where both bounds clamp to 0.
    lower = np.maximum(position // UNIT, 0)
    upper = saturate((position + UNIT - 1) // UNIT, 0, size - 1)
    return lower, upper, position - UNIT * lower


@kernel(ir.ResizeBilinear)
def resize_bilinear(op: ir.ResizeBilinear, call: Call) -> Array:
    """Weighted sum of four neighbours, rounded half away from zero."""
    require_resizable(op, call)
    x = call.value(0)
    top, bottom, down = bilinear_rows(x.shape[2], op.size[0], op)
    left, right, along = bilinear_rows(x.shape[3], op.size[1], op)
    down, along = down[:, None, None], along[:, None]
    result = np.empty((len(x), *call.output.shape), call.output.dtype.numpy)
    for block in sample_blocks(len(x), call.output.elements):
        codes = x[block].astype(np.int64)
        rows = codes[:, :, top] * (UNIT - down) + codes[:, :, bottom] * down
        total = rows[:, :, :, left] * (UNIT - along) + rows[:, :, :, right] * along
        half = np.where(total > 0, UNIT * UNIT // 2, -UNIT * UNIT // 2)
        shifted = total + half
        # Truncation towards zero, as C divides.
        result[block] = np.sign(shifted) * (np.abs(shifted) >> (2 * FRACTION_BITS))
    return result
