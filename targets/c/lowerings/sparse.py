"""Fully connected on weights that are stored without their zeros, which the kernel skips.

Nothing is expanded, so it needs no RAM. Dense kernels take fewer instructions per weight, zeros
included, so it is no faster than they are but for very few weights.
"""

from __future__ import annotations

import numpy as np

from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.lowerings.matrix import Window, matrix_of, tail_struct
from edgesmith.targets.c.program import Array, Call, Role, Struct
from edgesmith.targets.c.zeros import UNITS, Form, encode_as
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType

FUNCTION = "es_sparse_fully_connected_s8"
BYTES = Form(8, 0)


def sparse_fully_connected(op: ir.Op, site: Site) -> Call | None:
    """The call, or None where the kernel does not take the operator: it takes one row of int8."""
    if not isinstance(op, ir.FullyConnected):
        return None
    source, weight, result = (site.tensor(name) for name in (*op.inputs[:2], op.output))
    if {source.dtype, weight.dtype, result.dtype} != {DType.INT8} or weight.data is None:
        return None
    outputs, depth = weight.shape
    if source.elements != depth:
        return None
    window = Window.of(op, site)
    matrix = matrix_of(op, site, window, 0)
    rows = np.pad(matrix.weights, ((0, 0), (0, -depth % UNITS)))
    encoded = encode_as(BYTES, rows.tobytes())
    arguments = Struct(
        "es_sparse_s8_args",
        (
            ("tail", tail_struct(matrix.tail)),
            ("stored", Array(encoded.stored, Role.WEIGHTS)),
            ("bias", matrix.bias_array(matrix.folded())),
            ("outputs", outputs),
            ("words", rows.shape[1] // UNITS),
        ),
    )
    overlaps = {op.inputs[0]: window.overlap(matrix.item, delay=0)}
    return matrix.call(FUNCTION, "sparse_s8", arguments, overlaps=overlaps)
