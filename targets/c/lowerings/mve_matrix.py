"""Convolution and fully connected on the MVE kernels.

int8 activations with int8 and int4 weights, int16 ones with int8 weights. What they do not
cover is declined, and the portable kernels take over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgesmith.targets.c.lowerings import mve_layout as layout
from edgesmith.targets.c.lowerings import mve_wide
from edgesmith.targets.c.lowerings.base import Declined, Site, lowers
from edgesmith.targets.c.lowerings.matrix import Window
from edgesmith.targets.c.lowerings.mve_layer import Layer, Ties, make_layer
from edgesmith.targets.c.lowerings.windows import overlap
from edgesmith.targets.c.program import Array, Call, KernelSet, Overlap, Role, Struct
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType

# Sums of 4-bit products are held 16 times as large, in 32 bits: a product is up to 2**14.
LARGEST_S4_DEPTH = 1 << 16


@dataclass(frozen=True)
class _Kernel:
    """A kernel's name, and how many positions a step takes; None where the lowering chooses."""

    name: str
    step: int | None


_GATHERING = _Kernel("conv", None)
_POINTWISE = _Kernel("pointwise", 2)
_NARROW = _Kernel("pointwise_narrow", 16)


def _convolution(op: ir.Op, site: Site, layer: Layer, window: Window) -> Call | Declined:
    outputs, depth = layer.rows.shape
    if layer.bits == 4 and depth > LARGEST_S4_DEPTH:
        return Declined(f"sums of {depth} int4 products are not written")
    behind = layout.bytes_behind(outputs, depth, layer.bits)
    weights = np.pad(layout.pack_rows(layer.rows, layer.bits), (0, behind))
    limit = site.scratch_bytes
    pixels = 1 if limit is not None and 2 * depth > limit else 2
    width = f"s{layer.bits}"
    kernel = _kernel(layer, window)
    sources = [f"mve/mve_{kernel.name}_{width}.c"]
    if kernel is not _NARROW:
        sources.append(f"mve/mve_rows_{width}.c")
    positions = math.prod(window.result[:3])
    return Call(
        name=op.name,
        kind=op.kind,
        function=f"es_mve_{kernel.name}_{width}",
        sources=tuple(sources),
        arguments=Struct(
            "es_mve_conv_args",
            (
                ("window", window.struct()),
                ("tail", layer.struct(layout.GROUP)),
                ("weights", Array(weights, Role.WEIGHTS)),
                ("depth", depth),
                ("pixels", pixels),
                ("in_zero", layer.zero),
            ),
        ),
        reads=(op.inputs[0],),
        writes=(op.output,),
        scratch_bytes=0 if window.pointwise else pixels * depth,
        overlaps={op.inputs[0]: _overlap(window, kernel.step or pixels)},
        macs=positions * outputs * depth,
    )


def _kernel(layer: Layer, window: Window) -> _Kernel:
    if not window.pointwise:
        return _GATHERING
    outputs, depth = layer.rows.shape
    narrow = depth <= layout.LANES and outputs % layout.GROUP == 0 and layer.bits == 8
    several = math.prod(window.result[:3]) > 1
    return _NARROW if narrow and several and layer.ties is not Ties.MIXED else _POINTWISE


def _overlap(window: Window, step: int) -> Overlap:
    # Pointwise kernels write some channels of a step's positions before they have read the
    # codes for the others.
    return overlap(
        window.source,
        window.result,
        window.stride,
        window.padding,
        positions_per_step=step,
        delay=int(not window.pointwise),
    )


def _lowered(op: ir.Op, site: Site, window: Window) -> Call | Declined:
    if site.tensor(op.inputs[0]).dtype is DType.INT16:
        return mve_wide.convolution(op, site, window)
    layer = make_layer(op, site, 0)
    return Declined(layer) if isinstance(layer, str) else _convolution(op, site, layer, window)


@lowers(ir.Conv2D, kernels=KernelSet.MVE)
def conv2d(op: ir.Conv2D, site: Site) -> Call | Declined:
    """Convolution of one group."""
    if op.groups != 1:
        return Declined("convolution in groups is not written")
    return _lowered(op, site, Window.of(op, site))


@lowers(ir.FullyConnected, kernels=KernelSet.MVE)
def fully_connected(op: ir.FullyConnected, site: Site) -> Call | Declined:
    """Every row of the input is one position of a 1x1 convolution."""
    return _lowered(op, site, Window.of(op, site))
