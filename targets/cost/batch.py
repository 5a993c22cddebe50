"""Layers that have nothing to do with each other as one program, so that one run counts them all.

All read the beginning of one input and write over one output, so that memory does not grow
with their number and a layer sees the same bytes whatever it is measured together with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgesmith.targets.c.generator import Library, generate
from edgesmith.targets.c.memory.lifetimes import of_call
from edgesmith.targets.c.program import (
    Array,
    Call,
    KernelSet,
    MemoryPlan,
    Program,
    Storage,
    View,
)
from edgesmith.targets.cost.layers import Layer, Operand
from edgesmith.targets.graph.ir import DType, Graph, Tensor

INPUT, OUTPUT = "x", "y"
MOST_LAYERS = 96
MOST_CONSTANT_BYTES = 2 << 20
MOST_MACS = 100_000_000
LEAST_BYTES = 256
"""Of input and output: copies as large as those of real models, so the C library does them."""
_ALIGNMENT = 16


@dataclass(frozen=True, eq=False)
class Together:
    """A library that runs layers one after the other.

    Args:
        input_bytes, output_bytes: of its one input and its one output.
    """

    layers: tuple[Layer, ...]
    library: Library
    input_bytes: int
    output_bytes: int


def batches(layers: Sequence[Layer]) -> Iterator[tuple[Layer, ...]]:
    """Cut a list of layers where a program would become too large or too slow."""
    batch: list[Layer] = []
    constant_bytes = macs = 0
    for layer in layers:
        full = len(batch) == MOST_LAYERS
        full |= constant_bytes + layer.constant_bytes > MOST_CONSTANT_BYTES
        full |= macs + layer.call.macs > MOST_MACS
        if batch and full:
            yield tuple(batch)
            batch, constant_bytes, macs = [], 0, 0
        batch.append(layer)
        constant_bytes += layer.constant_bytes
        macs += layer.call.macs
    if batch:
        yield tuple(batch)


def together(layers: Sequence[Layer], kernels: KernelSet) -> Together:
    """One program of all these layers."""
    calls: list[Call] = []
    views: dict[str, View] = {}
    constants: dict[str, Array] = {}
    input_bytes = output_bytes = LEAST_BYTES
    for number, layer in enumerate(layers):
        name = f"layer{number}"
        reads, writes = _names(name, "in", layer.reads), _names(name, "out", layer.writes)
        call = replace(layer.call, name=name, reads=reads, writes=writes, overlaps={})
        calls.append(call)
        constants |= {
            own: each
            for own, each in zip(reads, layer.reads, strict=True)
            if isinstance(each, Array)
        }
        input_bytes = max(input_bytes, _lay(INPUT, reads, layer.reads, views))
        output_bytes = max(output_bytes, _lay(OUTPUT, writes, layer.writes, views))
    program = Program(
        calls=tuple(calls),
        storages={
            INPUT: Storage(INPUT, input_bytes, _ALIGNMENT),
            OUTPUT: Storage(OUTPUT, output_bytes, _ALIGNMENT),
        },
        views=views,
        inputs=(INPUT,),
        outputs=(OUTPUT,),
        constants=constants,
    )
    library = generate(_graph(program), program, _plan(program), kernels=kernels.value)
    return Together(tuple(layers), library, input_bytes, output_bytes)


def _names(name: str, what: str, operands: Sequence[object]) -> tuple[str, ...]:
    return tuple(f"{name} {what} {index}" for index in range(len(operands)))


def _lay(
    storage: str,
    names: Sequence[str],
    operands: Sequence[Operand | Array],
    views: dict[str, View],
) -> int:
    """Place operands one behind the other in a storage; returns the bytes used."""
    end = 0
    for name, operand in zip(names, operands, strict=True):
        if isinstance(operand, Operand):
            start = _aligned(end) + operand.misalignment
            end = start + operand.bytes
            views[name] = View(storage, start, operand.bytes)
    return end


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _graph(program: Program) -> Graph:
    """The types that the generator prints: bytes."""
    sizes = {name: storage.bytes for name, storage in program.storages.items()}
    sizes |= {name: view.bytes or 0 for name, view in program.views.items()}
    tensors = {name: Tensor(name, (size,), DType.UINT8) for name, size in sizes.items()}
    return Graph("layers", tensors, (), program.inputs, program.outputs)


def _plan(program: Program) -> MemoryPlan:
    """Input, output, and behind them what whichever layer runs uses alone."""
    output = _aligned(program.storages[INPUT].bytes)
    behind = output + _aligned(program.storages[OUTPUT].bytes)
    offsets, arena = {INPUT: 0, OUTPUT: output}, behind
    for call in program.calls:
        end = behind
        for name, size in of_call(call).items():
            offsets[name] = end
            end += _aligned(size)
        arena = max(arena, end)
    return MemoryPlan(arena, offsets, (), optimal=False, lower_bound=0)
