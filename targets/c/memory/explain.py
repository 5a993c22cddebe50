"""Why a plan does not fit in RAM, in words: the peak, what is alive there, what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgesmith.targets.c.memory.lifetimes import buffers
from edgesmith.targets.c.memory.solve import live_bounds
from edgesmith.targets.c.program import MemoryPlan, Program
from edgesmith.targets.c.text import shown


@dataclass(frozen=True)
class LiveTensor:
    """A tensor or scratch in use at the peak: bytes in use, of how many that it has."""

    name: str
    bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Shortfall:
    """By how much an arena exceeds RAM, and where.

    Args:
        arena_bytes, ram_bytes: what the plan needs and what there is.
        excess_bytes: the difference.
        call, kind: the operator at which most bytes are needed at once.
        position: its place among the calls, from 0; of so many calls.
        peak_bytes: bytes in use at that call, less what it may write over.
        live: what is in use there, largest first.
        advice: what would help, a sentence each.
    """

    arena_bytes: int
    ram_bytes: int
    excess_bytes: int
    call: str
    kind: str
    position: int
    calls: int
    peak_bytes: int
    live: tuple[LiveTensor, ...]
    advice: tuple[str, ...]

    def lines(self) -> tuple[str, ...]:
        """The text of an error message, a line each."""
        share = 100 * self.excess_bytes / self.ram_bytes if self.ram_bytes else 100.0
        head = (
            f"the arena needs {self.arena_bytes:,} bytes of RAM, {self.excess_bytes:,} "
            f"({share:.0f} %) more than the {self.ram_bytes:,} there are"
        )
        where = (
            f"the peak is {self.kind} {shown(self.call)!r} (layer {self.position} of {self.calls}): "
            f"{self.peak_bytes:,} bytes at once"
        )
        tensors = (f"  {item.bytes:>9,} bytes  {shown(item.name)}" for item in self.live)
        return (head, where, *tensors, *self.advice)


def explain(
    program: Program,
    plan: MemoryPlan,
    ram_bytes: int,
    tried: Mapping[tuple[int, int], int] | None = None,
) -> Shortfall | None:
    """What keeps a plan from fitting; None where it fits or nothing is called.

    Args:
        tried: `BudgetPlan.tried`, where bands were tried.
    """
    excess = plan.arena_bytes - ram_bytes
    if excess <= 0 or not program.calls:
        return None
    placed = buffers(program)
    bounds = live_bounds(program, placed)
    position = max(range(len(program.calls)), key=lambda time: bounds[time])
    call = program.calls[position]
    alive = [
        LiveTensor(item.name, item.alive_bytes(position), item.bytes)
        for item in placed
        if item.alive_bytes(position)
    ]
    live = tuple(sorted(alive, key=lambda item: (-item.bytes, item.name)))
    return Shortfall(
        arena_bytes=plan.arena_bytes,
        ram_bytes=ram_bytes,
        excess_bytes=excess,
        call=call.name,
        kind=call.kind,
        position=position,
        calls=len(program.calls),
        peak_bytes=bounds[position],
        live=live,
        advice=(*_bands(tried), *_advice(program, plan, ram_bytes, position, live)),
    )


def _advice(
    program: Program, plan: MemoryPlan, ram_bytes: int, position: int, live: tuple[LiveTensor, ...]
) -> list[str]:
    call = program.calls[position]
    found = []
    scratch = call.scratch_bytes
    if scratch and plan.arena_bytes - scratch <= ram_bytes:
        found.append(f"a kernel without its {scratch:,} bytes of scratch would fit at this layer")
    held = [
        item
        for item in live
        if item.name in program.storages and item.name not in (*call.reads, *call.writes)
    ]
    if held:
        names = ", ".join(repr(shown(item.name)) for item in held[:3])
        found.append(f"{names} only wait for a later layer: a shorter skip connection frees them")
    if call.reads and not set(call.reads) & set(call.overlaps):
        found.append("the memory-first plan lets operators write over their inputs where they can")
    scale = (ram_bytes / plan.arena_bytes) ** 0.5
    found.append(
        f"an input of {100 * scale:.0f} % of the height and width, or {100 * scale**2:.0f} % of "
        "the channels at the peak, needs about the RAM there is"
    )
    return found


def _bands(tried: Mapping[tuple[int, int], int] | None) -> tuple[str, ...]:
    """What bands gave, or would."""
    if tried is None:
        return ("with a RAM budget, the planner runs the first stage in bands where that helps",)
    banded = {key: size for key, size in tried.items() if key != (0, 1)}
    if not banded:
        return ("no first stage of this graph can run in bands",)
    (stage, bands), size = min(banded.items(), key=lambda item: (item[1], item[0]))
    return (
        f"the least arena found in bands is {size:,} bytes, the first {stage} operators in "
        f"{bands} bands",
    )
