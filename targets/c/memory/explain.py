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
            f"the peak is {self.kind} {shown(self.call)!r} (layer {self.position} of "
            f"{self.calls}): {self.peak_bytes:,} bytes at once"
        )
        tensors = (f"  {item.bytes:>9,} bytes  {shown(item.name)}" for item in self.live)
        return (head, where, *tensors, *self.advice)


def explain(
    program: Program,
    plan: MemoryPlan,
    ram_bytes: int,
    tried: Mapping[tuple[int, int], int] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Shortfall | None:
    """What keeps a plan from fitting; None where it fits or nothing is called.

    Args:
        tried: `BudgetPlan.tried`, where bands were tried.
        shapes: of tensors, NHWC where they are images; without, advice names no axes.
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
        advice=(
            *_bands(tried),
            *_advice(program, plan, ram_bytes, position, live),
            _smaller(plan, ram_bytes, live, shapes or {}),
        ),
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
    return found


def _smaller(
    plan: MemoryPlan,
    ram_bytes: int,
    live: tuple[LiveTensor, ...],
    shapes: Mapping[str, tuple[int, ...]],
) -> str:
    """What size would do, on the axes that the largest tensor at the peak has."""
    share = ram_bytes / plan.arena_bytes
    shape = next((shapes[item.name] for item in live if item.name in shapes), ())
    sides = [side for side in shape[1:-1] if side > 1]
    rest = "needs about the RAM there is"
    if len(sides) > 1:
        return (
            f"an input of {100 * share**0.5:.0f} % of the height and width, or "
            f"{100 * share:.0f} % of the channels at the peak, {rest}"
        )
    if sides:
        return (
            f"an input of {100 * share:.0f} % of the length, or as large a share of the channels "
            f"at the peak, {rest}"
        )
    what = "features" if shape else "bytes"
    return f"a network with {100 * share:.0f} % of the {what} at the peak {rest}"


def _bands(tried: Mapping[tuple[int, int], int] | None) -> tuple[str, ...]:
    """What bands gave, or would."""
    if tried is None:
        return ("with a RAM budget, the planner runs the first stage in bands where that helps",)
    banded = {key: size for key, size in tried.items() if key != (0, 1)}
    if not banded:
        return ("no first stage of this graph can run in bands",)
    (stage, bands), size = min(banded.items(), key=lambda item: (item[1], item[0]))
    operators = "operator" if stage == 1 else f"{stage} operators"
    return (
        f"the least arena found in bands is {size:,} bytes, the first {operators} in {bands} bands",
    )
