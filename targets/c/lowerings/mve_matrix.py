"""Convolution, depthwise convolution and fully connected on the MVE kernels.

int8 activations with int8 and int4 weights. What they do not cover is declined, and the
portable kernels take over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from edgesmith.targets.c.lowerings import mve_layout as layout
from edgesmith.targets.c.lowerings.base import Declined, Site, lowers
from edgesmith.targets.c.lowerings.matrix import Window, reference_call, shape4
from edgesmith.targets.c.lowerings.windows import overlap
from edgesmith.targets.c.program import Array, Call, KernelSet, Overlap, Role, Struct
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType
from edgesmith.targets.graph.reference import linear
from edgesmith.targets.graph.requantize import Rounding, quantize_multiplier

# Sums of 4-bit products are held 16 times as large, in 32 bits: a product is up to 2**14.
LARGEST_S4_DEPTH = 1 << 16


class _Ties(IntEnum):
    """How negative ties of the right shift fall (`es_mve.h`)."""

    HIDDEN = 0
    AWAY = 1
    MIXED = 2


@dataclass(frozen=True, eq=False)
class _Layer:
    """Weights [O, K] as codes, and what turns sums of products with plain codes into codes."""

    rows: layout.Codes
    bits: int
    zero: int
    bias: layout.Int64Array
    tail: linear.Tail

    def repeated(self, count: int) -> _Layer:
        """Every channel once more per neighbouring pixel; the tail has one entry or is alike."""
        rows, bias = np.tile(self.rows, (count, 1)), np.tile(self.bias, count)
        return _Layer(rows, self.bits, self.zero, bias, self.tail)

    def struct(self, lanes: int) -> Struct:
        """`es_mve_tail`, its records in groups of `lanes` channels."""
        by = quantize_multiplier(self.tail.real)
        count = len(self.rows) // by.shift.size
        multiplier, shift = np.tile(by.multiplier, count), np.tile(by.shift, count)
        shift = np.where(multiplier == 0, -1, shift)
        hidden = self.tail.limits[0] >= self.tail.zero
        ties = _Ties.HIDDEN if hidden else _Ties.AWAY
        if shift.max() >= (1 if hidden else 0):
            ties = _Ties.MIXED
        records = layout.pack_records(self.bias, multiplier, shift, lanes)
        low, high = self.tail.limits
        return Struct(
            "es_mve_tail",
            (
                ("records", Array(records, Role.REQUANTIZATION)),
                ("ties", int(ties)),
                ("zero", self.tail.zero),
                ("low", low),
                ("high", high),
            ),
        )


def _layer(op: ir.Op, site: Site, channel_axis: int) -> _Layer | str:
    reference = reference_call(op, site)
    source, weight = reference.tensor(0), reference.tensor(1)
    if source.dtype is not DType.INT8 or reference.output.dtype is not DType.INT8:
        return "only int8 activations are written"
    if weight.dtype not in (DType.INT8, DType.INT4):
        return f"{weight.dtype} weights are not written"
    linear.require_symmetric(reference, weight)
    channels = weight.shape[channel_axis]
    tail = linear.make_tail(
        reference,
        getattr(op, "activation", ir.Activation.NONE),
        linear.weight_scales(reference, weight, channels),
        channels,
    )
    if tail.rounding is not Rounding.DOUBLE or tail.wide:
        return "only double rounding of 32-bit sums is written"
    codes = np.moveaxis(reference.constant(1), channel_axis, 0).reshape(channels, -1)
    zero = source.q.scalar[1]
    bias = np.broadcast_to(tail.bias, (channels,)) - zero * codes.sum(axis=1, dtype=np.int64)
    return _Layer(codes, weight.dtype.bits, zero, bias, tail)


def _convolution(op: ir.Op, site: Site, layer: _Layer, window: Window) -> Call | Declined:
    outputs, depth = layer.rows.shape
    if layer.bits == 4 and depth > LARGEST_S4_DEPTH:
        return Declined(f"sums of {depth} int4 products are not written")
    behind = layout.bytes_behind(outputs, depth, layer.bits)
    weights = np.pad(layout.pack_rows(layer.rows, layer.bits), (0, behind))
    limit = site.scratch_bytes
    pixels = 1 if limit is not None and 2 * depth > limit else 2
    name = "pointwise" if window.pointwise else "conv"
    width = f"s{layer.bits}"
    positions = math.prod(window.result[:3])
    return Call(
        name=op.name,
        kind=op.kind,
        function=f"es_mve_{name}_{width}",
        sources=(f"mve/mve_{name}_{width}.c", f"mve/mve_rows_{width}.c"),
        arguments=Struct(
            "es_mve_conv_args",
            (
                ("window", window.struct()),
                ("tail", layer.struct(layout.GROUP)),
                ("weights", Array(weights, Role.WEIGHTS)),
                ("depth", depth),
                ("pixels", pixels),
                ("in_zero", layer.zero),
            ),
        ),
        reads=(op.inputs[0],),
        writes=(op.output,),
        scratch_bytes=0 if window.pointwise else pixels * depth,
        overlaps={op.inputs[0]: _overlap(window, pixels)},
        macs=positions * outputs * depth,
    )


def _overlap(window: Window, pixels: int) -> Overlap:
    # The pointwise kernel takes two positions at a time, and writes some channels of them
    # before it has read the codes for the others.
    return overlap(
        window.source,
        window.result,
        window.stride,
        window.padding,
        positions_per_step=2 if window.pointwise else pixels,
        buffered=not window.pointwise,
    )


@lowers(ir.Conv2D, kernels=KernelSet.MVE)
def conv2d(op: ir.Conv2D, site: Site) -> Call | Declined:
    """Convolution of one group."""
    if op.groups != 1:
        return Declined("convolution in groups is not written")
    layer = _layer(op, site, 0)
    if isinstance(layer, str):
        return Declined(layer)
    weight = site.tensor(op.inputs[1]).shape
    window = Window(
        shape4(site.tensor(op.inputs[0]).shape),
        shape4(site.tensor(op.output).shape),
        (weight[1], weight[2]),
        op.stride,
        op.dilation,
        op.padding,
    )
    return _convolution(op, site, layer, window)


@lowers(ir.FullyConnected, kernels=KernelSet.MVE)
def fully_connected(op: ir.FullyConnected, site: Site) -> Call | Declined:
    """Every row of the input is one position of a 1x1 convolution."""
    layer = _layer(op, site, 0)
    if isinstance(layer, str):
        return Declined(layer)
    outputs, depth = layer.rows.shape
    rows = site.tensor(op.inputs[0]).elements // depth
    return _convolution(op, site, layer, Window((1, 1, rows, depth), (1, 1, rows, outputs)))


@lowers(ir.DepthwiseConv2D, kernels=KernelSet.MVE)
def depthwise_conv2d(op: ir.DepthwiseConv2D, site: Site) -> Call | Declined:
    """Depthwise convolution of any window; 16 channels at a time."""
    if op.multiplier != 1:
        return Declined("channel multipliers other than 1 are not written")
    layer = _layer(op, site, 3)
    if isinstance(layer, str):
        return Declined(layer)
    if not _pairs_fit(layer.rows):
        return Declined("the sum of two products may leave 16 bits")
    channels, taps = layer.rows.shape
    span = _span(op, channels)
    wide = layer.repeated(span)
    weight = site.tensor(op.inputs[1]).shape
    source, result = (site.tensor(name).shape for name in (op.inputs[0], op.output))
    window = Window(
        shape4(source),
        shape4(result),
        (weight[1], weight[2]),
        op.stride,
        op.dilation,
        op.padding,
    )
    rows, columns = np.arange(weight[1]) * op.dilation[0], np.arange(weight[2]) * op.dilation[1]
    offsets = (rows[:, None] * source[2] + columns) * channels
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
        overlaps={op.inputs[0]: window.overlap(1, buffered=channels <= layout.LANES)},
        macs=math.prod(result) * taps,
    )


def _span(op: ir.DepthwiseConv2D, channels: int) -> int:
    """How many neighbouring positions fill a vector: with stride 1 their codes are contiguous."""
    if op.stride[1] != 1 or channels >= layout.LANES or layout.LANES % channels:
        return 1
    return layout.LANES // channels


def _pairs_fit(rows: layout.Codes) -> bool:
    """Whether products of int8 codes with two taps in a row add up in 16 bits."""
    channels, taps = rows.shape
    padded = np.zeros((channels, taps + taps % 2), np.int64)
    padded[:, :taps] = np.abs(rows.astype(np.int64))
    pairs = padded.reshape(channels, -1, 2).sum(axis=2)
    return bool(pairs.max(initial=0) * 128 < 1 << 15)
