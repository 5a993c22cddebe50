"""Which weights a program keeps in flash without their zeros, and the program that reads them.

An array leaves flash only if every call that reads it does without. A call expands its weights
into the arena first, which takes room for the whole array while it runs, beside its input,
output and scratch. A fully connected operator of a single row may skip zeros instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgesmith.targets.c.lowerings import sparse
from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.memory.lifetimes import buffers
from edgesmith.targets.c.memory.solve import live_bounds, plan_memory
from edgesmith.targets.c.program import (
    Array,
    Call,
    Expanded,
    KernelSet,
    MemoryPlan,
    Program,
    Role,
    Struct,
)
from edgesmith.targets.c.text import arrays_in
from edgesmith.targets.c.zeros import Encoded, Form, Zeros, decode, encode
from edgesmith.targets.graph.ir import Graph

CODE_BYTES: Mapping[str, int] = {
    "es_expand_s8": 256,
    "es_expand_s4": 164,
    sparse.FUNCTION: 544,
}
"""Flash of a function and all that only it calls, on the core where it is largest."""
CALL_BYTES = 32
"""Flash of its arguments and of calling it, per layer."""
SPARSE = 0.25
"""Share of zero codes from which `auto` looks at a layer: dense weights have fewer."""
USES = 8
"""How often `auto` wants a weight to be multiplied per inference: expanding one takes two or
three instructions, which should be little beside what is done with it."""

Content = tuple[str, bytes]


@dataclass(frozen=True, eq=False)
class Candidate:
    """An array that may be kept without its zeros, and the calls that read it.

    `skipping` is the call that reads it as it is stored, where there is one.
    """

    array: Array
    encoded: Encoded
    calls: tuple[int, ...]
    skipping: Call | None = None
    saved_by_skipping: int = 0

    @property
    def function(self) -> str:
        """What expands it, or skips its zeros."""
        return self.encoded.form.function if self.skipping is None else sparse.FUNCTION

    @property
    def saved_bytes(self) -> int:
        """Flash, without that function."""
        if self.skipping is not None:
            return self.saved_by_skipping - CALL_BYTES
        stored = self.encoded.stored.nbytes + CALL_BYTES * len(self.calls)
        return self.array.data.nbytes - stored

    @property
    def arena_bytes(self) -> int:
        """What each of the calls needs of the arena."""
        return 0 if self.skipping is not None else self.encoded.expanded_bytes


def with_expansions(
    graph: Graph,
    program: Program,
    plan: MemoryPlan,
    zeros: Zeros,
    ram_bytes: int | None,
) -> tuple[Program, MemoryPlan]:
    """The program that does without zeros where it should, and its arena.

    `auto` takes sparse layers that use their weights often enough for expanding to cost little,
    as far as they fit into the arena as it is planned; what bands would each expand again stays.
    `compress` takes all that saves flash and has room. Where not all have, those that save the
    most go first.

    Args:
        graph: what the calls compute.
        ram_bytes: what the arena may take; None sets no limit.
    """
    if zeros is Zeros.STORE:
        return program, plan
    found, limit = candidates(program), ram_bytes
    if zeros is Zeros.AUTO:
        light = _light_calls(graph, program)
        found = [each for each in found if len(each.calls) == 1 and each.calls[0] in light]
        limit = plan.arena_bytes
    else:
        found = [_or_skipping(each, graph, program) for each in found]
    found = _worth_their_code([each for each in found if each.saved_bytes > 0])
    chosen = _worth_their_code(_fitting(program, found, limit))
    if not chosen:
        return program, plan
    made = without_zeros(program, chosen)
    return made, plan_memory(made)


def candidates(program: Program) -> list[Candidate]:
    """Every array of weights that calls read through their arguments, with those calls."""
    readers: dict[Content, list[int]] = {}
    arrays: dict[Content, Array] = {}
    operands = {_content(array) for array in program.constants.values()}
    for number, call in enumerate(program.calls):
        weights = [each for each in arrays_in(call.arguments) if each.role is Role.WEIGHTS]
        if len(weights) == 1 and _weights_field(call) is not None:
            content = _content(weights[0])
            arrays[content] = weights[0]
            readers.setdefault(content, []).append(number)
        else:
            operands.update(map(_content, weights))
    return [
        Candidate(arrays[content], encode(content[1]), tuple(calls))
        for content, calls in readers.items()
        if content not in operands
    ]


def without_zeros(program: Program, chosen: Iterable[Candidate]) -> Program:
    """The program whose calls expand these arrays, or skip their zeros."""
    calls = list(program.calls)
    for each in chosen:
        for number in each.calls:
            calls[number] = each.skipping or _expanding(calls[number], each.encoded)
    return replace(program, calls=tuple(calls))


def expansion_of(array: Array, encoded: Encoded) -> Expanded:
    """An array as its encoding in flash and what makes it again."""
    form = encoded.form
    arguments = Struct(
        "es_expand_args",
        (
            ("stored", Array(encoded.stored, Role.WEIGHTS)),
            ("blocks", encoded.blocks),
            ("blank", form.blank),
        ),
    )
    return Expanded(array, encoded.expanded_bytes, form.function, form.source, arguments)


def restored(expanded: Expanded, stored: bytes) -> bytes:
    """The array's bytes, expanded from bytes that lie in flash; empty where they are too few."""
    fields = dict(expanded.arguments.fields)
    blocks, blank, own = fields["blocks"], fields["blank"], fields["stored"]
    assert isinstance(blocks, int)
    assert isinstance(blank, int)
    assert isinstance(own, Array)
    if len(stored) < own.data.nbytes:
        return b""
    form = Form(8 if expanded.function.endswith("8") else 4, blank)
    return decode(form, blocks, stored[: own.data.nbytes], expanded.array.data.nbytes)


def _or_skipping(candidate: Candidate, graph: Graph, program: Program) -> Candidate:
    """The candidate with a call that skips zeros, where there is one."""
    if len(candidate.calls) > 1:
        return candidate
    call = program.calls[candidate.calls[0]]
    op = next((op for op in graph.ops if op.name == call.name), None)
    skipping = sparse.sparse_fully_connected(op, Site(graph, KernelSet.PORTABLE)) if op else None
    if skipping is None:
        return candidate
    before, after = (
        sum(array.data.nbytes for array in arrays_in(each.arguments)) for each in (call, skipping)
    )
    return replace(candidate, skipping=skipping, saved_by_skipping=before - after)


def _fitting(
    program: Program, found: Sequence[Candidate], limit: int | None
) -> Sequence[Candidate]:
    """All if the arena stays within the limit; else one after the other, the largest gain first."""

    def fits(chosen: Sequence[Candidate]) -> bool:
        if limit is None:
            return True
        return plan_memory(without_zeros(program, chosen)).arena_bytes <= limit

    needs = _needs(program, found)
    possible = [each for each in found if limit is None or needs[id(each)] <= limit]
    if not possible or fits(possible):
        return possible
    chosen: list[Candidate] = []
    for each in sorted(possible, key=lambda each: -each.saved_bytes):
        if fits([*chosen, each]):
            chosen.append(each)
    return chosen


def _content(array: Array) -> Content:
    return array.data.dtype.name, array.data.tobytes()


def _weights_field(call: Call) -> Array | None:
    """The array that can be replaced: a field of the arguments themselves."""
    for _, value in call.arguments.fields:
        if isinstance(value, Array) and value.role is Role.WEIGHTS:
            return value
    return None


def _expanding(call: Call, encoded: Encoded) -> Call:
    array = _weights_field(call)
    assert array is not None
    expanded = expansion_of(array, encoded)
    fields = tuple(
        (name, expanded if value is array else value) for name, value in call.arguments.fields
    )
    return replace(
        call,
        arguments=replace(call.arguments, fields=fields),
        sources=tuple(dict.fromkeys((*call.sources, expanded.source))),
    )


def _light_calls(graph: Graph, program: Program) -> set[int]:
    """Calls whose weights are zeros in good part, and used often enough."""
    ops = {op.name: op for op in graph.ops}
    found = set()
    for number, call in enumerate(program.calls):
        op = ops.get(call.name)
        data = None if op is None or len(op.inputs) < 2 else graph[op.inputs[1]].data
        if data is None or not data.size or call.macs < USES * data.size:
            continue
        if (data == 0).mean() >= SPARSE:  # of the codes, before lowerings fill them up
            found.add(number)
    return found


def _needs(program: Program, found: Sequence[Candidate]) -> dict[int, int]:
    """id -> arena bytes that no plan goes below where a candidate is expanded."""
    bounds = live_bounds(program, buffers(program)) if found else {}
    return {
        id(each): each.arena_bytes + max(bounds[number] for number in each.calls) for each in found
    }


def _worth_their_code(found: Sequence[Candidate]) -> list[Candidate]:
    """Those that together save more than the function that they share takes."""
    kept: list[Candidate] = []
    for function, code in CODE_BYTES.items():
        same = [each for each in found if each.function == function]
        if sum(each.saved_bytes for each in same) > code:
            kept += same
    return kept
