"""An independent check of a plan: run the program on an arena of tags.

Every byte of the arena holds the tag (storage, byte index) of what was last written there.
A read finds its own tags or the plan is wrong. Shares no code with lifetimes and
constraints beyond where a tensor lies in its storage, so a fault there shows here.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import StageError
from edgesmith.targets.c.memory.lifetimes import SCRATCH_ALIGNMENT, arena_reads, of_call, span
from edgesmith.targets.c.program import Call, MemoryPlan, Program

Tags = npt.NDArray[np.int64]
Bytes = tuple[str, int, int]  # what lies there, first address, end address

SCRATCHED = -2


def check(plan: MemoryPlan, program: Program) -> None:
    """Simulate the program on the planned arena.

    Raises:
        StageError: a buffer is missing, misaligned or outside the arena, a call reads bytes
            that something else overwrote, or reads and writes of a call lie over each other
            in a way that the call does not allow.
    """
    _check_places(plan, program)
    arena = _Arena(plan, program)
    for name in program.inputs:
        arena.write(name)
    for call in program.calls:
        for name in arena_reads(program, call):
            arena.read(name, f"call {call.name!r}")
        _check_call(call, arena)
        arena.scratch(call)
        for name in call.writes:
            arena.write(name)
    for name in program.outputs:
        arena.read(name, "the caller")


class _Arena:
    """Addresses of tensors, and the tag of every byte."""

    def __init__(self, plan: MemoryPlan, program: Program) -> None:
        self.plan = plan
        self.program = program
        self.identity = {name: index for index, name in enumerate(program.storages)}
        self.memory: Tags = np.full(plan.arena_bytes, -1, np.int64)

    def at(self, tensor: str) -> Bytes:
        place = span(self.program, tensor)
        base = self.plan.offsets[place.storage]
        return tensor, base + place.start, base + place.end

    def scratch_at(self, call: Call) -> list[Bytes]:
        offsets = self.plan.offsets
        return [(name, offsets[name], offsets[name] + size) for name, size in of_call(call).items()]

    def write(self, tensor: str) -> None:
        _, start, end = self.at(tensor)
        self.memory[start:end] = self._tags(tensor)

    def scratch(self, call: Call) -> None:
        for _, start, end in self.scratch_at(call):
            self.memory[start:end] = SCRATCHED

    def read(self, tensor: str, reader: str) -> None:
        _, start, end = self.at(tensor)
        wrong = np.flatnonzero(self.memory[start:end] != self._tags(tensor))
        if wrong.size:
            tag = int(self.memory[start + wrong[0]])
            raise _fault(
                f"{reader} reads tensor {tensor!r}, whose byte {int(wrong[0])} "
                f"holds {self._describe(tag)}"
            )

    def _tags(self, tensor: str) -> Tags:
        place = span(self.program, tensor)
        return np.arange(place.start, place.end) + (self.identity[place.storage] << 40)

    def _describe(self, tag: int) -> str:
        if tag == SCRATCHED:
            return "scratch"
        if tag < 0:
            return "nothing yet"
        name = list(self.identity)[tag >> 40]
        return f"byte {tag & ((1 << 40) - 1)} of {name!r}"


def _fault(message: str) -> StageError:
    return StageError(
        f"memory plan: {message}",
        fix="report this: the planner, or a lowering's views and overlaps, are wrong",
    )


def _check_places(plan: MemoryPlan, program: Program) -> None:
    wanted = {name: (item.bytes, item.alignment) for name, item in program.storages.items()}
    for call in program.calls:
        for name, size in of_call(call).items():
            wanted[name] = (size, SCRATCH_ALIGNMENT)
    for name, (size, alignment) in wanted.items():
        offset = plan.offsets.get(name)
        if offset is None:
            raise _fault(f"{name!r} has no offset")
        if offset < 0 or offset + size > plan.arena_bytes or offset % alignment:
            raise _fault(
                f"{name!r} of {size} bytes, alignment {alignment}, is at {offset} in an arena "
                f"of {plan.arena_bytes}"
            )


def _clash(left: Bytes, right: Bytes) -> bool:
    return max(left[1], right[1]) < min(left[2], right[2])


def _check_call(call: Call, arena: _Arena) -> None:
    """What the call touches at the same time lies apart, or as its overlaps say."""
    writes = [arena.at(name) for name in call.writes]
    writes += arena.scratch_at(call)
    for left, right in combinations(writes, 2):
        if _clash(left, right):
            raise _fault(f"call {call.name!r} writes {left[0]!r} and {right[0]!r} to one place")
    for read in (arena.at(name) for name in arena_reads(arena.program, call)):
        for position, write in enumerate(writes):
            if not _clash(read, write):
                continue
            overlap = call.overlaps.get(read[0]) if position == 0 and call.writes else None
            apart = read[1] - write[1]
            if overlap is None or (
                apart != overlap.distance if overlap.exact else apart < overlap.distance
            ):
                raise _fault(
                    f"call {call.name!r} writes {write[0]!r} over {read[0]!r}, {apart} bytes "
                    f"before it, allowed is {overlap}"
                )
