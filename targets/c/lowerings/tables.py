"""Functions of one code: clamps, activations and requantization.

8-bit operands become a table of 256 codes (256 bytes, or 512 for 16-bit results), which the
reference executor fills; a clamp that keeps the scale needs no table. 16-bit operands are
computed, or interpolated where the reference does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.lowerings.matrix import reference_call
from edgesmith.targets.c.lowerings.shared import (
    code_table,
    integer_call,
    make_call,
    output_limits,
    scaling_of,
    struct,
    suffix,
)
from edgesmith.targets.c.program import Array, Call, Overlap, Role
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Op
from edgesmith.targets.graph.reference import activations, gelu, kernel

LARGEST_FACTOR = (1 << 17) - 1  # of a 16-bit magnitude, so that the product fits 32 bits
EIGHT_BITS = (DType.INT8, DType.UINT8)


def _lookup(op: Op, site: Site) -> Call:
    """Any function of an 8-bit code."""
    table = code_table(op, site)
    count = site.tensor(op.output).elements
    narrow = table.data.itemsize == 1
    function = "es_lookup_s8" if narrow else "es_lookup_s8_s16"
    arguments = struct(f"{function}_args", count=count, table=table)
    # Wide results catch up with the operand at the last element.
    overlap = Overlap(0 if narrow else count - 1)
    return make_call(op, function, arguments, overlaps={op.inputs[0]: overlap})


def _clamp(op: Op, site: Site, low: int, high: int) -> Call:
    dtype = site.tensor(op.output).dtype
    count = site.tensor(op.output).elements
    arguments = struct("es_clamp_args", count=count, low=low, high=high)
    function = f"es_clamp_{suffix(dtype)}"
    return make_call(op, function, arguments, overlaps={op.inputs[0]: Overlap(0)})


def _rescale(op: Op, site: Site, limits: tuple[int, int]) -> Call:
    """16-bit codes to codes of another scale."""
    call = reference_call(op, site)
    scale, zero = call.scalar(call.tensor(0))
    output_scale, output_zero = call.scalar(call.output)
    real = kernel.real_multiplier(call.profile.scale_math_of(op.kind), scale, 1, output_scale)
    arguments = struct(
        "es_rescale_args",
        count=call.output.elements,
        in_zero=zero,
        **scaling_of(real),
        **output_limits(output_zero, limits),
    )
    function = "es_rescale_s16" if call.output.dtype is DType.INT16 else "es_rescale_s16_s8"
    return make_call(op, function, arguments, overlaps={op.inputs[0]: Overlap(0)})


@lowers(ir.Relu)
def relu(op: ir.Relu, site: Site) -> Call:
    """A clamp, or a table or a requantization where the scale changes."""
    call = integer_call(op, site, 0)
    limits = kernel.activation_range(call, op.activation)
    if call.scalar(call.tensor(0)) == call.scalar(call.output):
        return _clamp(op, site, *limits)
    if op.activation not in call.profile.rescaling_clamps:
        raise site.unsupported(op, f"clamps with {op.activation} to another scale")
    if call.output.dtype is DType.INT8:
        return _lookup(op, site)
    return _rescale(op, site, limits)


@lowers(ir.Clip)
def clip(op: ir.Clip, site: Site) -> Call:
    """A clamp to codes."""
    call = integer_call(op, site, 0)
    return _clamp(op, site, *activations.clip_range(op, call))


@lowers(ir.HardSwish)
def hard_swish(op: ir.HardSwish, site: Site) -> Call:
    """A table."""
    integer_call(op, site, 0)
    if site.tensor(op.output).dtype is not DType.INT8:
        raise site.unsupported(op, "is defined for int8 activations only")
    return _lookup(op, site)


@dataclass(frozen=True)
class _Curve:
    """How es_curve_s16 reads the sigmoid's table; see es_table.h."""

    bits: int
    largest_power: int
    ceiling: int
    up: int
    mirror: int
    down: int


_SIGMOID = _Curve(9, 0, 0x7FFF << 10, 1 << 9, (1 << 25) + (1 << 9) - 1, 10)
_TANH = _Curve(8, 1, 0xFFFF << 8, (1 << 7) - (1 << 23), (1 << 23) + (1 << 7) - 1, 8)


@lowers(ir.Logistic)
def logistic(op: ir.Logistic, site: Site) -> Call:
    """A table of all int8 codes, or the interpolated sigmoid for int16."""
    return _curve(op, site, _SIGMOID)


@lowers(ir.Tanh)
def tanh(op: ir.Tanh, site: Site) -> Call:
    """The same; int16 is 2 sigmoid(2 x) - 1."""
    return _curve(op, site, _TANH)


def _curve(op: Op, site: Site, curve: _Curve) -> Call:
    call = integer_call(op, site, 0)
    if call.output.dtype is DType.INT8:
        return _lookup(op, site)
    activations.require_fixed_output(op, call)
    factor, shift = activations.curve_factor16(call, curve.largest_power)
    half = (1 << shift) >> 1
    arguments = struct(
        "es_curve_s16_args",
        count=call.output.elements,
        table=Array(activations.SIGMOID_TABLE.astype(np.uint16), Role.TABLE),
        # A larger factor passes the table's end at code 1 as well.
        factor=min(factor, LARGEST_FACTOR),
        half=half,
        half_negative=max(half - 1, 0),
        shift=shift,
        bits=curve.bits,
        ceiling=curve.ceiling,
        up=curve.up,
        mirror=curve.mirror,
        down=curve.down,
    )
    return make_call(op, "es_curve_s16", arguments, overlaps={op.inputs[0]: Overlap(0)})


@lowers(ir.Gelu)
def gaussian_unit(op: ir.Gelu, site: Site) -> Call:
    """A table of all int8 codes, or an interpolated one for int16."""
    call = integer_call(op, site, 0)
    if call.output.dtype is DType.INT8:
        return _lookup(op, site)
    table = gelu.gelu_table16(call.tensor(0), call.output, approximate=op.approximate)
    arguments = struct(
        "es_interpolate_s16_args",
        count=call.output.elements,
        table=Array(table.astype(np.int16), Role.TABLE),
    )
    return make_call(op, "es_interpolate_s16", arguments, overlaps={op.inputs[0]: Overlap(0)})


@lowers(ir.Quantize)
def quantize(op: ir.Quantize, site: Site) -> Call:
    """Between 8-bit and 16-bit codes; one of 8 bits goes by a table."""
    source, output = site.tensor(op.inputs[0]).dtype, site.tensor(op.output).dtype
    if not {source, output} <= {*EIGHT_BITS, DType.INT16}:
        raise site.unsupported(op, f"turns {source} into {output}")
    if source in EIGHT_BITS:
        return _lookup(op, site)
    return _rescale(op, site, (output.qmin, output.qmax))
