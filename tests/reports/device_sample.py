"""A device for the tests of the report. Every figure is invented, but they fit together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from edgesmith.pipeline.results import ArenaSlot, Device, DeviceLayer, FlashPart, LayerRow
from edgesmith.pipeline.values import Kind, Measurement
from edgesmith.reports.arena import live_bytes

TARGET = "cortex-m4@nucleo-f446re"
COSTS = {  # kernel, instructions per MAC, instructions per output
    "Conv2D": ("es_conv2d_dsp", 1.24, 9.0),
    "DepthwiseConv2D": ("es_depthwise_conv2d_dsp", 2.9, 11.0),
    "FullyConnected": ("es_fully_connected_dsp", 1.6, 14.0),
    "Add": ("es_add_s8", 0.0, 17.0),
    "AveragePool2D": ("es_average_pool2d_s8", 0.0, 6.5),
}
MNEMONICS = (
    *("smlad", "ldr", "sxtb16", "ldrsb", "adds", "subs", "bne", "ldrd", "smmulr", "ssat"),
    *("strb", "mla", "cmp", "add", "sxtab16", "str", "lsls", "bx", "push", "pop", "mov"),
)


def found(metric: str, value: float, unit: str, kind: Kind, samples: int = 1) -> Measurement:
    """A figure of the device."""
    return Measurement(metric, float(value), unit, kind, TARGET, samples)


def sample_device(rows: Sequence[LayerRow], hostile: Sequence[str] = ()) -> Device:
    """A device that runs these operators; `hostile` texts go wherever a text may come from."""
    layers = tuple(_layer(row) for row in rows)
    slots = _slots(rows)
    arena = max((slot.offset + slot.bytes for slot in slots), default=0)
    bound = max(live_bytes(slots, len(layers))) if slots else 0
    instructions = 1_804.0 + sum(layer.instructions for layer in layers)
    cycles = 2_210.0 + sum(layer.cycles or 0.0 for layer in layers)
    parts = _flash(rows, layers, hostile)
    flash = sum(part.bytes for part in parts)
    macs = max(1, sum(layer.macs for layer in layers))
    stack, other = 472, 64
    return Device(
        core="Arm Cortex-M4" if not hostile else hostile[0],
        board="NUCLEO-F446RE" if not hostile else hostile[1],
        clock_hz=180_000_000,
        emulator="QEMU 7.2, mps2-an386, instruction counting" if not hostile else hostile[2],
        timing="Cortex-M4 Technical Reference Manual, table 3-1; zero wait states, no cache misses",
        instructions=found("instructions", instructions, "instructions", Kind.SIMULATED, 8),
        cycles=found("cycles", cycles, "cycles", Kind.ESTIMATED, 8),
        time=found("time", cycles / 180_000, "ms", Kind.ESTIMATED, 8),
        cycles_per_mac=found("cycles per MAC", cycles / macs, "cycles/MAC", Kind.ESTIMATED, 8),
        flash=found("flash", flash, "bytes", Kind.MEASURED),
        flash_limit=524_288,
        ram=found("RAM", arena + stack + other, "bytes", Kind.SIMULATED, 8),
        ram_limit=131_072,
        stack=found("stack", stack, "bytes", Kind.SIMULATED, 8),
        arena=found("arena", arena, "bytes", Kind.MEASURED),
        arena_bound=bound,
        arena_optimal=arena == bound,
        plan="speed",
        layers=layers,
        slots=slots,
        flash_parts=parts,
        flash_sections={".vectors": 64, ".text": flash - 64 - 96, ".data": 96},
        ram_sections={".data": 48, ".bss": arena + 16},
        mnemonics=_mnemonics(instructions, hostile),
        sources=_sources(hostile),
    )


def _layer(row: LayerRow) -> DeviceLayer:
    kernel, per_mac, per_output = COSTS[row.op]
    instructions = 180 + per_mac * row.macs + per_output * math.prod(row.output_shape)
    return DeviceLayer(
        name=row.name,
        op=row.op,
        kernel=kernel,
        macs=row.macs,
        instructions=round(instructions) + 0.5 * (row.index % 2),
        cycles=float(round(1.27 * instructions)),
        scratch_bytes=_scratch(row),
    )


def _scratch(row: LayerRow) -> int:
    return 72 * row.output_shape[-1] if row.op == "Conv2D" else 0


def _slots(rows: Sequence[LayerRow]) -> tuple[ArenaSlot, ...]:
    """Largest first, each at the lowest address that is free; additions take a dying operand's."""
    if not rows:
        return ()
    placed: list[ArenaSlot] = []
    for wanted in sorted(_wanted(rows), key=lambda slot: (-slot.bytes, slot.first)):
        dying = [one for one in placed if one.last == wanted.first and one.bytes == wanted.bytes]
        others = placed
        if wanted.first >= 0 and rows[wanted.first].op == "Add" and dying:
            others = [one for one in placed if one is not dying[0]]
        offset = _fit(others, wanted.bytes, wanted.first, wanted.last)
        placed.append(replace(wanted, offset=offset))
    return tuple(sorted(placed, key=lambda slot: (slot.first, slot.offset)))


def _wanted(rows: Sequence[LayerRow]) -> Iterator[ArenaSlot]:
    """Slots without an address."""
    yield ArenaSlot("input", "input", 0, math.prod(rows[0].output_shape[:3]) * 3, -1, 0)
    for row in rows:
        index, size = row.index, math.prod(row.output_shape)
        if index == len(rows) - 1:
            yield ArenaSlot(row.name, "output", 0, size, index, len(rows))
        else:
            skipped = index + 2 < len(rows) and rows[index + 2].op == "Add"
            yield ArenaSlot(row.name, "activation", 0, size, index, index + (2 if skipped else 1))
        if scratch := _scratch(row):
            yield ArenaSlot(f"{row.name}#scratch", "scratch", 0, scratch, index, index)


def _fit(slots: Sequence[ArenaSlot], size: int, first: int, last: int) -> int:
    alive = [slot for slot in slots if slot.first <= last and first <= slot.last]
    at = 0
    for slot in sorted(alive, key=lambda slot: slot.offset):
        if slot.offset - at >= size:
            return at
        at = max(at, slot.offset + slot.bytes)
    return at


def _flash(
    rows: Sequence[LayerRow], layers: Sequence[DeviceLayer], hostile: Sequence[str]
) -> tuple[FlashPart, ...]:
    weighted = [row for row in rows if row.weight_bits]
    weights = [(f"model_weights_{row.index:03d}", row.weight_bytes) for row in weighted]
    biases = [(f"model_bias_{row.index:03d}", 4 * row.output_shape[-1]) for row in weighted]
    scaling = [
        (f"model_requantization_{row.index:03d}", 8 * row.output_shape[-1]) for row in weighted
    ]
    weights += [(name, 8) for name in hostile]
    used = dict.fromkeys(layer.kernel for layer in layers)
    kernels = [(kernel, 2_644 - 412 * number) for number, kernel in enumerate(used)]
    wiring = [(f"model_layer_{index:03d}", 34) for index in range(len(rows))]
    code = (
        FlashPart("kernels", sum(size for _, size in kernels) + 212, tuple(kernels)),
        FlashPart("wiring", sum(size for _, size in wiring) + 148, tuple(wiring)),
        FlashPart("startup", 388, (("vectors", 64), ("reset_handler", 96), ("main", 52))),
        FlashPart("runtime", 212, (("memcpy", 140), ("memset", 72))),
        FlashPart("unnamed", 38),
    )
    data = (("weights", weights), ("bias", biases), ("requantization", scaling))
    return (
        *(FlashPart(name, sum(size for _, size in of), tuple(of)) for name, of in data if of),
        FlashPart("arguments", 44 * len(rows) + 8),
        *code,
    )


def _mnemonics(instructions: float, hostile: Sequence[str]) -> dict[str, int]:
    names = [*hostile, *MNEMONICS]
    weights = [0.83**index for index in range(len(names))]
    return {
        name: round(instructions * weight / sum(weights))
        for name, weight in zip(names, weights, strict=True)
    }


def _sources(hostile: Sequence[str]) -> dict[str, str]:
    files = {
        "model.h": "the interface: sizes, scales, zero points, model_invoke",
        "model.c": "arena and layers, in execution order",
        "model_data.c": "weights, biases and requantization parameters",
        "es_conv2d_dsp.c": "convolution kernels for cores with DSP instructions",
        "es_common.h": "arithmetic that all kernels share",
        "README.md": "for the firmware engineer",
        "CMakeLists.txt": "optional build file",
    }
    return files | {name: name for name in hostile}
