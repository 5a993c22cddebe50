"""Convolution and fully connected with int16 activations and int8 weights on the MVE kernels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgesmith.targets.c.lowerings.base import Declined, Site
from edgesmith.targets.c.lowerings.matrix import Window, reference_call
from edgesmith.targets.c.lowerings.windows import overlap
from edgesmith.targets.c.program import Array, Call, Role, Struct
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType
from edgesmith.targets.graph.reference import linear
from edgesmith.targets.graph.requantize import Rounding, quantize_multiplier

_BYTES = 2


def convolution(op: ir.Op, site: Site, window: Window) -> Call | Declined:
    """A convolution of one group; the kernels see twice as many channels of bytes."""
    reference = reference_call(op, site)
    source, weight = reference.tensor(0), reference.tensor(1)
    if reference.output.dtype is not DType.INT16 or weight.dtype is not DType.INT8:
        return Declined(f"int16 activations with {weight.dtype} weights are not written")
    linear.require_symmetric(reference, weight)
    outputs = weight.shape[0]
    scales = linear.weight_scales(reference, weight, outputs)
    activation = getattr(op, "activation", ir.Activation.NONE)
    tail = linear.make_tail(reference, activation, scales, outputs)
    if tail.rounding is not Rounding.DOUBLE or tail.zero or source.q.scalar[1]:
        return Declined("int16 zero points other than 0 and single rounding are not written")
    rows = reference.constant(1).astype(np.int8).reshape(outputs, -1)
    depth = rows.shape[1]
    limit = site.scratch_bytes
    pixels = 1 if limit is not None and 2 * depth * _BYTES > limit else 2
    name = "pointwise" if window.pointwise else "conv"
    return Call(
        name=op.name,
        kind=op.kind,
        function=f"es_mve_{name}_s16",
        sources=(f"mve/mve_{name}_s16.c", "mve/mve_rows_s16.c"),
        arguments=Struct(
            "es_mve_conv_args",
            (
                ("window", _in_bytes(window).struct()),
                ("tail", _tail(tail, outputs)),
                ("weights", Array(rows.reshape(-1), Role.WEIGHTS)),
                ("depth", depth * _BYTES),
                ("pixels", pixels),
                ("in_zero", 0),
            ),
        ),
        reads=(op.inputs[0],),
        writes=(op.output,),
        scratch_bytes=0 if window.pointwise else pixels * depth * _BYTES,
        overlaps={
            op.inputs[0]: overlap(
                window.source,
                window.result,
                window.stride,
                window.padding,
                element_bytes=_BYTES,
                positions_per_step=2 if window.pointwise else pixels,
                delay=int(not window.pointwise),
            )
        },
        macs=math.prod(window.result) * depth,
    )


def _in_bytes(window: Window) -> Window:
    source, result = ((*shape[:3], shape[3] * _BYTES) for shape in (window.source, window.result))
    return replace(window, source=source, result=result)


def _tail(tail: linear.Tail, outputs: int) -> Struct:
    by = quantize_multiplier(tail.real)
    bias = np.broadcast_to(tail.bias, (outputs,)).astype(np.int64)
    words = np.empty((outputs, 4), np.int32)
    words[:, :2] = bias.reshape(-1, 1).view(np.int32)
    words[:, 2], words[:, 3] = by.multiplier, by.shift
    low, high = tail.limits
    return Struct(
        "es_mve_tail",
        (
            ("records", Array(words.reshape(-1), Role.REQUANTIZATION)),
            ("ties", int(not tail.wide)),
            ("zero", 0),
            ("low", low),
            ("high", high),
        ),
    )
