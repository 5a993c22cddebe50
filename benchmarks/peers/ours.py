"""This generator, measured as its peers are: compiled, linked, run and counted in QEMU."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.target_facts import get_target
from edgesmith.targets.c.exchange import TensorType
from edgesmith.targets.c.program import Role
from edgesmith.targets.graph.ir import Graph, Tensor
from edgesmith.targets.graph.legalizer import WEIGHTED, legalize
from edgesmith.targets.mcu.cycles import TIMINGS, Cycles, estimate
from edgesmith.targets.mcu.elf import flash_map
from edgesmith.targets.mcu.emulator import Firmware, run
from edgesmith.targets.mcu.histogram import disassemble
from edgesmith.targets.mcu.target import MicrocontrollerTarget
from peers.tflite import Array

MULTIPLIER_AND_SHIFT = 8
"""Bytes that TFLite Micro spends on requantizing one output channel: two int32."""


@dataclass(frozen=True, eq=False)
class Build:
    """One model, built for one target and run.

    Args:
        outputs: of the graph's first output, [samples, *shape].
        instructions: per inference, at most; `layers` the mean of those inside layers.
        cycles: estimated, per inference.
        weight_bytes: weights in flash as this target packs them, padding included.
        overhead_bytes: flash beyond the model's own parameters (`parameter_bytes`).
        ram_bytes: arena with input and output, and variables; `stack_bytes` besides.
    """

    outputs: Array
    instructions: int
    layers: float
    cycles: Cycles
    macs: int
    arena_bytes: int
    weight_bytes: int
    flash_bytes: int
    overhead_bytes: int
    ram_bytes: int
    stack_bytes: int

    @property
    def cycles_per_mac(self) -> Cycles:
        """Estimated."""
        return self.cycles.times(1 / self.macs)


def parameter_bytes(graph: Graph) -> int:
    """Flash that the parameters of a graph's weighted operators need, each stored plainly once.

    Weights in their own width (int8: one byte), biases in theirs (int32: four), and per
    scale of the weights a multiplier and a shift as TFLite Micro has them: per output channel,
    or once where the weights are quantized per tensor. Padding and repeats are no parameters.
    """
    constants: dict[str, Tensor] = {}
    total = 0
    for op in graph.ops:
        if isinstance(op, WEIGHTED):
            held = [tensor for tensor in graph.operands(op)[1:] if tensor and tensor.is_constant]
            constants |= {tensor.name: tensor for tensor in held}
            total += MULTIPLIER_AND_SHIFT * graph[op.inputs[1]].q.scale.size
    return total + sum(tensor.bytes for tensor in constants.values())


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder, which stays when what is done there fails: errors name logs in it."""
    folder = Path(tempfile.mkdtemp(prefix="edgesmith-bench-"))
    yield folder
    shutil.rmtree(folder)


def output_type(graph: Graph) -> TensorType:
    """Of the first output."""
    tensor = graph[graph.outputs[0]]
    return TensorType(tensor.dtype.numpy, tensor.shape)


def microcontroller(name: str) -> MicrocontrollerTarget:
    """A target that is emulated."""
    target = get_target(name)
    assert isinstance(target, MicrocontrollerTarget)
    return target


def measure(graph: Graph, name: str, inputs: Sequence[Array]) -> Build:
    """Build a graph for the target `name`, check that the image holds it, run and count it."""
    target = microcontroller(name)
    legal = legalize(graph, target.describe())
    with workplace() as folder:
        products = execute_plan(target.build(legal), folder)
        target.shipped(products)
        compiled = target.compiled(products)
        firmware = Firmware.in_folder(folder, target.core)
        emulated = run(firmware, inputs, [output_type(legal)], count=True)
        image = flash_map(firmware.bare)
        code = disassemble(firmware.harness, target.core)
    assert emulated.profile is not None
    arrays = compiled.library.arrays.values()
    return Build(
        outputs=emulated.outputs[0],
        instructions=emulated.profile.invoke.high,
        layers=sum(layer.instructions.mean for layer in emulated.profile.layers),
        cycles=estimate(emulated.profile, code, TIMINGS[target.core.name]).total,
        macs=sum(call.macs for call in compiled.program.calls),
        arena_bytes=compiled.memory.arena_bytes,
        weight_bytes=sum(each.data.nbytes for each in arrays if each.role is Role.WEIGHTS),
        flash_bytes=image.flash_bytes,
        overhead_bytes=image.flash_bytes - parameter_bytes(graph),
        ram_bytes=image.ram_bytes,
        stack_bytes=emulated.stack_bytes,
    )
