"""Batched matrix products of two activations."""

from __future__ import annotations

from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.shared import (
    LARGEST_SUM,
    Axes,
    broadcast_steps,
    integer_call,
    make_call,
    scaling_of,
    struct,
    suffix,
)
from edgesmith.targets.c.program import Call
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Tensor
from edgesmith.targets.graph.reference import kernel
from edgesmith.targets.graph.reference.linear import largest_offset_code

BATCH_AXES = 3
PACKED_BYTES = 4096  # scratch for packed rows and columns where nothing bounds it
LARGEST_DEPTH_16 = 1 << 16


@lowers(ir.BatchMatMul)
def batch_matmul(op: ir.BatchMatMul, site: Site) -> Call:
    """Blocks of columns packed offset-free, then two rows at a time against them."""
    call = integer_call(op, site, 0, 1)
    x, y, dtype = call.tensor(0), call.tensor(1), call.output.dtype
    x_scale, x_zero = call.scalar(x)
    y_scale, y_zero = call.scalar(y)
    scale, zero = call.scalar(call.output)
    rows, columns = call.output.shape[-2:]
    depth = x.shape[-2] if op.adjoint_x else x.shape[-1]
    reach = largest_offset_code(dtype, x_zero) * largest_offset_code(dtype, y_zero)
    if (dtype is DType.INT8 and reach * depth > LARGEST_SUM) or depth > LARGEST_DEPTH_16:
        raise site.unsupported(op, f"sums {depth} products, more than its sums hold")
    x_row, x_depth = _matrix_steps(x, swapped=op.adjoint_x)
    y_depth, y_column = _matrix_steps(y, swapped=op.adjoint_y)
    batch, x_batch, y_batch = _batches(op, site, x, y)
    words = -(-depth // 4) * 2
    available = PACKED_BYTES if site.scratch_bytes is None else site.scratch_bytes
    # Blocks of equal width: rows of x are packed once per block.
    blocks = -(-columns // max(1, available // (4 * words) - 2))
    block = -(-columns // blocks)
    real = kernel.real_multiplier(call.profile.scale_math_of(op.kind), x_scale, y_scale, scale)
    arguments = struct(
        "es_matmul_args",
        batch=batch,
        x_batch=x_batch,
        y_batch=y_batch,
        rows=rows,
        depth=depth,
        columns=columns,
        block=block,
        words=words,
        x_row=x_row,
        x_depth=x_depth,
        y_column=y_column,
        y_depth=y_depth,
        x_zero=x_zero,
        y_zero=y_zero,
        **scaling_of(real),
        zero=zero,
    )
    return make_call(
        op,
        f"es_matmul_{suffix(dtype)}",
        arguments,
        scratch_bytes=4 * words * (block + 2),
        macs=call.output.elements * depth,
    )


def _matrix_steps(tensor: Tensor, *, swapped: bool) -> tuple[int, int]:
    """Elements to the next row and to the next column."""
    return (1, tensor.shape[-1]) if swapped else (tensor.shape[-1], 1)


def _batches(
    op: ir.BatchMatMul, site: Site, x: Tensor, y: Tensor
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Merged batch axes, and both operands' steps along them."""
    wanted = site.tensor(op.output).shape[:-2]
    steps = tuple(
        tuple(
            step * tensor.shape[-1] * tensor.shape[-2]
            for step in broadcast_steps(tensor.shape[:-2], wanted)
        )
        for tensor in (x, y)
    )
    axes = Axes(wanted, steps).merged().padded(BATCH_AXES)
    if axes is None:
        raise site.unsupported(op, f"has more than {BATCH_AXES} batch axes")
    return axes.sizes, axes.steps[0], axes.steps[1]
