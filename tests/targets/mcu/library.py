"""A library as the generator writes one, by hand: layers whose instructions can be counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.tools import Tool
from edgesmith.targets.c.exchange import TensorType
from edgesmith.targets.mcu.emulator import Firmware
from edgesmith.targets.mcu.facts import Core
from edgesmith.targets.mcu.toolchain import (
    DEFAULT_OPTIONS,
    GCC,
    HOST_GCC,
    OBJDUMP,
    QEMU,
    FirmwareOptions,
    firmware_plan,
)

BYTES = 16
OUTPUT = TensorType("int8", (BYTES,))

HEADER = """
#ifndef NET_H
#define NET_H
#include <stddef.h>
#define NET_NUM_INPUTS 1
#define NET_NUM_OUTPUTS 1
int net_invoke(const void *const inputs[], void *const outputs[]);
void *net_input(int index);
void *net_output(int index);
size_t net_input_bytes(int index);
size_t net_output_bytes(int index);
#ifdef NET_TRACE
void net_trace(int tensor, const void *data, unsigned long bytes);
#endif
#endif
"""

# Layer 0 doubles the codes into the middle of the arena; layer 1 is the test's own; layer 2
# adds a weight and writes the output.
SOURCE = """
#include <stdint.h>
#include "net.h"
extern const int8_t net_weights_000[16];
static _Alignas(16) int8_t net_arena[64];
volatile uint32_t net_scratch;

void *net_input(int index) { (void)index; return net_arena; }
void *net_output(int index) { (void)index; return net_arena + 32; }
size_t net_input_bytes(int index) { (void)index; return 16; }
size_t net_output_bytes(int index) { (void)index; return 16; }

static __attribute__((noinline)) void net_layer_000(void)
{
    for (int i = 0; i < 16; ++i) {
        net_arena[16 + i] = (int8_t)(net_arena[i] * 2);
    }
#ifdef NET_TRACE
    net_trace(0, net_arena + 16, 16);
#endif
}

@LAYER@

static __attribute__((noinline)) void net_layer_002(void)
{
    for (int i = 0; i < 16; ++i) {
        net_arena[32 + i] = (int8_t)(net_arena[16 + i] + net_weights_000[i]);
    }
#ifdef NET_TRACE
    net_trace(1, net_arena + 32, 16);
#endif
}

static __attribute__((noinline)) void net_layers_end(void)
{
    __asm__ volatile("");
}

int net_invoke(const void *const inputs[], void *const outputs[])
{
    (void)inputs;
    (void)outputs;
    net_layer_000();
    net_layer_001();
    net_layer_002();
    net_layers_end();
    return net_scratch == 0xdeadu;
}
"""

DATA = """
#include <stdint.h>
const int8_t net_weights_000[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
"""

EMPTY_LAYER = 'static __attribute__((noinline)) void net_layer_001(void) { __asm__ volatile(""); }'


def c_layer(body: str) -> str:
    """Layer 1 with a body in C."""
    return f"static __attribute__((noinline)) void net_layer_001(void)\n{{\n{body}\n}}"


def asm_layer(*lines: str) -> str:
    """Layer 1 in assembly; it ends with a return of its own."""
    text = "\\n".join((".syntax unified", *lines, "bx lr", ".ltorg", ""))
    attributes = "__attribute__((naked, noinline))"
    return f'static {attributes} void net_layer_001(void)\n{{\n    __asm__ volatile("{text}");\n}}'


def files(layer: str = EMPTY_LAYER) -> dict[str, bytes]:
    """The library with that layer 1."""
    texts = {"net.h": HEADER, "net.c": SOURCE.replace("@LAYER@", layer), "net_data.c": DATA}
    return {name: text.encode() for name, text in texts.items()}


def options(trace: bool = False, stack_bytes: int = DEFAULT_OPTIONS.stack_bytes) -> FirmwareOptions:
    """For this library."""
    return FirmwareOptions(prefix="net", stack_bytes=stack_bytes, trace=trace)


def build(
    folder: Path, core: Core, layer: str = EMPTY_LAYER, how: FirmwareOptions | None = None
) -> Firmware:
    """The library's images, built below a folder."""
    place, chosen = folder / "build", how or options()
    place.mkdir()
    execute_plan(firmware_plan(files(layer), core, chosen), place)
    return Firmware.in_folder(place, core, chosen.prefix)


def need(*tools: Tool) -> None:
    """Skip, saying what to install, where a tool is missing."""
    missing = [tool.install for tool in tools or (GCC, OBJDUMP, QEMU, HOST_GCC) if not tool.find()]
    if missing:
        pytest.skip("; ".join(missing))
