"""When which bytes of which storage hold something that is still needed.

Liveness is known per byte range, not per storage: views cut a storage into ranges, each
alive from the first call that touches it to the last. So the rows of a graph input that
bands have consumed are free although later rows are not, and the unwritten part of an
output is free until a call writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from edgesmith.pipeline.errors import StageError
from edgesmith.targets.c.program import Call, Program, Storage, View

SCRATCH_ALIGNMENT = 8
UNIT_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Span:
    """Bytes [start, end) of a storage: where one tensor lies."""

    storage: str
    start: int
    end: int

    def covers(self, start: int, end: int) -> bool:
        return self.start <= start and end <= self.end

    def meets(self, other: Span) -> bool:
        """Whether both have bytes in common."""
        if self.storage != other.storage:
            return False
        return max(self.start, other.start) < min(self.end, other.end)


@dataclass(frozen=True)
class LiveRange:
    """Bytes [start, end) of a storage, in use from call `first` to call `last`, both included."""

    start: int
    end: int
    first: int
    last: int

    def alive(self, call: int) -> bool:
        return self.first <= call <= self.last


@dataclass(frozen=True)
class Buffer:
    """What the planner places: a storage, or what one call alone uses (`of_call`)."""

    name: str
    bytes: int
    alignment: int
    ranges: tuple[LiveRange, ...]

    @property
    def first(self) -> int:
        """The first call in whose time it is used; -1 for graph inputs and for unused storages."""
        return min((part.first for part in self.ranges), default=-1)

    @property
    def last(self) -> int:
        """The last call that uses it, included; the number of calls for graph outputs."""
        return max((part.last for part in self.ranges), default=-1)

    def alive_bytes(self, call: int) -> int:
        return sum(part.end - part.start for part in self.ranges if part.alive(call))


def scratch_name(call: Call) -> str:
    """The name of a call's scratch in a plan, which no tensor of a sane model has."""
    return f"{call.name}{UNIT_SEPARATOR}scratch"


def expanded_name(call: Call) -> str:
    """The name of a call's expanded weights in a plan."""
    return f"{call.name}{UNIT_SEPARATOR}weights"


def of_call(call: Call) -> dict[str, int]:
    """Name -> bytes of what only this call uses: scratch, and weights that it expands."""
    found = {scratch_name(call): call.scratch_bytes} if call.scratch_bytes else {}
    if call.expanded is not None:
        found[expanded_name(call)] = call.expanded.bytes
    return found


def arena_reads(program: Program, call: Call) -> tuple[str, ...]:
    """The tensors that a call reads in the arena: constants are in flash."""
    return tuple(name for name in call.reads if name not in program.constants)


def span(program: Program, tensor: str) -> Span:
    """The bytes that a tensor lies in.

    Raises:
        StageError: the tensor is unknown, views form a circle, or it leaves its storage.
    """
    chain: list[View] = []
    name = tensor
    while name in program.views and len(chain) <= len(program.views):
        chain.append(program.views[name])
        name = chain[-1].parent
    if name not in program.storages:
        raise StageError(
            f"tensor {tensor!r} of the program lies in {name!r}, which owns no arena memory",
            fix="give it a storage or a view in the program's lowering",
        )
    start, end = 0, program.storages[name].bytes
    for view in reversed(chain):
        low = start + view.offset
        high = end if view.bytes is None else low + view.bytes
        if not start <= low <= high <= end:
            raise StageError(
                f"tensor {tensor!r} is bytes {low} to {high} of {name!r}, where {start} to {end} "
                "are its parent's",
                fix="correct the view in the program's lowering",
            )
        start, end = low, high
    return Span(name, start, end)


def buffers(program: Program) -> tuple[Buffer, ...]:
    """Every storage and what calls use alone, with lifetimes, storages first, in program order.

    Bytes of an input live from -1, those of an output until `len(program.calls)`.
    """
    touched: dict[str, list[LiveRange]] = {name: [] for name in program.storages}
    for tensor, time in _uses(program):
        place = span(program, tensor)
        touched[place.storage].append(LiveRange(place.start, place.end, time, time))
    found = [_storage_buffer(program.storages[name], uses) for name, uses in touched.items()]
    for time, call in enumerate(program.calls):
        for name, size in of_call(call).items():
            found.append(Buffer(name, size, SCRATCH_ALIGNMENT, (LiveRange(0, size, time, time),)))
    return tuple(found)


def _uses(program: Program) -> Iterator[tuple[str, int]]:
    """Every tensor with every time at which its bytes matter."""
    yield from ((name, -1) for name in program.inputs)
    for time, call in enumerate(program.calls):
        yield from ((name, time) for name in (*arena_reads(program, call), *call.writes))
    yield from ((name, len(program.calls)) for name in program.outputs)


def _storage_buffer(storage: Storage, uses: Iterable[LiveRange]) -> Buffer:
    """Cut the storage where any use begins or ends; join neighbours of equal lifetime."""
    uses = list(uses)
    cuts = sorted({edge for use in uses for edge in (use.start, use.end)})
    parts: list[LiveRange] = []
    for start, end in pairwise(cuts):
        times = [use.first for use in uses if use.start <= start and end <= use.end]
        if not times:
            continue
        part = LiveRange(start, end, min(times), max(times))
        previous = parts[-1] if parts else None
        if previous and (previous.end, previous.first, previous.last) == (
            part.start,
            part.first,
            part.last,
        ):
            parts[-1] = LiveRange(previous.start, end, part.first, part.last)
        else:
            parts.append(part)
    return Buffer(storage.name, storage.bytes, storage.alignment, tuple(parts))
