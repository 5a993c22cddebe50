"""Layer normalization."""

from __future__ import annotations

import numpy as np

from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.shared import integer_call, make_call, struct, suffix
from edgesmith.targets.c.program import Array, Call, Overlap, Role
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.reference import normalization


@lowers(ir.LayerNorm)
def layer_norm(op: ir.LayerNorm, site: Site) -> Call:
    """Two passes over each row; gamma and beta are on the output's scale."""
    call = integer_call(op, site, 0)
    plan = normalization.checked_plan(op, call)
    dtype = call.output.dtype
    arguments = struct(
        "es_layer_norm_args",
        rows=call.output.elements // plan.size,
        depth=plan.size,
        extra_bits=plan.extra_bits,
        epsilon=plan.epsilon,
        gain=Array(plan.gain.astype(np.int32), Role.WEIGHTS),
        offset=Array(plan.offset.astype(np.int32), Role.BIAS),
        shift=plan.shift,
    )
    function = f"es_layer_norm_{suffix(dtype)}"
    return make_call(
        op, function, arguments, reads=op.inputs[:1], overlaps={op.inputs[0]: Overlap(0)}
    )
