"""Convolution and fully connected on the DSP kernels: int8 activations, int8 and int4 weights.

What they do not cover is declined, and the portable kernels take over.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgesmith.targets.c.lowerings.base import Declined, Site, lowers
from edgesmith.targets.c.lowerings.dsp_layer import (
    BYTES,
    Kernel,
    Layer,
    ceil_to,
    kernel_call,
    lead_of,
    matrix_layer,
    pair_bytes,
)
from edgesmith.targets.c.program import Array, Call, KernelSet, Role, Struct, Value
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Padding

# Bytes of a window row that take less time where rows are joined.
SHORT_RUN = 8


def _pointwise(
    op: ir.Op, layer: Layer, size: tuple[int, int], strides: tuple[int, int], source: int
) -> Call:
    """A matrix product with `size` (rows, columns) pixels, `strides` bytes apart.

    `source` is the bytes of the input.
    """
    depth = layer.rows.shape[1]
    kernel = Kernel("pointwise", layer.form)
    rows, columns = size
    starts = (np.arange(rows)[:, None] * strides[0] + np.arange(columns) * strides[1]).reshape(-1)
    pixels = len(starts)
    done = np.minimum(np.arange(2, pixels + 2, 2), pixels)
    lead = lead_of(done * layer.outputs, starts[np.minimum(done, pixels - 1)], source)
    fields: dict[str, Value] = {
        "depth": depth,
        "rows": rows,
        "columns": columns,
        "row_bytes": strides[0],
        "column_bytes": strides[1],
    }
    call = kernel_call(op, layer, kernel, fields, pair_bytes(depth), pixels * layer.rows.size)
    return replace(call, overlaps={op.inputs[0]: lead})


def _image(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    count, height, width, channels = shape
    return count, height, width, channels


@lowers(ir.Conv2D, kernels=KernelSet.DSP)
def conv2d(op: ir.Conv2D, site: Site) -> Call | Declined:
    """Convolution in one group."""
    if op.groups != 1:
        return Declined("grouped convolution is not written")
    layer = matrix_layer(op, site)
    if isinstance(layer, str):
        return Declined(layer)
    weight = site.tensor(op.inputs[1])
    source, result = (_image(site.tensor(n).shape) for n in (op.inputs[0], op.output))
    if weight.shape[1:3] == (1, 1) and op.padding == Padding() and source[3] % 4 == 0:
        row = source[2] * source[3]
        if op.stride == (1, 1):
            size = (1, math.prod(source[:3]))
            return _pointwise(op, layer, size, (0, source[3]), math.prod(source))
        if source[0] == 1:
            strides = (op.stride[0] * row, op.stride[1] * source[3])
            return _pointwise(op, layer, result[1:3], strides, math.prod(source))
    if _suits_band(op, weight.shape, result):
        return _band_convolution(op, layer, weight.shape, source, result)
    return _ring_convolution(op, layer, weight.shape, source, result)


def _suits_band(op: ir.Conv2D, weight: tuple[int, ...], result: tuple[int, ...]) -> bool:
    """Whether windows are best laid out as one run each: rows that are few bytes, or no words.

    Where rows of outputs have an odd number of columns, the ring pairs the last one with the
    next row's first.
    """
    run = weight[2] * weight[3]
    short = run % 4 != 0 or run <= SHORT_RUN
    return short and op.dilation == (1, 1) and weight[3] <= 4 and result[2] % 2 == 0


def _band_convolution(
    op: ir.Conv2D,
    layer: Layer,
    weight: tuple[int, ...],
    source: tuple[int, int, int, int],
    result: tuple[int, int, int, int],
) -> Call:
    count, height, width, channels = source
    outputs, kernel_height, kernel_width, _ = weight
    depth = layer.rows.shape[1]
    by_column = layer.rows.reshape(weight).transpose(0, 2, 1, 3).reshape(outputs, depth)
    layer = replace(layer, rows=np.ascontiguousarray(by_column))
    reach = (result[2] - 1) * op.stride[1] + kernel_width
    columns = max(reach, op.padding.left + width)
    # What a last window's last word, or a store of four bytes, reaches beyond.
    band = ceil_to(columns * kernel_height * channels + 3, 4)
    words = ceil_to(depth, 4) // 4
    fields: dict[str, Value] = {
        "zero": layer.zero,
        "in_rows": height,
        "in_columns": width,
        "channels": channels,
        "top": op.padding.top,
        "left": op.padding.left,
        "window_rows": kernel_height,
        "words": words,
        "row_stride": op.stride[0],
        "step": op.stride[1] * kernel_height * channels,
        "out_rows": result[1],
        "out_columns": result[2],
        "band_bytes": band,
        "images": count,
    }
    macs = math.prod(result) * depth
    scratch = pair_bytes(depth) + band
    call = kernel_call(op, layer, Kernel("band", layer.form), fields, scratch, macs)
    rows, image = np.arange(result[1]), np.arange(count)[:, None]
    written = (image * result[1] + rows + 1) * result[2] * result[3]
    first = np.clip((rows + 1) * op.stride[0] - op.padding.top, 0, height)
    needed = (image * height + first) * width * channels
    needed[:, -1] = (image[:, 0] + 1) * height * width * channels
    lead = lead_of(written.reshape(-1), needed.reshape(-1), math.prod(source))
    return replace(call, overlaps={op.inputs[0]: lead})


def _ring_convolution(
    op: ir.Conv2D,
    layer: Layer,
    weight: tuple[int, ...],
    source: tuple[int, int, int, int],
    result: tuple[int, int, int, int],
) -> Call:
    count, height, width, channels = source
    _, kernel_height, kernel_width, _ = weight
    together = op.dilation[1] == 1 or kernel_width == 1
    runs = 1 if together else kernel_width
    run = kernel_width * channels if together else channels
    ring_rows = (kernel_height - 1) * op.dilation[0] + 1
    reach = (result[2] - 1) * op.stride[1] + (kernel_width - 1) * op.dilation[1] + 1
    ring_bytes = max(reach, op.padding.left + width) * channels
    depth = layer.rows.shape[1]
    # Runs of other than whole words must be joined; short ones take less time so.
    join = run % 4 != 0 or run <= SHORT_RUN
    fields: dict[str, Value] = {
        "zero": layer.zero,
        "in_rows": height,
        "in_row_bytes": width * channels,
        "left_bytes": op.padding.left * channels,
        "ring_bytes": ring_bytes,
        "ring_rows": ring_rows,
        "top": op.padding.top,
        "out_rows": result[1],
        "out_columns": result[2],
        "row_stride": op.stride[0],
        "column_bytes": op.stride[1] * channels,
        "window_rows": kernel_height,
        "row_dilation": op.dilation[0],
        "runs": runs,
        "run_bytes": run,
        "run_step": op.dilation[1] * channels,
        "join": int(join),
        "images": count,
    }
    # Two windows, each with a word that a last run may reach into.
    joined = 2 * (ceil_to(depth, 4) + 4) if join else 0
    ring = ceil_to(ring_rows * ring_bytes, 4)
    scratch = pair_bytes(depth) + 4 * kernel_height * runs + ring + joined
    macs = math.prod(result) * depth
    call = kernel_call(op, layer, Kernel("conv", layer.form), fields, scratch, macs)
    rows = np.arange(result[1])
    loaded = np.clip(rows * op.stride[0] + ring_rows - op.padding.top, 0, height)
    image = np.arange(count)[:, None]
    written = (image * result[1] + rows + 1) * result[2] * result[3]
    needed = (image * height + loaded) * width * channels
    # A later image is read from its first row on, even where this one's last rows are not.
    needed[:, -1] = (image[:, 0] + 1) * height * width * channels
    lead = lead_of(written.reshape(-1), needed.reshape(-1), math.prod(source))
    return replace(call, overlaps={op.inputs[0]: lead})


def _uniform(op: ir.FullyConnected, site: Site) -> Call | None:
    """One row of whole words and one multiplier for all channels: per channel only a bias."""
    layer = matrix_layer(op, site, apart=False)
    if isinstance(layer, str) or layer.form is not BYTES:
        return None
    outputs, depth = layer.rows.shape
    pair = layer.tail.channels.uniform
    rows = site.tensor(op.inputs[0]).elements // depth
    whole = depth % 4 == 0 and max(outputs, depth // 4) < 1 << 16
    shift = 0 if pair is None else pair[1] & 0xFF
    if pair is None or rows > 1 or not whole or shift == 0 or layer.tail.limits != (-128, 127):
        return None
    starts = layer.tail.channels.starts(8, BYTES.shared)
    fields: tuple[tuple[str, Value], ...] = (
        ("weights", Array(BYTES.pack(layer.rows, 8), Role.WEIGHTS)),
        ("words", depth // 4),
        ("count", outputs),
        ("multiplier", pair[0]),
        ("rounding", int(np.uint32(pair[1]).view(np.int32))),
        ("biases", Array(starts, Role.BIAS)),
    )
    return Call(
        name=op.name,
        kind=op.kind,
        function="es_dsp_fully_connected_uniform_s8",
        sources=("dsp/dsp_fully_connected_uniform_s8.c",),
        arguments=Struct("es_dsp_fully_connected_uniform_args", fields),
        reads=(op.inputs[0],),
        writes=(op.output,),
        macs=layer.rows.size,
    )


@lowers(ir.FullyConnected, kernels=KernelSet.DSP)
def fully_connected(op: ir.FullyConnected, site: Site) -> Call | Declined:
    """One row straight from its bytes; several rows as the pixels of a 1x1 convolution."""
    uniform = _uniform(op, site)
    if uniform is not None:
        return uniform
    layer = matrix_layer(op, site)
    if isinstance(layer, str):
        return Declined(layer)
    depth = layer.rows.shape[1]
    rows = site.tensor(op.inputs[0]).elements // depth
    if rows > 1 or not layer.form.rows:
        if depth % 4 == 0:
            return _pointwise(op, layer, (1, rows), (0, depth), rows * depth)
        same = ir.Conv2D(op.name, op.inputs, op.outputs, activation=op.activation)
        shapes = ((layer.outputs, 1, 1, depth), (1, 1, rows, depth), (1, 1, rows, layer.outputs))
        return replace(_ring_convolution(same, layer, *shapes), kind=op.kind)
    variant, scratch = ("_padded", ceil_to(depth, 4)) if depth % 4 else ("", 0)
    kernel = Kernel("fully_connected", layer.form, 8, variant)
    fields: dict[str, Value] = {"depth": depth, "rows": rows}
    return kernel_call(op, layer, kernel, fields, scratch, rows * layer.rows.size)
