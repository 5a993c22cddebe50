"""What keeping weights without their zeros saved and cost: counted beside the same network with
every weight stored plainly.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.results import ZerosGain
from edgesmith.pipeline.values import Kind, Measurement
from edgesmith.targets.c.compiler import compile_graph
from edgesmith.targets.c.exchange import as_stored, output_types
from edgesmith.targets.c.zeros import Zeros
from edgesmith.targets.mcu.elf import flash_map
from edgesmith.targets.mcu.emulator import Firmware, run
from edgesmith.targets.mcu.toolchain import BARE_ELF, FirmwareOptions, firmware_plan

if TYPE_CHECKING:
    from edgesmith.targets.base import Codes
    from edgesmith.targets.c.compiler import Compiled
    from edgesmith.targets.graph.ir import Graph
    from edgesmith.targets.mcu.target import MicrocontrollerTarget


def zeros_gain(
    target: MicrocontrollerTarget,
    graph: Graph,
    made: Compiled,
    inputs: Sequence[Codes],
    flash_bytes: int,
    instructions: float,
) -> ZerosGain | None:
    """The gain; None where every weight is stored plainly, or would not fit the emulated flash.

    Args:
        made: what was compiled of the graph.
        inputs: what `instructions` were counted on, [samples, *shape] each.
        flash_bytes, instructions: of the image that was made.

    Raises:
        ToolMissingError, ToolFailedError: as building and running raise them.
    """
    plain = compile_graph(graph, replace(target.compile_options(), zeros=Zeros.STORE))
    layers = sum(
        ours.expanded is not None or ours.function != other.function
        for ours, other in zip(made.program.calls, plain.program.calls, strict=True)
    )
    if not layers or plain.constant_bytes > target.core.machine.flash.bytes:
        return None
    options = FirmwareOptions(prefix=target.options.prefix, trace=False)
    with tempfile.TemporaryDirectory(prefix="edgesmith-zeros-") as name:
        folder = Path(name)
        execute_plan(firmware_plan(plain.library.files, target.core, options), folder)
        firmware = Firmware.in_folder(folder, target.core, options.prefix)
        counted = run(firmware, as_stored(graph, inputs), output_types(graph), count=True)
        flash = flash_map(folder / BARE_ELF, options.prefix).flash_bytes
    assert counted.profile is not None
    spent = instructions - counted.profile.invoke.mean
    arena = made.memory.arena_bytes - plain.memory.arena_bytes

    def figure(metric: str, value: float, unit: str) -> Measurement:
        return Measurement(metric, value, unit, Kind.SIMULATED, target.name, len(inputs[0]))

    return ZerosGain(
        layers,
        flash=figure("flash saved by zeros", flash - flash_bytes, "bytes"),
        instructions=figure("instructions added by zeros", spent, "instructions"),
        share=figure("instructions added by zeros", 100 * spent / (instructions - spent), "%"),
        arena=figure("arena added by zeros", arena, "bytes"),
    )
