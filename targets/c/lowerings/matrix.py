"""Convolution, depthwise convolution and fully connected on the portable kernels.

They take int8 activations with int8, int4 and int2 weights, and int16 activations with
the same. A fully connected operator is a 1x1 convolution over its rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.windows import overlap
from edgesmith.targets.c.program import Array, Call, Overlap, Role, Struct, Value
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Padding, Pair, Tensor
from edgesmith.targets.graph.reference import kernel, linear
from edgesmith.targets.graph.requantize import quantize_multiplier

Codes = npt.NDArray[np.integer]
Shape4 = tuple[int, int, int, int]


def pack_rows(codes: Codes, bits: int) -> npt.NDArray[np.int8]:
    """Rows of codes [rows, n], little end first, each starting at a byte; flat."""
    if bits == 8:
        return codes.astype(np.int8).reshape(-1)
    per_byte = 8 // bits
    rows, count = codes.shape
    padded = np.zeros((rows, -(-count // per_byte) * per_byte), np.uint8)
    padded[:, :count] = codes.astype(np.int64) & ((1 << bits) - 1)
    parts = padded.reshape(rows, -1, per_byte) << (np.arange(per_byte, dtype=np.uint8) * bits)
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(parts, axis=2).astype(np.uint8)
    return packed.view(np.int8).reshape(-1)


def unpack_rows(packed: npt.NDArray[np.int8], count: int, bits: int) -> npt.NDArray[np.int8]:
    """The inverse of `pack_rows`: codes [rows, count]."""
    if bits == 8:
        return packed.reshape(-1, count)
    per_byte = 8 // bits
    stored = packed.view(np.uint8).reshape(-1, -(-count // per_byte), 1)
    codes = (stored >> (np.arange(per_byte, dtype=np.uint8) * bits)) & ((1 << bits) - 1)
    sign = 1 << (bits - 1)
    signed = (codes.astype(np.int16) ^ sign) - sign
    return signed.reshape(len(stored), -1)[:, :count].astype(np.int8)


def reference_call(op: ir.Op, site: Site) -> kernel.Call:
    """The operator as the reference executor's kernels see it, constants only."""
    tensors = site.graph.operands(op)
    values = tuple(
        None if tensor is None or tensor.data is None else tensor.data[None] for tensor in tensors
    )
    return kernel.Call(op, tensors, values, site.tensor(op.output), site.profile, 1)


@dataclass(frozen=True)
class Window:
    """The geometry shared by all matrix kernels; shapes are [N, H, W, C]."""

    source: Shape4
    result: Shape4
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding = field(default_factory=Padding)

    @property
    def pointwise(self) -> bool:
        plain = self.kernel == self.stride == (1, 1) and self.padding == Padding()
        return plain and self.source[:3] == self.result[:3]

    def struct(self) -> Struct:
        names = ("height", "width", "channels")
        fields: list[tuple[str, Value]] = [("batch", self.source[0])]
        fields += [(f"in_{name}", size) for name, size in zip(names, self.source[1:], strict=True)]
        fields += [(f"out_{name}", size) for name, size in zip(names, self.result[1:], strict=True)]
        for what in ("kernel", "stride", "dilation"):
            pair = getattr(self, what)
            fields += [(f"{what}_height", pair[0]), (f"{what}_width", pair[1])]
        fields += [("pad_top", self.padding.top), ("pad_left", self.padding.left)]
        return Struct("es_window", tuple(fields))

    def overlap(self, element_bytes: int, *, buffered: bool) -> Overlap:
        return overlap(
            self.source,
            self.result,
            self.stride,
            self.padding,
            element_bytes=element_bytes,
            buffered=buffered,
        )


def _tail_struct(tail: linear.Tail) -> Struct:
    by = quantize_multiplier(tail.real)
    return Struct(
        "es_tail",
        (
            ("multiplier", Array(by.multiplier.astype(np.int32), Role.REQUANTIZATION)),
            ("shift", Array(by.shift.astype(np.int8), Role.REQUANTIZATION, alignment=1)),
            ("per_channel", int(by.shift.size > 1)),
            ("zero", tail.zero),
            ("low", tail.limits[0] - tail.zero),
            ("high", tail.limits[1] - tail.zero),
        ),
    )


def _activation(op: ir.Op) -> ir.Activation:
    found: ir.Activation = getattr(op, "activation", ir.Activation.NONE)
    return found


def _call(
    op: ir.Op, site: Site, window: Window, rows: Codes, channel_axis: int, fold: Codes | None
) -> tuple[Struct, DType, linear.Tail]:
    """Arguments that convolution and depthwise convolution share."""
    reference = reference_call(op, site)
    weight, source = reference.tensor(1), reference.tensor(0)
    reference.integer_activations(0)
    linear.require_symmetric(reference, weight)
    channels = weight.shape[channel_axis]
    scales = linear.weight_scales(reference, weight, channels)
    tail = linear.make_tail(reference, _activation(op), scales, channels)
    zero = source.q.scalar[1]
    bias = np.broadcast_to(tail.bias, (channels,))
    if fold is not None:
        bias = bias - zero * fold
    narrow = source.dtype is DType.INT8
    held = bias.astype(np.int32) if narrow else bias.astype(np.int64)
    bits = weight.dtype.bits
    fields: list[tuple[str, Value]] = [
        ("window", window.struct()),
        ("tail", _tail_struct(tail)),
        ("weights", Array(pack_rows(rows, bits), Role.WEIGHTS)),
        ("bias", Array(held, Role.BIAS, alignment=held.itemsize)),
        ("weight_bits", bits),
    ]
    return Struct("", tuple(fields)), source.dtype, tail


def _extended(shared: Struct, type_name: str, **more: Value) -> Struct:
    return Struct(type_name, (*shared.fields, *more.items()))


def _width(dtype: DType) -> str:
    return f"s{dtype.bits}"


def _convolution(
    op: ir.Op, site: Site, window: Window, weight: Tensor, groups: int, macs: int
) -> Call:
    assert weight.data is not None
    rows = weight.data.astype(np.int8).reshape(weight.shape[0], -1)
    folded = rows.astype(np.int64).sum(axis=1)
    shared, dtype, tail = _call(op, site, window, rows, 0, folded)
    zero = site.tensor(op.inputs[0]).q.scalar[1]
    name = f"es_conv_{_width(dtype)}"
    more: dict[str, Value] = {"groups": groups, "in_zero": zero}
    if dtype is DType.INT16:
        more["narrow"] = int(not tail.wide)
    item = dtype.bits // 8
    patch = window.kernel[0] * window.kernel[1] * window.source[3] * item
    return Call(
        name=op.name,
        kind=op.kind,
        function=f"{name}_pointwise" if window.pointwise else name,
        sources=(f"portable/matrix_conv_{_width(dtype)}.c",),
        arguments=_extended(shared, f"{name}_args", **more),
        reads=(op.inputs[0],),
        writes=(op.output,),
        scratch_bytes=0 if window.pointwise else patch,
        overlaps={op.inputs[0]: window.overlap(item, buffered=not window.pointwise)},
        macs=macs,
    )


def shape4(shape: tuple[int, ...]) -> Shape4:
    batch, height, width, channels = shape
    return batch, height, width, channels


@lowers(ir.Conv2D)
def conv2d(op: ir.Conv2D, site: Site) -> Call:
    """Convolution, grouped or not."""
    weight = site.tensor(op.inputs[1])
    source, result = site.tensor(op.inputs[0]).shape, site.tensor(op.output).shape
    window = Window(
        shape4(source),
        shape4(result),
        (weight.shape[1], weight.shape[2]),
        op.stride,
        op.dilation,
        op.padding,
    )
    macs = math.prod(result) * math.prod(weight.shape[1:])
    return _convolution(op, site, window, weight, op.groups, macs)


@lowers(ir.FullyConnected)
def fully_connected(op: ir.FullyConnected, site: Site) -> Call:
    """Every row of the input is one position of a 1x1 convolution."""
    weight = site.tensor(op.inputs[1])
    outputs, depth = weight.shape
    rows = site.tensor(op.inputs[0]).elements // depth
    window = Window((1, 1, rows, depth), (1, 1, rows, outputs))
    return _convolution(op, site, window, weight, 1, rows * outputs * depth)


@lowers(ir.DepthwiseConv2D)
def depthwise_conv2d(op: ir.DepthwiseConv2D, site: Site) -> Call:
    """Depthwise convolution with any channel multiplier."""
    weight = site.tensor(op.inputs[1])
    assert weight.data is not None
    source, result = site.tensor(op.inputs[0]).shape, site.tensor(op.output).shape
    kernel_size = (weight.shape[1], weight.shape[2])
    window = Window(shape4(source), shape4(result), kernel_size, op.stride, op.dilation, op.padding)
    rows = weight.data.astype(np.int8).reshape(-1, weight.shape[3])
    shared, dtype, tail = _call(op, site, window, rows, 3, None)
    more: dict[str, Value] = {
        "multiplier": op.multiplier,
        "in_zero": site.tensor(op.inputs[0]).q.scalar[1],
    }
    if dtype is DType.INT16:
        more["narrow"] = int(not tail.wide)
    name = f"es_depthwise_{_width(dtype)}"
    return Call(
        name=op.name,
        kind=op.kind,
        function=name,
        sources=(f"portable/matrix_depthwise_{_width(dtype)}.c",),
        arguments=_extended(shared, f"{name}_args", **more),
        reads=(op.inputs[0],),
        writes=(op.output,),
        overlaps={op.inputs[0]: window.overlap(dtype.bits // 8, buffered=False)},
        macs=math.prod(result) * math.prod(kernel_size),
    )
