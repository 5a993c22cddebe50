"""How a lowering is registered and found.

A lowering is a function from an operator to one `Call`, for one kind of operator and
one set of kernels. A core with special kernels tries those first; a lowering that does
not cover an operator returns `Declined` with the reason, and the next set takes over; the
portable one covers all that a target's description admits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.targets.c.program import Call, KernelSet
from edgesmith.targets.graph.ir import Graph, Op, Tensor
from edgesmith.targets.graph.reference import PROFILES, Profile


@dataclass(frozen=True)
class Declined:
    """Why a set of kernels does not take an operator."""

    reason: str


@dataclass(frozen=True)
class Site:
    """Where an operator is lowered.

    `scratch_bytes` bounds the scratch of one call where a lowering can trade it for time;
    None does not.
    """

    graph: Graph
    kernels: KernelSet
    scratch_bytes: int | None = None
    profile: Profile = field(default_factory=lambda: PROFILES["tflite-micro"])

    def tensor(self, name: str) -> Tensor:
        return self.graph[name]

    def operand(self, op: Op, position: int) -> Tensor | None:
        """The operator's input tensor, None where it is absent."""
        if position >= len(op.inputs) or not op.inputs[position]:
            return None
        return self.graph[op.inputs[position]]

    def unsupported(self, op: Op, reason: str) -> TargetUnsupportedError:
        """The error for an operator that no kernel takes."""
        return TargetUnsupportedError(
            f"{op.kind} {op.name!r} {reason}",
            fix="choose another format for this operator, or another target",
        )


# What a core can run, best first: one with vectors has the DSP instructions too.
KERNELS_OF: Mapping[KernelSet, tuple[KernelSet, ...]] = {
    KernelSet.PORTABLE: (KernelSet.PORTABLE,),
    KernelSet.DSP: (KernelSet.DSP, KernelSet.PORTABLE),
    KernelSet.MVE: (KernelSet.MVE, KernelSet.DSP, KernelSet.PORTABLE),
}

Lowering = Callable[[Any, Site], Call | Declined]
F = TypeVar("F", bound=Callable[..., Call | Declined])

_LOWERINGS: dict[tuple[type[Op], KernelSet], Lowering] = {}


def lowers(*kinds: type[Op], kernels: KernelSet = KernelSet.PORTABLE) -> Callable[[F], F]:
    """Register a function `(op, site)` as the lowering of operator kinds on a set of kernels."""

    def register(lowering: F) -> F:
        for kind in kinds:
            _LOWERINGS[kind, kernels] = lowering
        return lowering

    return register


def lower_op(op: Op, site: Site) -> Call:
    """The call that computes one operator, by the best kernels that take it.

    Raises:
        TargetUnsupportedError: none does; the reasons are in the message.
    """
    reasons = []
    for kernels in KERNELS_OF[site.kernels]:
        lowering = _LOWERINGS.get((type(op), kernels))
        if lowering is None:
            continue
        call = lowering(op, site)
        if isinstance(call, Call):
            return call
        reasons.append(f"{kernels.value} kernels: {call.reason}")
    why = "; ".join(reasons) or "none is written for it"
    raise site.unsupported(op, f"has no C kernel ({why})")
