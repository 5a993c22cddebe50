"""Fully connected layers and batched matrix products."""

from __future__ import annotations

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, Array, DType
from edgesmith.targets.graph.reference.kernel import (
    Call,
    activation_range,
    align,
    kernel,
    real_multiplier,
    sample_blocks,
)
from edgesmith.targets.graph.reference.linear import (
    Tail,
    largest_offset_code,
    make_tail,
    product_type,
    require_symmetric,
    weight_scales,
)


@kernel(ir.FullyConnected)
def fully_connected(op: ir.FullyConnected, call: Call) -> Array:
    """x [..., I] times weight [O, I] transposed."""
    call.integer_activations(0)
    outputs, depth = call.tensor(1).shape
    scales = weight_scales(call, call.tensor(1), outputs)
    require_symmetric(call, call.tensor(1))
    tail = make_tail(call, op.activation, scales, outputs)
    _, zero = call.scalar(call.tensor(0))
    weight = call.constant(1)
    reach = int(np.abs(weight.astype(np.int64)).sum(axis=1).max())
    kind = product_type(reach * largest_offset_code(call.tensor(0).dtype, zero))
    matrix = weight.astype(kind).T
    x = call.value(0)
    x = x.reshape(len(x), -1, depth)
    result = np.empty((len(x), x.shape[1], outputs), call.output.dtype.numpy)
    for block in sample_blocks(len(x), x.shape[1] * max(depth, outputs)):
        result[block] = tail.apply((x[block].astype(kind) - kind.type(zero)) @ matrix)
    return result.reshape(len(x), *call.output.shape)


@kernel(ir.BatchMatMul)
def batch_matmul(op: ir.BatchMatMul, call: Call) -> Array:
    """x [..., M, K] times y [..., K, N], batch axes broadcast."""
    call.integer_activations(0, 1)
    math = call.profile.scale_math_of(op.kind)
    x_scale, x_zero = call.scalar(call.tensor(0))
    y_scale, y_zero = call.scalar(call.tensor(1))
    scale, zero = call.scalar(call.output)
    x, y = (align(call, position) for position in (0, 1))
    if op.adjoint_x:
        x = np.swapaxes(x, -1, -2)
    if op.adjoint_y:
        y = np.swapaxes(y, -1, -2)
    dtype = call.output.dtype
    reach = largest_offset_code(dtype, x_zero) * largest_offset_code(dtype, y_zero)
    kind = product_type(reach * x.shape[-1])
    tail = Tail(
        bias=np.zeros(1, np.int64),
        real=real_multiplier(math, x_scale, y_scale, scale),
        rounding=call.profile.rounding_of(op.kind),
        wide=dtype is DType.INT16,
        zero=zero,
        limits=activation_range(call, Activation.NONE),
        dtype=dtype,
    )
    sums = (x.astype(kind) - kind.type(x_zero)) @ (y.astype(kind) - kind.type(y_zero))
    return tail.apply(sums).reshape(-1, *call.output.shape)
