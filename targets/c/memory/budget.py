"""Fit a network into a RAM budget: plain if it fits, else in as few recomputed MACs as possible.

Longer stages end in smaller tensors and more bands hold fewer rows, but both recompute
more. Candidates are ranked by a bound that needs no lowering (bytes in use if every
operator wrote over its dying inputs); only those of which no other has both fewer recomputed
MACs and a lower bound are lowered and planned, and a few of the lowest bounds. This choice
does not depend on the budget, so the least arena that one budget finds fits as a budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.c.memory.bands import ROWS, Banded, split, stages
from edgesmith.targets.c.memory.lifetimes import buffers
from edgesmith.targets.c.memory.solve import live_bounds, plan_memory
from edgesmith.targets.c.program import (
    Call,
    MemoryPlan,
    Overlap,
    Program,
    Storage,
    Struct,
    View,
)
from edgesmith.targets.graph.ir import Graph

BANDS = (2, 3, 4, 6, 8, 12, 16, 24)
STAGES = 6
LAST_TRIES = 4  # candidates of the least bound, planned where none fits

Lower = Callable[[Graph, Mapping[str, View]], Program]


@dataclass(frozen=True, eq=False)
class BudgetPlan:
    """The plan chosen for a RAM budget.

    Args:
        program: lowered from the plain graph, or from `banded.graph` and its views.
        plan: its arena.
        banded: how the first stage is split; None where the plain graph is used.
        fits: whether the arena is within the budget. If not, it is the least one found.
        tried: arena bytes of everything planned, by (stage, bands); (0, 1) is the plain graph.
    """

    program: Program
    plan: MemoryPlan
    banded: Banded | None
    fits: bool
    tried: Mapping[tuple[int, int], int]


def plan_bands(graph: Graph, lower: Lower, ram_bytes: int) -> BudgetPlan:
    """Plan a graph within `ram_bytes` of arena, in bands if it must be.

    Args:
        lower: lowers a graph; the views are tensors that are byte ranges of others.
        ram_bytes: what the arena may have; 0 asks for the least.

    Returns:
        The plain plan if it fits, else the banded one with the least recomputation that
        fits, else the smallest plan found, with `fits` False.
    """
    tried: dict[tuple[int, int], int] = {}

    def planned(banded: Banded | None) -> BudgetPlan:
        program = lower(banded.graph, banded.views) if banded else lower(graph, {})
        plan = plan_memory(program)
        tried[(banded.stage, banded.bands) if banded else (0, 1)] = plan.arena_bytes
        return BudgetPlan(program, plan, banded, plan.arena_bytes <= ram_bytes, tried)

    best = planned(None)
    if best.fits:
        return best
    bounded = [(least_bytes(each.graph, each.views), each) for each in candidates(graph)]
    hopeful = [each for bound, each in _best(bounded) if not ram_bytes or bound <= ram_bytes]
    smallest = [each for _, each in sorted(bounded, key=lambda item: item[0])][:LAST_TRIES]
    for banded in (*hopeful, *(item for item in smallest if item not in hopeful)):
        found = planned(banded)
        if found.fits:
            return found
        if found.plan.arena_bytes < best.plan.arena_bytes:
            best = found
    return best


def _best(bounded: Sequence[tuple[int, Banded]]) -> Iterator[tuple[int, Banded]]:
    """Those with a lower bound than all of fewer recomputed MACs, by MACs."""
    lowest: int | None = None
    for bound, banded in sorted(bounded, key=lambda item: (item[1].recomputed_macs, item[0])):
        if lowest is None or bound < lowest:
            lowest = bound
            yield bound, banded


def candidates(graph: Graph) -> Iterator[Banded]:
    """Stages whose output is smaller than that of every shorter one, in several bands each."""
    smallest: int | None = None
    chosen = []
    for stage in stages(graph):
        size = graph[graph.ops[stage - 1].output].bytes
        if smallest is None or size < smallest:
            smallest = size
            chosen.append(stage)
    for stage in chosen[-STAGES:]:
        rows = graph[graph.ops[stage - 1].output].shape[ROWS]
        for bands in sorted({*(count for count in BANDS if count < rows), rows}):
            if bands > max(BANDS):
                continue
            try:
                yield split(graph, stage, bands)
            except UnsupportedError:
                break  # narrower bands lie in padding all the more


def least_bytes(graph: Graph, views: Mapping[str, View]) -> int:
    """Arena bytes if every operator could write over its dying inputs and needed no scratch."""
    anything = Overlap(-(1 << 40))
    nothing = Struct("", ())
    calls = []
    for op in graph.ops:
        reads = tuple(name for name in op.inputs if name and not graph[name].is_constant)
        overlaps = dict.fromkeys(reads, anything)
        calls.append(Call(op.name, op.kind, "", (), nothing, reads, op.outputs, 0, overlaps))
    storages = {
        tensor.name: Storage(tensor.name, tensor.bytes)
        for tensor in graph.tensors.values()
        if not tensor.is_constant and tensor.name not in views
    }
    program = Program(tuple(calls), storages, views, graph.inputs, graph.outputs)
    return max(live_bounds(program, buffers(program)).values())
