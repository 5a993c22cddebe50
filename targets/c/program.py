"""What stands between IntegerGraph and C text: a program is a list of calls over an arena.

A lowering turns one operator into one `Call`; the memory planner reads what calls
read, write and need besides; the generator prints them. Nothing here knows C syntax
beyond the names of types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Data = npt.NDArray[np.generic]


class KernelSet(StrEnum):
    """Which kernels a core runs: folders in `kernels/`; the others fall back on portable ones."""

    PORTABLE = "portable"
    DSP = "dsp"
    MVE = "mve"


class Role(StrEnum):
    """What an array in flash is, for the flash map."""

    WEIGHTS = "weights"
    BIAS = "bias"
    REQUANTIZATION = "requantization"
    TABLE = "table"


@dataclass(frozen=True, eq=False)
class Array:
    """A constant array in flash.

    `data` is stored as it is, little-endian, in its own element type (int8, uint8, int16,
    uint16, int32, uint32, int64); arrays of equal bytes and type are stored once.
    """

    data: Data
    role: Role
    alignment: int = 4


@dataclass(frozen=True, eq=False)
class Struct:
    """A `static const` initializer: fields in the order of the C struct `type_name`."""

    type_name: str
    fields: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, eq=False)
class Expanded:
    """An array that lies in flash without its zeros and is made again before the kernel runs.

    The generated C is `function(&arguments, where)` right before the kernel's; the kernel's
    arguments point to `where` in the arena.

    Args:
        array: what the kernel reads; in flash are the arrays of `arguments` instead.
        bytes: what `function` writes: the array, filled up.
        source: the file that defines `function`, relative to `kernels/`.
    """

    array: Array
    bytes: int
    function: str
    source: str
    arguments: Struct


Value = int | Array | Expanded | Struct | Sequence[int] | Sequence["Struct"]


@dataclass(frozen=True)
class Overlap:
    """How an output may lie over an input that dies at this call.

    With i and o the addresses of input and output, allowed is i - o >= `distance`
    (beside lying apart); with `exact`, i - o == `distance` only. 0 is in place.
    """

    distance: int
    exact: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a kernel.

    The generated C is `function(&arguments, read 0, read 1, ..., write 0, ..., scratch)`:
    pointers `const void *` and `void *`, `scratch` only where `scratch_bytes` is not 0.

    Args:
        name: the operator's, unique in the program.
        kind: the IntegerGraph operator kind, for reports.
        function: the kernel, `es_...`.
        sources: kernel files that define it, relative to `kernels/`, headers left out.
        reads, writes: names of tensors; a read one may be a constant of the program.
        scratch_bytes: arena bytes that only this call uses, aligned to 8.
        overlaps: name of a read tensor -> how the first written one may lie over it.
        macs: multiply-accumulates, for reports.
    """

    name: str
    kind: str
    function: str
    sources: tuple[str, ...]
    arguments: Struct
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    scratch_bytes: int = 0
    overlaps: Mapping[str, Overlap] = field(default_factory=dict)
    macs: int = 0

    @property
    def expanded(self) -> Expanded | None:
        """What is expanded before the call: one of its arguments, if any."""
        values = (value for _, value in self.arguments.fields)
        return next((value for value in values if isinstance(value, Expanded)), None)


@dataclass(frozen=True)
class View:
    """A tensor that is a range of another one's bytes; `bytes` None reaches to the parent's end."""

    parent: str
    offset: int
    bytes: int | None = None


@dataclass(frozen=True)
class Storage:
    """Arena bytes of one tensor that owns memory."""

    name: str
    bytes: int
    alignment: int = 4


@dataclass(frozen=True, eq=False)
class Program:
    """Calls in execution order, over tensors.

    Args:
        storages: every tensor that owns arena memory, by name.
        views: every tensor that lies inside another (reshapes, bands, slices of a concat).
        inputs, outputs: tensors that the caller fills and reads, in order.
        constants: tensors in flash that calls read as operands, by name.
    """

    calls: tuple[Call, ...]
    storages: Mapping[str, Storage]
    views: Mapping[str, View]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)

    def place(self, name: str) -> tuple[str, int]:
        """The storage that a tensor lies in, and its byte offset there."""
        offset = 0
        while name in self.views:
            view = self.views[name]
            name, offset = view.parent, offset + view.offset
        return name, offset


@dataclass(frozen=True)
class Placement:
    """Where a storage (or what a call alone uses) lies, and from which to which call it is in use.

    `first` -1 means from the start (inputs); `last` is inclusive, `len(calls)` for outputs.
    """

    name: str
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """The arena.

    `offsets` has every storage by its name, and scratch and expanded weights by their call's
    name and more;
    `timeline` is the same with lifetimes, for reports; `optimal` says that no plan under
    these constraints is smaller.
    """

    arena_bytes: int
    offsets: Mapping[str, int]
    timeline: tuple[Placement, ...]
    optimal: bool
    lower_bound: int
