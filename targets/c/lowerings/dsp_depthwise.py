"""Depthwise convolution on the DSP kernels: int8 activations, int8 and int4 weights."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgesmith.targets.c import packing
from edgesmith.targets.c.lowerings.base import Declined, Site, lowers
from edgesmith.targets.c.lowerings.dsp_tail import DspTail, channel_tail
from edgesmith.targets.c.lowerings.matrix import pack_rows, reference_call
from edgesmith.targets.c.program import Array, Call, KernelSet, Overlap, Role, Struct, Value
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType
from edgesmith.targets.graph.reference import linear

# The most scratch bytes that four planes at a time may take.
FOUR_PLANES = 2048

# Sums that the kernels in assembly keep, where a row has no more.
SUMS = 64


def _ceil(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _is_3x3(op: ir.DepthwiseConv2D, weight: tuple[int, ...], columns: int) -> bool:
    """Whether the kernels in assembly take it; they make two columns at a time."""
    if weight[1:3] != (3, 3) or op.dilation != (1, 1):
        return False
    return op.stride == (2, 2) or (op.stride == (1, 1) and columns >= 2)


def _tail(op: ir.DepthwiseConv2D, site: Site) -> tuple[DspTail, packing.Codes] | str:
    """The tail and the weights [C * multiplier, kh * kw]."""
    reference = reference_call(op, site)
    source, weight = reference.tensor(0), reference.tensor(1)
    if source.dtype is not DType.INT8 or reference.output.dtype is not DType.INT8:
        return "only int8 activations are written"
    if weight.dtype not in (DType.INT8, DType.INT4):
        return f"{weight.dtype} weights are not written"
    linear.require_symmetric(reference, weight)
    outputs = weight.shape[3]
    scales = linear.weight_scales(reference, weight, outputs)
    tail = linear.make_tail(reference, op.activation, scales, outputs)
    rows = np.ascontiguousarray(reference.constant(1).astype(np.int8).reshape(-1, outputs).T)
    found = channel_tail(tail, rows, source.q.scalar[1])
    return found if isinstance(found, str) else (found, rows)


def _weights(rows: packing.Codes, bits: int, fast: bool) -> tuple[npt.NDArray[np.int8], int]:
    """Packed weights and the bytes of a channel."""
    if bits == 4:
        packed = packing.pack_3x3_s4(rows) if fast else pack_rows(rows, 4)
    else:
        packed = packing.pack_3x3_s8(rows) if fast else pack_rows(rows, 8)
    return packed, (rows.shape[1] * bits + 7) // 8


def _row_pairs(op: ir.DepthwiseConv2D, window: tuple[int, int]) -> int:
    """Column pairs of a window row whose dilation is filled with zeros."""
    return ((window[1] - 1) * op.dilation[1] + 2) // 2


def _plane(
    op: ir.DepthwiseConv2D, window: tuple[int, int], width: int, columns: int, fast: bool
) -> tuple[int, int]:
    """Bytes of a plane row, and rows that reach beyond a window's first."""
    reach = (columns - 1) * op.stride[1] + 2 * _row_pairs(op, window)
    # In assembly every step reads four columns: for two outputs, or for one.
    if fast:
        reach = 2 * columns + 2 if op.stride[1] == 2 else _ceil(columns, 2) + 2
    halves = max(op.padding.left + width, reach)
    return 2 * _ceil(halves, 2), (window[0] - 1) * op.dilation[0]


def _chunk_rows(rows: int, columns: int) -> int:
    """Output rows whose sums are kept at a time: enough that a change of loops costs little."""
    return max(1, min(rows, SUMS // columns))


def _strip_rows(rows: int, stride: int, reach: int, row_bytes: int, budget: int | None) -> int:
    """The most output rows whose plane fits the budget, at least one."""
    if budget is None:
        return rows
    return max(1, min(rows, (budget // row_bytes - reach - 1) // stride + 1))


def _overlap(
    op: ir.DepthwiseConv2D, source: tuple[int, ...], result: tuple[int, ...], strip: int
) -> Overlap | None:
    """In place, or as far ahead of the input as the rows that the next strip needs again."""
    if op.multiplier != 1 or source[0] != 1:
        return None
    channels = source[3]
    ends = np.arange(strip, result[1], strip)
    needed = np.clip(ends * op.stride[0] - op.padding.top, 0, source[1]) * source[2]
    pixels = int((ends * result[2] - needed).max(initial=0))
    while pixels * channels % 4:
        pixels += 1
    return Overlap(pixels * channels, exact=True)


@lowers(ir.DepthwiseConv2D, kernels=KernelSet.DSP)
def depthwise_conv2d(op: ir.DepthwiseConv2D, site: Site) -> Call | Declined:
    """Any window; 3x3 with stride 1 or 2 in assembly."""
    found = _tail(op, site)
    if isinstance(found, str):
        return Declined(found)
    tail, rows = found
    weight = site.tensor(op.inputs[1])
    source, result = site.tensor(op.inputs[0]), site.tensor(op.output)
    fast = _is_3x3(op, weight.shape, result.shape[2])
    window = (weight.shape[1], weight.shape[2])
    packed, channel_bytes = _weights(rows, weight.dtype.bits, fast)
    row_bytes, reach = _plane(op, window, source.shape[2], result.shape[2], fast)
    chunk = _chunk_rows(result.shape[1], result.shape[2]) if fast else 0
    # An odd number of columns makes a sum too many.
    beside = 4 * (chunk * result.shape[2] + 1) if fast else 4 * window[0] * _row_pairs(op, window)
    budget = None if site.scratch_bytes is None else site.scratch_bytes - beside
    strip = _strip_rows(result.shape[1], op.stride[0], reach, row_bytes, budget)
    plane_rows = (strip - 1) * op.stride[0] + reach + 1
    plane = plane_rows * row_bytes
    width, channels = source.shape[2:4]
    four = fast and width > 1 and channels % 4 == 0 and 4 * plane <= FOUR_PLANES
    planes = 4 if four and site.scratch_bytes is None else 1
    fields: tuple[tuple[str, Value], ...] = (
        ("weights", Array(packed, Role.WEIGHTS)),
        ("outputs", tail.struct(1)),
        ("zero", source.q.scalar[1]),
        ("weight_bytes", channel_bytes),
        ("images", source.shape[0]),
        ("in_rows", source.shape[1]),
        ("in_columns", source.shape[2]),
        ("in_channels", source.shape[3]),
        ("multiplier", op.multiplier),
        ("window_rows", window[0]),
        ("window_columns", window[1]),
        ("row_stride", op.stride[0]),
        ("column_stride", op.stride[1]),
        ("row_dilation", op.dilation[0]),
        ("column_dilation", op.dilation[1]),
        ("top", op.padding.top),
        ("left", op.padding.left),
        ("out_rows", result.shape[1]),
        ("out_columns", result.shape[2]),
        ("strip_rows", strip),
        ("plane_rows", plane_rows),
        ("plane_bytes", row_bytes),
        ("planes", planes),
        ("chunk_rows", min(chunk, strip)),
    )
    kernel = "depthwise"
    if fast:
        kernel += "_3x3" if op.stride == (1, 1) else "_3x3_stride2"
    bits = weight.dtype.bits
    shared = ("depthwise", "depthwise_codes", "gather", "gather_four", "bytes")
    overlap = _overlap(op, source.shape, result.shape, strip)
    return Call(
        name=op.name,
        kind=op.kind,
        function=f"es_dsp_{kernel}_s{bits}",
        sources=tuple(f"dsp/dsp_{stem}.c" for stem in (f"{kernel}_s{bits}", *shared)),
        arguments=Struct("es_dsp_depthwise_args", fields),
        reads=(op.inputs[0],),
        writes=(op.output,),
        scratch_bytes=_ceil(planes * plane + beside, 8),
        overlaps={} if overlap is None else {op.inputs[0]: overlap},
        macs=math.prod(result.shape) * window[0] * window[1],
    )
