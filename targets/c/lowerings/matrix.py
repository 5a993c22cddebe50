"""Convolution, depthwise convolution and fully connected on the portable kernels.

They take int8 activations with int8, int4 and int2 weights, and int16 activations with
the same. A fully connected operator is a 1x1 convolution over its rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.windows import overlap
from edgesmith.targets.c.program import Array, Call, Overlap, Role, Struct, Value
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Padding, Pair
from edgesmith.targets.graph.reference import kernel, linear
from edgesmith.targets.graph.requantize import quantize_multiplier

Codes = npt.NDArray[np.integer]
Shape4 = tuple[int, int, int, int]

TAP_BYTES = 8  # es_tap


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


def pack_pairs(codes: Codes, bits: int, groups: int = 1) -> npt.NDArray[np.uint32]:
    """Rows of codes [rows, n] below 8 bits, two neighbours of a group in a word, flat.

    [groups, pairs, words]: the first row's codes plus 2^(bits - 1) fill the low half, the
    lowest bits first, the second row's the high one.
    """
    per_half = 16 // bits
    rows, count = codes.shape
    filters, words = rows // groups, -(-count // per_half)
    padded = np.zeros((groups, filters + filters % 2, words * per_half), np.uint32)
    padded[:, :filters, :count] = codes.reshape(groups, filters, count) + (1 << (bits - 1))
    parts = padded.reshape(-1, 2, words, per_half) << (np.arange(per_half, dtype=np.uint32) * bits)
    halves = np.bitwise_or.reduce(parts, axis=3)
    packed: npt.NDArray[np.uint32] = (halves[:, 0] | halves[:, 1] << 16).astype(np.uint32)
    return packed.reshape(-1)


def unpack_pairs(
    packed: npt.NDArray[np.uint32], shape: tuple[int, int], bits: int, groups: int = 1
) -> npt.NDArray[np.int8]:
    """The inverse of `pack_pairs`: codes of `shape` [rows, count]."""
    per_half = 16 // bits
    rows, count = shape
    words = packed.reshape(-1, 1, -(-count // per_half), 1)
    lanes = np.arange(2, dtype=np.uint32).reshape(2, 1, 1) * 16
    shifts = lanes + np.arange(per_half, dtype=np.uint32) * bits
    codes = ((words >> shifts) & ((1 << bits) - 1)).astype(np.int8) - (1 << (bits - 1))
    of_group = codes.reshape(groups, -1, words.shape[2] * per_half)
    return of_group[:, : rows // groups, :count].reshape(rows, count).astype(np.int8)


def reference_call(op: ir.Op, site: Site) -> kernel.Call:
    """The operator as the reference executor's kernels see it, constants only."""
    tensors = site.graph.operands(op)
    values = tuple(
        None if tensor is None or tensor.data is None else tensor.data[None] for tensor in tensors
    )
    return kernel.Call(op, tensors, values, site.tensor(op.output), site.profile, 1)


def _shape4(shape: tuple[int, ...]) -> Shape4:
    batch, height, width, channels = shape
    return batch, height, width, channels


@dataclass(frozen=True)
class Window:
    """The geometry shared by all matrix kernels; shapes are [N, H, W, C]."""

    source: Shape4
    result: Shape4
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding = field(default_factory=Padding)

    @classmethod
    def of(cls, op: ir.Conv2D | ir.DepthwiseConv2D | ir.FullyConnected, site: Site) -> Window:
        """An operator's geometry; every row of a fully connected one is a position of 1x1."""
        source, weight = site.tensor(op.inputs[0]), site.tensor(op.inputs[1])
        if isinstance(op, ir.FullyConnected):
            outputs, depth = weight.shape
            rows = source.elements // depth
            return cls((1, 1, rows, depth), (1, 1, rows, outputs))
        return cls(
            _shape4(source.shape),
            _shape4(site.tensor(op.output).shape),
            (weight.shape[1], weight.shape[2]),
            op.stride,
            op.dilation,
            op.padding,
        )

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

    def overlap(self, element_bytes: int, *, delay: int = 0) -> Overlap:
        return overlap(
            self.source,
            self.result,
            self.stride,
            self.padding,
            element_bytes=element_bytes,
            delay=delay,
        )


def tail_struct(tail: linear.Tail) -> Struct:
    """The `es_tail` of an operator."""
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


@dataclass(frozen=True, eq=False)
class _Matrix:
    """What convolution and depthwise convolution share; `weights` have one row per channel."""

    op: ir.Op
    window: Window
    weights: Codes
    bits: int
    dtype: DType
    zero: int
    tail: linear.Tail
    bias: npt.NDArray[np.int64]

    @property
    def item(self) -> int:
        return self.dtype.bits // 8

    def bias_array(self, bias: npt.NDArray[np.int64]) -> Array:
        held = bias.astype(np.int32) if self.dtype is DType.INT8 else bias
        return Array(held, Role.BIAS, alignment=held.itemsize)

    def folded(self) -> npt.NDArray[np.int64]:
        """The bias with the input's zero point, for windows that meet all weights."""
        folded: npt.NDArray[np.int64] = self.weights.astype(np.int64).sum(axis=1) * -self.zero
        return folded + self.bias

    def narrow(self) -> dict[str, Value]:
        return {} if self.dtype is DType.INT8 else {"narrow": int(not self.tail.wide)}

    def struct(self, type_name: str, weights: Array, **more: Value) -> Struct:
        shared: dict[str, Value] = {"window": self.window.struct()}
        shared |= {"tail": tail_struct(self.tail), "weights": weights}
        return Struct(type_name, (*shared.items(), *more.items()))

    def call(self, function: str, source: str, arguments: Struct, **fields: Any) -> Call:
        return Call(
            name=self.op.name,
            kind=self.op.kind,
            function=function,
            sources=(f"portable/matrix_{source}.c",),
            arguments=arguments,
            reads=(self.op.inputs[0],),
            writes=(self.op.output,),
            macs=math.prod(self.window.result) * self.weights.shape[1],
            **fields,
        )


def matrix_of(op: ir.Op, site: Site, window: Window, channel_axis: int) -> _Matrix:
    """An operator's weights with its tail and bias; `channel_axis` is that of the weights."""
    reference = reference_call(op, site)
    weight, source = reference.tensor(1), reference.tensor(0)
    reference.integer_activations(0)
    linear.require_symmetric(reference, weight)
    channels = weight.shape[channel_axis]
    scales = linear.weight_scales(reference, weight, channels)
    tail = linear.make_tail(reference, _activation(op), scales, channels)
    assert weight.data is not None
    rows = np.moveaxis(weight.data.astype(np.int8), channel_axis, 0).reshape(channels, -1)
    bias = np.broadcast_to(tail.bias, (channels,)).astype(np.int64)
    zero = source.q.scalar[1]
    return _Matrix(op, window, rows, weight.dtype.bits, source.dtype, zero, tail, bias)


def _convolution(op: ir.Op, site: Site, window: Window, groups: int = 1) -> Call:
    matrix = matrix_of(op, site, window, 0)
    low = matrix.bits < 8
    name = f"es_conv_{'low_' if low else ''}s{matrix.dtype.bits}"
    outputs, row = matrix.weights.shape
    packed = pack_pairs(matrix.weights, matrix.bits, groups) if low else matrix.weights.reshape(-1)
    arguments = matrix.struct(
        f"{name}_args",
        Array(packed, Role.WEIGHTS),
        bias=matrix.bias_array(matrix.folded()),
        groups=groups,
        depth=window.source[3] // groups,
        filters=outputs // groups,
        row=row,
        in_zero=matrix.zero,
        **matrix.narrow(),
        **({"weight_bits": matrix.bits} if low else {}),
    )
    suffix, delay, codes = "", 1, groups * row
    if window.pointwise and groups == 1:
        one = math.prod(window.result[:3]) == 1
        suffix, delay, codes = ("_fully_connected", 0, 0) if one else ("_pointwise", 1, outputs)
    return matrix.call(
        f"{name}{suffix}",
        name.removeprefix("es_"),
        arguments,
        scratch_bytes=codes * matrix.item,
        overlaps={op.inputs[0]: window.overlap(matrix.item, delay=delay)},
    )


@lowers(ir.Conv2D)
def conv2d(op: ir.Conv2D, site: Site) -> Call:
    """Convolution, grouped or not."""
    return _convolution(op, site, Window.of(op, site), op.groups)


@lowers(ir.FullyConnected)
def fully_connected(op: ir.FullyConnected, site: Site) -> Call:
    """Every row of the input is one position of a 1x1 convolution."""
    return _convolution(op, site, Window.of(op, site))


def _delay(window: Window, limit: int) -> int:
    """Positions that outputs wait, at most `limit`: the fewest after which they fit in place.

    A waiting position costs its own bytes and gains as many in overlap, which adds up along
    a chain of operators as scratch does not.
    """
    return next(
        (held for held in range(1, limit) if window.overlap(1, delay=held).distance <= 0), limit
    )


@lowers(ir.DepthwiseConv2D)
def depthwise_conv2d(op: ir.DepthwiseConv2D, site: Site) -> Call:
    """Depthwise convolution with any channel multiplier."""
    window = Window.of(op, site)
    kernel_size, result = window.kernel, window.result
    matrix = matrix_of(op, site, window, 3)
    channels, taps = matrix.weights.shape
    fixed = TAP_BYTES * taps + (channels * taps if matrix.bits < 8 else 0)
    slot = channels * matrix.item
    # Past a line and a position nothing is gained.
    most = (op.dilation[0] * (kernel_size[0] - 1)) * result[2] + kernel_size[1] + 1
    if site.scratch_bytes is not None:
        most = min(most, (site.scratch_bytes - fixed) // slot)
    delay = _delay(window, max(most, 1))
    name = f"es_depthwise_s{matrix.dtype.bits}"
    more: dict[str, Value] = {"bias": matrix.bias_array(matrix.bias)}
    if matrix.dtype is DType.INT8:
        more["folded"] = matrix.bias_array(matrix.folded())
    more |= {"weight_bits": matrix.bits, "multiplier": op.multiplier}
    more |= {"in_zero": matrix.zero, "delay": delay, **matrix.narrow()}
    packed = Array(pack_rows(matrix.weights.T, matrix.bits), Role.WEIGHTS)
    return matrix.call(
        name,
        name.removeprefix("es_"),
        matrix.struct(f"{name}_args", packed, **more),
        scratch_bytes=fixed + delay * slot,
        overlaps={op.inputs[0]: window.overlap(matrix.item, delay=delay)},
    )
