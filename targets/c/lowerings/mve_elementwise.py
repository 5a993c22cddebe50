"""Sums of int8 tensors on the MVE kernels."""

from __future__ import annotations

from dataclasses import replace

from edgesmith.targets.c.lowerings import elementwise
from edgesmith.targets.c.lowerings.base import Site, lowers
from edgesmith.targets.c.program import Call, KernelSet
from edgesmith.targets.graph import ir

_PORTABLE = "es_add_affine_s8"


@lowers(ir.Add, kernels=KernelSet.MVE)
def add(op: ir.Add, site: Site) -> Call:
    """As the portable lowering says; 16 elements at once where the sum is affine."""
    return _vectors(elementwise.add(op, site))


@lowers(ir.Sub, kernels=KernelSet.MVE)
def sub(op: ir.Sub, site: Site) -> Call:
    """As add."""
    return _vectors(elementwise.sub(op, site))


def _vectors(call: Call) -> Call:
    if call.function != _PORTABLE:
        return call
    return replace(call, function="es_mve_add_affine_s8", sources=("mve/mve_add_affine_s8.c",))
