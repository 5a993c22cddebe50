"""Sums, differences and products, with broadcasting."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgesmith.targets.c.lowerings.affine import affine_sum
from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.shared import (
    Axes,
    all_codes,
    broadcast_steps,
    integer_call,
    make_call,
    output_limits,
    result_of,
    scaling,
    scaling_of,
    struct,
    suffix,
)
from edgesmith.targets.c.program import Array, Call, Overlap, Role, Struct
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Op
from edgesmith.targets.graph.reference import kernel
from edgesmith.targets.graph.reference.elementwise import headroom_bits, sum_multipliers
from edgesmith.targets.graph.requantize import quantize_multiplier

OUTER_AXES = 4
IN_PLACE = Overlap(0)


def _shape(op: Op, site: Site) -> Struct:
    """How both operands walk over the rows of the output."""
    wanted = site.tensor(op.output).shape
    steps = tuple(broadcast_steps(site.tensor(name).shape, wanted) for name in op.inputs)
    axes = Axes(wanted, steps).merged()
    count, row_steps = 1, (0, 0)
    if axes.sizes and all(step[-1] in (0, 1) for step in axes.steps):
        count, row_steps = axes.sizes[-1], (axes.steps[0][-1], axes.steps[1][-1])
        axes = Axes(axes.sizes[:-1], tuple(step[:-1] for step in axes.steps))
    outer = axes.padded(OUTER_AXES)
    if outer is None:
        raise site.unsupported(op, f"broadcasts over more than {OUTER_AXES + 1} axes")
    first, second = (_jumps(outer.sizes, step) for step in outer.steps)
    return struct(
        "es_broadcast",
        count=count,
        step_a=row_steps[0],
        step_b=row_steps[1],
        size=outer.sizes,
        jump_a=first,
        jump_b=second,
    )


def _jumps(sizes: tuple[int, ...], steps: tuple[int, ...]) -> tuple[int, ...]:
    """From the last row of the axes within to the first one after a step along each axis."""
    jumps = []
    inner = 0
    for size, step in zip(reversed(sizes), reversed(steps), strict=True):
        jumps.append(step - inner)
        inner += (size - 1) * step
    return tuple(reversed(jumps))


def _overlaps(op: Op, site: Site) -> dict[str, Overlap]:
    """Operands of the output's shape are read just before their element is written."""
    shape = site.tensor(op.output).shape
    return {name: IN_PLACE for name in op.inputs if site.tensor(name).shape == shape}


def _by_scalar(op: Op, site: Site) -> Call | None:
    """The table of an int8 operator with a constant of one element, if it is one."""
    for position, name in enumerate(op.inputs):
        data, other = site.tensor(name).data, op.inputs[1 - position]
        if data is None or data.size != 1 or site.tensor(op.output).dtype is not DType.INT8:
            continue
        if site.tensor(other).shape != site.tensor(op.output).shape:
            continue
        codes = all_codes(DType.INT8)
        scalar = data.reshape(1).astype(np.int8)
        pair = (scalar, codes) if position == 0 else (codes, scalar)
        table = Array(result_of(op, site, pair, codes.shape), Role.TABLE)
        count = site.tensor(op.output).elements
        arguments = struct("es_lookup_s8_args", count=count, table=table)
        return make_call(op, "es_lookup_s8", arguments, reads=(other,), overlaps={other: IN_PLACE})
    return None


def _affine(
    op: Op, site: Site, call: kernel.Call, sign: int, limits: tuple[int, int]
) -> Call | None:
    """The call of an affine kernel, where one is exact and walks both operands by 1."""
    shape = _shape(op, site)
    fields = dict(shape.fields)
    if call.output.dtype is not DType.INT8 or (fields["step_a"], fields["step_b"]) != (1, 1):
        return None
    found = affine_sum(op, site, call, sign, limits)
    if found is None:
        return None
    if found.tailless and fields["count"] == call.output.elements:
        function = "es_add_affine_s8"
        arguments = struct(f"{function}_args", count=fields["count"], by=found.struct())
    else:
        function = "es_add_affine_rows_s8"
        arguments = struct(f"{function}_args", shape=shape, by=found.struct(), tail=found.tail())
    return make_call(op, function, arguments, overlaps=_overlaps(op, site))


def _addend(zero: int, headroom: int, real: npt.ArrayLike) -> Struct:
    """One operand; its multiplier is at most 1/2."""
    multiplier, shift = (int(part[0]) for part in quantize_multiplier(real))
    if shift == 0:  # 1/2 on the dot; one more bit that a right shift takes away again
        headroom, shift = headroom + 1, -1
    if multiplier == 0:  # below 2^-32, which rounds every operand to 0
        multiplier, shift = 1 << 30, -31
    return struct(
        "es_addend", zero=zero, **{"raise": 1 << headroom}, multiplier=multiplier, right=-shift
    )


def _sum(op: ir.Add | ir.Sub, site: Site, sign: int) -> Call:
    call = integer_call(op, site, 0, 1)
    limits = kernel.activation_range(call, op.activation)
    special = _by_scalar(op, site) or _affine(op, site, call, sign, limits)
    if special is not None:
        return special
    reals = sum_multipliers(call)
    addends = [
        _addend(call.scalar(call.tensor(position))[1], headroom_bits(call), real)
        for position, real in enumerate(reals[:2])
    ]
    arguments = struct(
        "es_add_args",
        shape=_shape(op, site),
        a=addends[0],
        b=addends[1],
        sign=sign,
        **scaling_of(reals[2]),
        **output_limits(call.scalar(call.output)[1], limits),
    )
    function = f"es_add_{suffix(call.output.dtype)}"
    return make_call(op, function, arguments, overlaps=_overlaps(op, site))


@lowers(ir.Add)
def add(op: ir.Add, site: Site) -> Call:
    """One affine function where that is exact, otherwise three requantizations per element."""
    return _sum(op, site, 1)


@lowers(ir.Sub)
def sub(op: ir.Sub, site: Site) -> Call:
    """As add."""
    return _sum(op, site, -1)


@lowers(ir.Mul)
def mul(op: ir.Mul, site: Site) -> Call:
    """One requantization per element."""
    call = integer_call(op, site, 0, 1)
    by_scalar = _by_scalar(op, site)
    if by_scalar is not None:
        return by_scalar
    scales = [call.scalar(tensor)[0] for tensor in (call.tensor(0), call.tensor(1), call.output)]
    real = kernel.real_multiplier(call.profile.scale_math_of(op.kind), *scales)
    arguments = struct(
        "es_mul_args",
        shape=_shape(op, site),
        zero_a=call.scalar(call.tensor(0))[1],
        zero_b=call.scalar(call.tensor(1))[1],
        **scaling(quantize_multiplier(real)),
        **output_limits(call.scalar(call.output)[1], kernel.activation_range(call, op.activation)),
    )
    function = f"es_mul_{suffix(call.output.dtype)}"
    return make_call(op, function, arguments, overlaps=_overlaps(op, site))
