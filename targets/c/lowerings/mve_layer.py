"""What the lowerings to MVE kernels start from: weights, biases and requantization of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from edgesmith.targets.c.lowerings import mve_layout as layout
from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.lowerings.matrix import reference_call
from edgesmith.targets.c.program import Array, Role, Struct
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType
from edgesmith.targets.graph.reference import linear
from edgesmith.targets.graph.requantize import Rounding, quantize_multiplier


class Ties(IntEnum):
    """How negative ties of the right shift fall (`es_mve.h`)."""

    HIDDEN = 0
    AWAY = 1
    MIXED = 2


@dataclass(frozen=True, eq=False)
class Layer:
    """Weights [O, K] as codes, and what turns sums of products with plain codes into codes."""

    rows: layout.Codes
    bits: int
    zero: int
    bias: layout.Int64Array
    tail: linear.Tail

    def repeated(self, count: int) -> Layer:
        """Every channel once more per neighbouring pixel; the tail has one entry or is alike."""
        rows, bias = np.tile(self.rows, (count, 1)), np.tile(self.bias, count)
        return Layer(rows, self.bits, self.zero, bias, self.tail)

    def _multipliers(self) -> tuple[layout.Int64Array, layout.Int64Array]:
        by = quantize_multiplier(self.tail.real)
        count = len(self.rows) // by.shift.size
        multiplier, shift = np.tile(by.multiplier, count), np.tile(by.shift, count)
        return multiplier, np.where(multiplier == 0, -1, shift)

    @property
    def ties(self) -> Ties:
        """What the kernels must do about them."""
        largest = self._multipliers()[1].max()
        if self.tail.limits[0] >= self.tail.zero:
            return Ties.HIDDEN if largest <= 0 else Ties.MIXED
        return Ties.AWAY if largest < 0 else Ties.MIXED

    def struct(self, lanes: int) -> Struct:
        """`es_mve_tail`, its records in groups of `lanes` channels."""
        multiplier, shift = self._multipliers()
        records = layout.pack_records(self.bias, multiplier, shift, lanes)
        low, high = self.tail.limits
        return Struct(
            "es_mve_tail",
            (
                ("records", Array(records, Role.REQUANTIZATION)),
                ("ties", int(self.ties)),
                ("zero", self.tail.zero),
                ("low", low),
                ("high", high),
            ),
        )


def make_layer(op: ir.Op, site: Site, channel_axis: int) -> Layer | str:
    """A layer with int8 and int4 weights, or why the kernels do not take it."""
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
    stored = reference.constant(1).astype(np.int64)
    codes = np.moveaxis(stored, channel_axis, 0).reshape(channels, -1)
    zero = source.q.scalar[1]
    bias = np.broadcast_to(tail.bias, (channels,)) - zero * codes.sum(axis=1)
    return Layer(codes, weight.dtype.bits, zero, bias, tail)
