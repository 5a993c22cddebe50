"""From a legal graph to its C library: lower, plan the arena, print.

Two plans are offered. `speed` takes all the scratch that makes kernels fast; `memory` takes the
smallest arena that scratch limits reach. Where a RAM limit is given, `speed` is left for `memory`
and that for execution in bands of rows as soon as it does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edgesmith.pipeline.errors import DoesNotFitError
from edgesmith.targets.c.assemble import assemble
from edgesmith.targets.c.generator import Library, generate
from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.memory.budget import BudgetPlan, plan_bands
from edgesmith.targets.c.memory.explain import explain
from edgesmith.targets.c.memory.solve import plan_memory
from edgesmith.targets.c.program import KernelSet, MemoryPlan, Program, View
from edgesmith.targets.graph.ir import Graph

SCRATCH_LIMITS = (None, 4096, 2048, 1024, 512)
"""Bytes of scratch per call that `memory` tries, the fastest first."""


class PlanKind(StrEnum):
    """What a plan saves first."""

    SPEED = "speed"
    MEMORY = "memory"
    BANDS = "bands"


@dataclass(frozen=True, eq=False)
class Compiled:
    """A graph as C, with everything known about it before a compiler has seen it.

    `scheduled` is the graph that the calls compute: that of the model, or with its first
    operators split into bands.
    """

    scheduled: Graph
    program: Program
    memory: MemoryPlan
    library: Library
    kind: PlanKind


@dataclass(frozen=True)
class CompileOptions:
    """How a graph becomes C.

    Args:
        kernels: the core's set of kernels.
        prefix: what every public C name starts with.
        plan: what to save first.
        ram_bytes: what the arena may take; None sets no limit.
    """

    kernels: KernelSet
    prefix: str = "model"
    plan: PlanKind = PlanKind.SPEED
    ram_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class _Scheduled:
    """A graph with its program and arena, before printing."""

    graph: Graph
    program: Program
    memory: MemoryPlan
    kind: PlanKind


def compile_graph(graph: Graph, options: CompileOptions) -> Compiled:
    """Make the library of a legalized graph.

    Raises:
        TargetUnsupportedError: an operator or format that no kernel takes.
        DoesNotFitError: no plan fits the RAM limit.
        SpecError: the prefix is no C identifier.
    """
    chosen = _schedule(graph, options)
    library = generate(
        chosen.graph,
        chosen.program,
        chosen.memory,
        prefix=options.prefix,
        kernels=options.kernels.value,
    )
    return Compiled(chosen.graph, chosen.program, chosen.memory, library, chosen.kind)


def _schedule(graph: Graph, options: CompileOptions) -> _Scheduled:
    if options.plan is PlanKind.SPEED:
        speed = _planned(graph, options, PlanKind.SPEED, None)
        if options.ram_bytes is None or speed.memory.arena_bytes <= options.ram_bytes:
            return speed
    if options.plan is not PlanKind.BANDS:
        smallest = _smallest(graph, options)
        if options.ram_bytes is None or smallest.memory.arena_bytes <= options.ram_bytes:
            return smallest
    return _banded(graph, options)


def _planned(
    graph: Graph,
    options: CompileOptions,
    kind: PlanKind,
    scratch_bytes: int | None,
    views: Mapping[str, View] | None = None,
) -> _Scheduled:
    program = assemble(Site(graph, options.kernels, scratch_bytes), views)
    return _Scheduled(graph, program, plan_memory(program), kind)


def _smallest(graph: Graph, options: CompileOptions) -> _Scheduled:
    """The smallest arena over the scratch limits; the fastest of equals."""
    tried = (_planned(graph, options, PlanKind.MEMORY, limit) for limit in SCRATCH_LIMITS)
    return min(tried, key=lambda each: each.memory.arena_bytes)


def _banded(graph: Graph, options: CompileOptions) -> _Scheduled:
    """In bands: the fewest recomputed MACs that fit, or the least arena if bands were asked for."""
    limit = SCRATCH_LIMITS[-1]

    def lower(split: Graph, views: Mapping[str, View]) -> Program:
        return assemble(Site(split, options.kernels, limit), views)

    asked = options.plan is PlanKind.BANDS or options.ram_bytes is None
    found = plan_bands(graph, lower, 0 if asked else options.ram_bytes or 0)
    if options.ram_bytes is not None and found.plan.arena_bytes > options.ram_bytes:
        raise _does_not_fit(found, options.ram_bytes)
    if found.banded is None:
        return _Scheduled(graph, found.program, found.plan, PlanKind.MEMORY)
    return _Scheduled(found.banded.graph, found.program, found.plan, PlanKind.BANDS)


def _does_not_fit(found: BudgetPlan, ram_bytes: int) -> DoesNotFitError:
    shortfall = explain(found.program, found.plan, ram_bytes, found.tried)
    assert shortfall is not None
    summary, *details = shortfall.lines()
    return DoesNotFitError(
        "\n  ".join((f"{summary}; this is the least of all plans", *details)),
        fix=f"give it {found.plan.arena_bytes:,} bytes, choose a device with more RAM, or shrink "
        "the tensors named above",
    )
