"""Softmax over the last axis."""

from __future__ import annotations

import numpy as np

from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.shared import integer_call, make_call, scaling_of, struct
from edgesmith.targets.c.program import Array, Call, Overlap, Role
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType
from edgesmith.targets.graph.reference import softmax as reference
from edgesmith.targets.graph.reference.profiles import ScaleMath

IN_PLACE = Overlap(0)
# Sums of exponentials must stay below 2^31: 2^19 each for int8, 2^15 for int16.
LONGEST = {DType.INT8: (1 << 12) - 1, DType.INT16: (1 << 16) - 1}


@lowers(ir.Softmax)
def softmax(op: ir.Softmax, site: Site) -> Call:
    """int8 with the exponential of every difference in a table, int16 with interpolated tables."""
    call = integer_call(op, site, 0)
    reference.require_fixed_output(call)
    dtype, depth = call.output.dtype, call.output.shape[-1]
    if depth > LONGEST[dtype]:
        raise site.unsupported(op, f"has rows of {depth} elements, at most {LONGEST[dtype]}")
    scale, beta = np.float64(call.scalar(call.tensor(0))[0]), np.float64(np.float32(op.beta))
    rows = call.output.elements // depth
    overlaps = {op.inputs[0]: IN_PLACE}
    if dtype is DType.INT8:
        table = _exponentials(scale, beta)
        arguments = struct(
            "es_softmax_s8_args", rows=rows, depth=depth, entries=table.data.size, table=table
        )
        return make_call(op, "es_softmax_s8", arguments, overlaps=overlaps)
    wide = call.profile.softmax16_tables is ScaleMath.FLOAT64
    exp, reciprocal = reference.tables16(np.dtype(np.float64 if wide else np.float32))
    arguments = struct(
        "es_softmax_s16_args",
        rows=rows,
        depth=depth,
        **scaling_of(scale * beta / (10.0 / 65535.0)),
        exp=Array(exp.astype(np.int16), Role.TABLE),
        reciprocal=Array(reciprocal.astype(np.int16), Role.TABLE),
    )
    return make_call(op, "es_softmax_s16", arguments, overlaps=overlaps)


def _exponentials(scale: np.float64, beta: np.float64) -> Array:
    """exp of differences 0, -1, ... as far as they add to a sum: at most 256 words of flash.

    Smaller ones than half of 2^12 round to nothing in the sum, which makes them less than half
    a code in the output too.
    """
    values = reference.exponential8(scale, beta)(-np.arange(256, dtype=np.int64))
    counting = np.flatnonzero(values >= 1 << (reference.SUM_BITS - 1))
    return Array(values[: int(counting[-1]) + 1].astype(np.int32), Role.TABLE)
