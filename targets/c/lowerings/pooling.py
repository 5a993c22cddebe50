"""Average and max pooling."""

from __future__ import annotations

from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.shared import (
    LARGEST_SUM,
    integer_call,
    item_bytes,
    make_call,
    struct,
    suffix,
)
from edgesmith.targets.c.lowerings.windows import overlap
from edgesmith.targets.c.program import Call, Overlap
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.reference import kernel


@lowers(ir.AveragePool2D)
def average_pool(op: ir.AveragePool2D, site: Site) -> Call:
    """Sums of four int8 channels at a time where the core can."""
    return _pool(op, site)


@lowers(ir.MaxPool2D)
def max_pool(op: ir.MaxPool2D, site: Site) -> Call:
    """Likewise."""
    return _pool(op, site)


def _pool(op: ir.AveragePool2D | ir.MaxPool2D, site: Site) -> Call:
    """Windows cut to the input."""
    call = integer_call(op, site, 0)
    source, result = call.tensor(0), call.output
    if call.scalar(source) != call.scalar(result):
        raise site.unsupported(op, "changes the scale or zero point")
    low, high = kernel.activation_range(call, op.activation)
    average = isinstance(op, ir.AveragePool2D)
    if average and op.kernel[0] * op.kernel[1] << source.dtype.bits > LARGEST_SUM:
        raise site.unsupported(op, f"averages windows of {op.kernel}, more than 32-bit sums hold")
    batch, height, width, channels = source.shape
    arguments = struct(
        "es_pool_args",
        batch=batch,
        in_height=height,
        in_width=width,
        channels=channels,
        out_height=result.shape[1],
        out_width=result.shape[2],
        kernel_height=op.kernel[0],
        kernel_width=op.kernel[1],
        stride_height=op.stride[0],
        stride_width=op.stride[1],
        pad_top=op.padding.top,
        pad_left=op.padding.left,
        low=low,
        high=high,
    )
    shapes = (source.shape, result.shape)
    item = item_bytes(source.dtype)
    over = overlap(*shapes, op.stride, op.padding, element_bytes=item, delay=1)
    # A channel is written once its window has been read, so the first position may lie over it.
    in_place = Overlap(max(0, over.distance))
    function = f"es_{'average' if average else 'max'}_pool_{suffix(source.dtype)}"
    return make_call(op, function, arguments, overlaps={op.inputs[0]: in_place})
