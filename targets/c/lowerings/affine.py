"""int8 sums as affine functions of both codes, where one gives every byte of the reference.

The operator rounds three times, which moves a sum by about 2^-20 of a code. With slopes of 29
and sums of 21 fraction bits, the nearest slopes therefore equal it on all 65,536 pairs of codes
for nearly all scales (149 of 150 random ones), and slopes a few units away for others. What
remains are scales with many exact ties: powers of two, for which ties have a form of their own,
and other simple ratios, which take the general kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.lowerings.shared import all_codes, result_of, struct
from edgesmith.targets.c.program import Struct
from edgesmith.targets.graph.ir import DType, Op
from edgesmith.targets.graph.reference import kernel
from edgesmith.targets.graph.reference.elementwise import headroom_bits, sum_multipliers
from edgesmith.targets.graph.requantize import INT32_MAX, Int64Array

SUM_BITS = 21  # fraction bits of sums
SLOPE_BITS = 8  # more of them in slopes
# Tried around the nearest slopes, in their last bit, the nearest ones first.
_NUDGES = sorted(product((0, -4, 4, -8, 8, -16, 16), repeat=2), key=lambda pair: np.abs(pair).sum())

_NUDGED = 64  # no nudge narrows the gap between the offsets that two pairs need by more


@dataclass(frozen=True)
class Affine:
    """A sum with `SUM_BITS` fraction bits, and what follows it; fields as in es_elementwise.h."""

    slope_a: int
    slope_b: int
    offset: int
    limits: tuple[int, int]
    away: bool = False
    output_offset: int = 0

    @property
    def tailless(self) -> bool:
        return not self.away and self.limits == (DType.INT8.qmin, DType.INT8.qmax)

    def struct(self) -> Struct:
        return struct(
            "es_affine_args", slope_a=self.slope_a, slope_b=self.slope_b, offset=self.offset
        )

    def tail(self) -> Struct:
        low, high = self.limits
        away, offset = -int(self.away), self.output_offset
        return struct("es_affine_tail", away=away, offset=offset, low=low, high=high)


def affine_sum(
    op: Op, site: Site, call: kernel.Call, sign: int, limits: tuple[int, int]
) -> Affine | None:
    """The affine form of an int8 sum (`sign` 1) or difference (-1), if there is one."""
    codes = all_codes(DType.INT8)
    wanted = result_of(op, site, (codes[:, None], codes[None, :]), (256, 256)).astype(np.int64)
    first, second, total = (float(real[0]) for real in sum_multipliers(call))
    unit = 2.0 ** (headroom_bits(call) + SUM_BITS + SLOPE_BITS)
    nearest = np.rint(np.array([first, sign * second]) * total * unit).astype(np.int64)
    if np.abs(nearest).max() > INT32_MAX - np.max(_NUDGES):
        return None
    for nudge in _NUDGES:
        slopes = nearest + np.array(nudge)
        left, right = _terms(slopes)
        sums = left[:, None] + right[None, :]
        low, high = _offsets(sums, wanted, limits)
        if low - high > _NUDGED:
            break
        offset = (low + high) // 2
        if low <= high and _fits(left + offset, sums + offset):
            return Affine(int(slopes[0]), int(slopes[1]), offset, limits)
    return _away(call, nearest, wanted, limits)


def _terms(slopes: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Both operands' terms for all codes, in the order of `all_codes`."""
    codes = all_codes(DType.INT8).astype(np.int64)
    return (codes * slopes[0]) >> SLOPE_BITS, (codes * slopes[1]) >> SLOPE_BITS


def _offsets(sums: Int64Array, wanted: Int64Array, limits: tuple[int, int]) -> tuple[int, int]:
    """The least and largest offset with which every clamped sum is the wanted code."""
    least = (wanted << SUM_BITS) - sums
    most = least + (1 << SUM_BITS) - 1
    low = least[wanted > limits[0]].max(initial=-(1 << 40))
    high = most[wanted < limits[1]].min(initial=1 << 40)
    return int(low), int(high)


def _away(
    call: kernel.Call, slopes: Int64Array, wanted: Int64Array, limits: tuple[int, int]
) -> Affine | None:
    """The form for sums that are exact, so that ties are seen and their sign is right."""
    zeros = [call.scalar(call.tensor(position))[1] for position in (0, 1)]
    left, right = _terms(slopes)
    offset = -sum(zero * int(slope) for zero, slope in zip(zeros, slopes, strict=True))
    offset >>= SLOPE_BITS
    output_offset = (call.scalar(call.output)[1] << SUM_BITS) + (1 << (SUM_BITS - 1))
    sums = left[:, None] + right[None, :] + offset
    moved = sums + (sums >> 63) + output_offset
    found = np.clip(moved >> SUM_BITS, *limits)
    if not np.array_equal(found, wanted) or not _fits(left + offset, sums, moved):
        return None
    return Affine(int(slopes[0]), int(slopes[1]), offset, limits, True, output_offset)


def _fits(*values: Int64Array) -> bool:
    return all(int(np.abs(each).max()) <= INT32_MAX for each in values)
