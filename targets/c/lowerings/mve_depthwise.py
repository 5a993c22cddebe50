"""Depthwise convolution on the MVE kernels: int8 activations, int8 and int4 weights."""

from __future__ import annotations

import math

import numpy as np

from edgesmith.targets.c.lowerings import mve_layout as layout
from edgesmith.targets.c.lowerings.base import Declined, Site, lowers
from edgesmith.targets.c.lowerings.matrix import Window
from edgesmith.targets.c.lowerings.mve_layer import Layer, Ties, make_layer
from edgesmith.targets.c.lowerings.windows import overlap
from edgesmith.targets.c.program import Array, Call, KernelSet, Role, Struct
from edgesmith.targets.graph import ir

LEAST_ROW = 8
"""Outputs of a row for which making columns of codes pays; twice as many with stride 2."""


@lowers(ir.DepthwiseConv2D, kernels=KernelSet.MVE)
def depthwise_conv2d(op: ir.DepthwiseConv2D, site: Site) -> Call | Declined:
    """Any window, 16 channels at a time; 3x3 in long rows, 4 channels at a time."""
    if op.multiplier != 1:
        return Declined("channel multipliers other than 1 are not written")
    layer = make_layer(op, site, 3)
    if isinstance(layer, str):
        return Declined(layer)
    window = Window.of(op, site)
    if _in_columns(layer, window, site.scratch_bytes):
        return _columns_call(op, layer, window)
    if not _pairs_fit(layer.rows):
        return Declined("the sum of two products may leave 16 bits")
    return _taps_call(op, layer, window)


def _column_bytes(window: Window) -> int:
    """Scratch: words of the columns that the outputs of a row meet, in fours; four channels."""
    columns = -(-window.result[2] // 4) * 4 * window.stride[1] + 2
    return layout.GROUP * columns * 4


def _in_columns(layer: Layer, window: Window, limit: int | None) -> bool:
    if limit is not None and _column_bytes(window) > limit:
        return False
    return (
        window.kernel == (3, 3)
        and window.dilation == (1, 1)
        and window.stride[1] in (1, 2)
        and window.padding.left <= 2
        and window.result[2] >= LEAST_ROW * window.stride[1]
        and window.source[3] % layout.GROUP == 0
        and layer.bits == 8
        and layer.ties is not Ties.MIXED
    )


def _columns_call(op: ir.Op, layer: Layer, window: Window) -> Call:
    return Call(
        name=op.name,
        kind=op.kind,
        function="es_mve_depthwise_3x3_s8",
        sources=("mve/mve_depthwise_3x3_s8.c",),
        arguments=Struct(
            "es_mve_depthwise_3x3_args",
            (
                ("window", window.struct()),
                ("tail", layer.struct(layout.GROUP)),
                ("weights", Array(layout.pack_columns(layer.rows), Role.WEIGHTS)),
                ("in_zero", layer.zero),
            ),
        ),
        reads=(op.inputs[0],),
        writes=(op.output,),
        scratch_bytes=_column_bytes(window),
        # A row of outputs is complete for some channels before codes of others are read.
        overlaps={
            op.inputs[0]: overlap(
                window.source,
                window.result,
                window.stride,
                window.padding,
                positions_per_step=window.result[2],
            )
        },
        macs=math.prod(window.result) * 9,
    )


def _taps_call(op: ir.Op, layer: Layer, window: Window) -> Call:
    channels, taps = layer.rows.shape
    span = _span(window.stride[1], channels)
    wide = layer.repeated(span)
    rows, columns = (
        np.arange(size) * step for size, step in zip(window.kernel, window.dilation, strict=True)
    )
    offsets = (rows[:, None] * window.source[2] + columns) * channels
    packed = layout.pack_taps(wide.rows.T, layer.bits)
    padding_bytes = -(-channels // layout.LANES) * layout.LANES
    width = f"s{layer.bits}"
    return Call(
        name=op.name,
        kind=op.kind,
        function=f"es_mve_depthwise_{width}",
        sources=tuple(dict.fromkeys((f"mve/mve_depthwise_{width}.c", "mve/mve_depthwise_s8.c"))),
        arguments=Struct(
            "es_mve_depthwise_args",
            (
                ("window", window.struct()),
                ("tail", wide.struct(layout.LANES)),
                ("weights", Array(packed, Role.WEIGHTS)),
                ("offsets", Array(offsets.reshape(-1).astype(np.int32), Role.TABLE)),
                ("span", span),
                ("in_zero", layer.zero),
            ),
        ),
        reads=(op.inputs[0],),
        writes=(op.output,),
        scratch_bytes=padding_bytes + 4 * taps + (2 * packed.size if layer.bits == 4 else 0),
        # One vector holds all channels of a position: they are read before any is written.
        overlaps={op.inputs[0]: window.overlap(1, delay=int(channels <= layout.LANES))},
        macs=math.prod(window.result) * taps,
    )


def _span(stride: int, channels: int) -> int:
    """How many neighbouring positions fill a vector: with stride 1 their codes are contiguous."""
    if stride != 1 or channels >= layout.LANES or layout.LANES % channels:
        return 1
    return layout.LANES // channels


def _pairs_fit(rows: layout.Codes) -> bool:
    """Whether products of int8 codes with two taps in a row add up in 16 bits."""
    channels, taps = rows.shape
    padded = np.zeros((channels, taps + taps % 2), np.int64)
    padded[:, :taps] = np.abs(rows.astype(np.int64))
    pairs = padded.reshape(channels, -1, 2).sum(axis=2)
    return bool(pairs.max(initial=0) * 128 < 1 << 15)
