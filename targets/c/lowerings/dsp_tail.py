"""Requantization for the DSP kernels: which channels they take, and the words they read.

The kernels compute (round(S m / 2**31) + c) >> e, with c = (zero << e) + half in 24 bits,
lowered by one for negative sums where the clamp does not hide how ties fall. That is TFLite
Micro's double rounding for e >= 1, and for e = 0 where ties are hidden. A channel whose code
is the same for every input (converters leave such channels, with biases near 2**30) gets
multiplier 0 and that code as its zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgesmith.targets.c.packing import Channels
from edgesmith.targets.c.program import Array, Role, Struct
from edgesmith.targets.graph.ir import DType
from edgesmith.targets.graph.reference import kernel, linear
from edgesmith.targets.graph.requantize import (
    Rounding,
    quantize_multiplier,
    requantize,
    wrap_int32,
)

Int64Array = npt.NDArray[np.int64]

# A sum is doubled before it is multiplied.
LARGEST_SUM = 1 << 30
# What the rounding word leaves for the centre.
CENTRE_BITS = 24
TRIED = 1 << 16


@dataclass(frozen=True, eq=False)
class DspTail:
    """What the kernels need to turn sums into codes.

    `sums` is the largest magnitude of each channel's sum, 0 where the code is constant;
    `floored` says that the clamp is at the zero point or above.
    """

    channels: Channels
    sums: Int64Array
    limits: tuple[int, int]
    floored: bool

    def struct(self, group: int, shared: tuple[int, ...] = (1,)) -> Struct:
        """The `es_dsp_outputs` of kernels with `group` channels at a time."""
        return Struct(
            "es_dsp_outputs",
            (
                ("channels", Array(self.channels.table(group, shared), Role.REQUANTIZATION)),
                ("count", len(self.sums)),
                ("low", self.limits[0]),
                ("high", self.limits[1]),
                ("floored", int(self.floored)),
            ),
        )


def channel_tail(
    tail: linear.Tail,
    rows: npt.NDArray[np.integer],
    input_zero: int,
    *,
    apart: bool = True,
) -> DspTail | str:
    """The tail of channels with int8 or int4 weights [O, K], or why the kernels decline them.

    Args:
        apart: constant channels get a multiplier of their own, so that their sums are free.
    """
    if tail.rounding is not Rounding.DOUBLE or tail.wide:
        return "only double rounding of 32-bit sums is written"
    codes = rows.astype(np.int64)
    bias = np.broadcast_to(tail.bias, (len(codes),)) - input_zero * codes.sum(axis=1)
    reach = np.abs(codes).sum(axis=1)
    lowest, highest = bias - 128 * reach, bias + 128 * reach
    ends = np.stack([lowest, highest])
    scaled = requantize(wrap_int32(ends), tail.real, tail.rounding) + tail.zero
    outputs = kernel.clamp(scaled, tail.limits, DType.INT8).astype(np.int64)
    wraps = (ends != wrap_int32(ends)).any(axis=0)
    constant = (outputs[0] == outputs[1]) & ~wraps & apart
    by = quantize_multiplier(tail.real)
    shift = np.broadcast_to(-by.shift, bias.shape)
    multiplier = np.where(constant, 0, by.multiplier)
    shift = np.where(constant, 1, shift)
    zero = np.where(constant, outputs[0], tail.zero)
    bias = np.where(constant, 0, bias)
    sums = np.where(constant, 0, np.abs(ends).max(axis=0))
    floored = tail.limits[0] >= tail.zero
    if sums.max(initial=0) >= LARGEST_SUM:
        return "a sum may reach 2**30"
    if shift.min(initial=1) < (0 if floored else 1):
        return "a multiplier is too large for a right shift"
    centre = (zero << shift) + ((np.int64(1) << shift) >> 1)
    for channel in np.flatnonzero(np.abs(2 * centre + 1) > 1 << CENTRE_BITS):
        factor = int(multiplier[channel]), int(shift[channel])
        span = int(lowest[channel]), int(highest[channel])
        moved = _moved(factor, tail.zero, span) if floored else None
        if moved is None:
            return f"a multiplier is so small that its centre exceeds {CENTRE_BITS} bits"
        bias[channel] += moved[0]
        sums[channel] += abs(moved[0])
        centre[channel] = moved[1]
    if sums.max(initial=0) >= LARGEST_SUM:
        return "a sum may reach 2**30"
    rounding = ((centre << 8) | shift) & 0xFFFFFFFF
    return DspTail(Channels(bias, multiplier, rounding), sums, tail.limits, floored)


def _moved(factor: tuple[int, int], zero: int, sums: tuple[int, int]) -> tuple[int, int] | None:
    """A part of the centre moved into the bias: what to add to it, and the centre left.

    The part is a multiple of the multiplier that is close to an integer, and every sum at
    which the code changes is checked, so the codes stay the same.

    Args:
        factor: multiplier and right shift.
        sums: the least and the largest sum.
    """
    multiplier, shift = factor
    centre = (zero << shift) + (1 << shift >> 1)
    added = ((zero << shift) << 31) // multiplier + np.arange(-TRIED, TRIED)
    # Products reach 2**62 at most: sums stay below 2**30 and multipliers below 2**31.
    parts = added * multiplier
    best = int(np.abs(((parts + (1 << 30)) & 0x7FFFFFFF) - (1 << 30)).argmin())
    left = centre - ((int(parts[best]) + (1 << 30)) >> 31)
    start = int(added[best])

    def before(value: int) -> int:
        return (((value * multiplier + (1 << 30)) >> 31) + centre) >> shift

    def after(value: int) -> int:
        return ((((value + start) * multiplier + (1 << 30)) >> 31) + left) >> shift

    stairs = [
        _first(before, code, sums) for code in range(before(sums[0]) + 1, before(sums[1]) + 1)
    ]
    same = all(before(v) == after(v) for at in (*stairs, *sums) for v in (at - 1, at))
    return (start, left) if same and abs(2 * left + 1) <= 1 << CENTRE_BITS else None


def _first(code_of: Callable[[int], int], code: int, sums: tuple[int, int]) -> int:
    """The least sum whose code is at least `code`; codes do not fall."""
    low, high = sums
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if code_of(middle) >= code else (middle + 1, high)
    return low
