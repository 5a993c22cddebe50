"""From a legal graph to its C library: lower, plan the arena, print.

Two plans are offered. `speed` takes all the scratch that makes kernels fast; `memory` takes the
smallest arena that scratch limits reach. Where a RAM limit is given, `speed` is left for `memory`
and that for execution in bands of rows as soon as it does not fit. Weights with zeros are
expanded in what RAM the plan leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from edgesmith.pipeline.errors import DoesNotFitError
from edgesmith.targets.c.assemble import assemble
from edgesmith.targets.c.expansion import with_expansions
from edgesmith.targets.c.generator import Library, generate
from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.memory.budget import plan_bands
from edgesmith.targets.c.memory.explain import explain
from edgesmith.targets.c.memory.solve import plan_memory
from edgesmith.targets.c.prepare import prepared
from edgesmith.targets.c.program import KernelSet, MemoryPlan, Program, View
from edgesmith.targets.c.zeros import Zeros
from edgesmith.targets.graph.ir import Graph

SCRATCH_LIMITS = (None, 4096, 2048, 1024, 512, 256, 0)
"""Bytes of scratch per call that `memory` tries, the fastest first; kernels take the least that
they can work with at 0."""
BAND_SCRATCH_LIMITS = (512, 0)
"""The same for execution in bands."""


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

    @property
    def constant_bytes(self) -> int:
        """Bytes of all constant arrays: weights, biases, requantization, tables."""
        return sum(array.data.nbytes for array in self.library.arrays.values())


@dataclass(frozen=True)
class CompileOptions:
    """How a graph becomes C.

    Args:
        kernels: the core's set of kernels.
        prefix: what every public C name starts with.
        plan: what to save first.
        ram_bytes: what the arena may take; None sets no limit.
        zeros: which weights lie in flash without their zeros.
        compiler: the command that compiles for the core, as the library's README shows it.
        quick: plan memory with little search, where that fits; the arena may be larger than
            that of the same graph deployed.
    """

    kernels: KernelSet
    prefix: str = "model"
    plan: PlanKind = PlanKind.SPEED
    ram_bytes: int | None = None
    zeros: Zeros = Zeros.AUTO
    compiler: str = "cc"
    quick: bool = False


@dataclass(frozen=True, eq=False)
class _Scheduled:
    """A graph with its program and arena, before printing.

    `tried` is `BudgetPlan.tried`; empty where bands were not.
    """

    graph: Graph
    program: Program
    memory: MemoryPlan
    kind: PlanKind
    tried: Mapping[tuple[int, int], int] = field(default_factory=dict)

    @property
    def arena_bytes(self) -> int:
        return self.memory.arena_bytes

    def fits(self, options: CompileOptions) -> bool:
        return options.ram_bytes is None or self.arena_bytes <= options.ram_bytes


def compile_graph(graph: Graph, options: CompileOptions) -> Compiled:
    """Make the library of a legalized graph.

    Raises:
        TargetUnsupportedError: an operator or format that no kernel takes.
        DoesNotFitError: no plan fits the RAM limit.
        SpecError: the prefix is no C identifier.
    """
    chosen = _schedule(prepared(graph), options)
    program, memory = with_expansions(
        chosen.graph, chosen.program, chosen.memory, options.zeros, options.ram_bytes
    )
    library = generate(
        chosen.graph,
        program,
        memory,
        prefix=options.prefix,
        kernels=options.kernels.value,
        compiler=options.compiler,
    )
    return Compiled(chosen.graph, program, memory, library, chosen.kind)


def _schedule(graph: Graph, options: CompileOptions) -> _Scheduled:
    if options.plan is PlanKind.SPEED:
        for quick in (True, False) if options.quick else (False,):
            speed = _planned(graph, options, PlanKind.SPEED, None, quick=quick)
            if speed.fits(options):
                return speed
    smallest = _smallest(graph, options)
    if options.plan is not PlanKind.BANDS and smallest.fits(options):
        return smallest
    found = [smallest]
    for limit in BAND_SCRATCH_LIMITS:
        found.append(_banded(graph, options, limit))
        if options.plan is not PlanKind.BANDS and found[-1].fits(options):
            return found[-1]
    least = min(found, key=lambda each: each.arena_bytes)
    if not least.fits(options):
        raise _does_not_fit(least, found, options.ram_bytes or 0)
    return least


def _planned(
    graph: Graph,
    options: CompileOptions,
    kind: PlanKind,
    scratch_bytes: int | None,
    *,
    quick: bool = False,
) -> _Scheduled:
    program = assemble(Site(graph, options.kernels, scratch_bytes))
    return _Scheduled(graph, program, plan_memory(program, quick=quick), kind)


def _smallest(graph: Graph, options: CompileOptions) -> _Scheduled:
    """The smallest arena over the scratch limits; the fastest of equals."""
    tried = (_planned(graph, options, PlanKind.MEMORY, limit) for limit in SCRATCH_LIMITS)
    return min(tried, key=lambda each: each.arena_bytes)


def _banded(graph: Graph, options: CompileOptions, limit: int) -> _Scheduled:
    """In bands: the fewest recomputed MACs that fit, or the least arena if bands were asked for."""

    def lower(split: Graph, views: Mapping[str, View]) -> Program:
        return assemble(Site(split, options.kernels, limit), views)

    asked = options.plan is PlanKind.BANDS or options.ram_bytes is None
    found = plan_bands(graph, lower, 0 if asked else options.ram_bytes or 0)
    if found.banded is None:
        return _Scheduled(graph, found.program, found.plan, PlanKind.MEMORY, found.tried)
    split = found.banded.graph
    return _Scheduled(split, found.program, found.plan, PlanKind.BANDS, found.tried)


def _does_not_fit(
    least: _Scheduled, found: Sequence[_Scheduled], ram_bytes: int
) -> DoesNotFitError:
    tried: dict[tuple[int, int], int] = {}
    for each in found:
        for key, size in each.tried.items():
            tried[key] = min(size, tried.get(key, size))
    shapes = {tensor.name: tensor.shape for tensor in least.graph.activations()}
    shortfall = explain(least.program, least.memory, ram_bytes, tried, shapes)
    assert shortfall is not None
    summary, *details = shortfall.lines()
    return DoesNotFitError(
        "\n  ".join((f"{summary}; this is the least that was found", *details)),
        fix=f"give it {least.arena_bytes:,} bytes, choose a device with more RAM, or shrink "
        "the tensors named above",
    )
