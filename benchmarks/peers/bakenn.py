"""BakeNN with its CMSIS-NN kernels, linked into the same images and counted the same way.

What it gets: target `cortex-m4`, weight packing, CMSIS-NN wherever its own conditions
allow it (`STATIC_PRIORITY`), the C library's `memcpy` rather than its freestanding one
(which moves single bytes), and of the optimization `LEVELS` the one that executes fewest
instructions. Its network ends before a last softmax, which its reader of TFLite refuses.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesmith.pipeline.execution import execute_plan
from edgesmith.targets.c.exchange import TensorType
from edgesmith.targets.mcu.elf import flash_map
from edgesmith.targets.mcu.emulator import Firmware, run
from edgesmith.targets.mcu.facts import Core
from edgesmith.targets.mcu.toolchain import FirmwareOptions, firmware_plan
from peers.ours import workplace
from peers.tflite import Array, without_softmax

LEVELS = (2, 3)

_WIRING = """\
#include "{symbol}.h"
#include "model.h"

static _Alignas({macro}_ARENA_ALIGNMENT) uint8_t arena[{macro}_ARENA_SIZE];
static _Alignas(4) int8_t input[{macro}_INPUT_BYTES];
static _Alignas(4) int8_t output[{macro}_OUTPUT_BYTES];

void *model_input(int index) {{ (void)index; return input; }}
void *model_output(int index) {{ (void)index; return output; }}
size_t model_input_bytes(int index) {{ (void)index; return sizeof input; }}
size_t model_output_bytes(int index) {{ (void)index; return sizeof output; }}

int model_invoke(const void *const inputs[], void *const outputs[])
{{
    {symbol}_infer(arena, inputs[0], outputs[0]);
    return 0;
}}
"""

_HEADER = """\
#ifndef MODEL_H
#define MODEL_H
#include <stddef.h>
#define MODEL_NUM_INPUTS 1
#define MODEL_NUM_OUTPUTS 1
int model_invoke(const void *const inputs[], void *const outputs[]);
void *model_input(int index);
void *model_output(int index);
size_t model_input_bytes(int index);
size_t model_output_bytes(int index);
#endif
"""


@dataclass(frozen=True, eq=False)
class BakeNN:
    """One network, built and run.

    Args:
        level: of optimization, of the build that executes fewest instructions.
        instructions: per inference, at most.
        ram_bytes: arena, input and output buffers and variables; `stack_bytes` besides.
        outputs: codes before the softmax, [samples, *shape].
        vendor_layers, layers: how many layers run a CMSIS-NN kernel, and how many there are.
    """

    level: int
    instructions: int
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    outputs: Array
    vendor_layers: int
    layers: int


def bakenn_library(model: bytes, name: str) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The C that BakeNN generates, flat, with an adapter to `model_invoke`; kernel of each layer.

    Args:
        model: an official TFLite file.
    """
    bakenn: Any = importlib.import_module("bakenn")  # optional, so no import for mypy to follow
    options = bakenn.CBackendOptions(
        kernel_policy=bakenn.KernelPolicy.STATIC_PRIORITY,
        enable_cmsis_nn=True,
        target=bakenn.CORTEX_M4,
    )
    with tempfile.TemporaryDirectory() as folder:
        compiled = bakenn.compile_tflite(
            without_softmax(model), folder, name=name, backend_options=options
        )
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).rglob("*.[ch]"))}
        kernels = _kernels(bakenn.load_manifest(compiled.artifacts.manifest))
    symbol = f"bknn_{name}"
    wiring = _WIRING.format(symbol=symbol, macro=symbol.upper())
    return {**files, "model.h": _HEADER.encode(), "model.c": wiring.encode()}, kernels


def _kernels(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The implementation that each layer got."""
    return tuple(str(each["implementation"]) for each in manifest["backend"]["selections"])


def run_bakenn(model: bytes, name: str, core: Core, codes: Array, output: TensorType) -> BakeNN:
    """Build BakeNN's C for a core, at each of `LEVELS`, and count samples in QEMU.

    Args:
        model: an official TFLite file.
        codes: of the only input, [samples, *shape].
        output: the type of the only output, before the softmax.
    """
    files, kernels = bakenn_library(model, name)
    found = [_build(files, kernels, core, codes, output, level) for level in LEVELS]
    return min(found, key=lambda each: each.instructions)


def _build(
    files: Mapping[str, bytes],
    kernels: tuple[str, ...],
    core: Core,
    codes: Array,
    output: TensorType,
    level: int,
) -> BakeNN:
    options = FirmwareOptions(optimization=(f"-O{level}",), trace=False)
    with workplace() as folder:
        execute_plan(firmware_plan(files, core, options), folder)
        firmware = Firmware.in_folder(folder, core)
        emulated = run(firmware, [codes], [output], count=True)
        image = flash_map(firmware.bare)
    assert emulated.profile is not None
    return BakeNN(
        level=level,
        instructions=emulated.profile.invoke.high,
        flash_bytes=image.flash_bytes,
        ram_bytes=image.ram_bytes,
        stack_bytes=emulated.stack_bytes,
        outputs=emulated.outputs[0],
        vendor_layers=sum(kernel.startswith("cmsis_nn.") for kernel in kernels),
        layers=len(kernels),
    )
