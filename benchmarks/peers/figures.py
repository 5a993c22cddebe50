"""The official networks of MLPerf Tiny: goals, and what other engines were found to take.

TFLite Micro's figures were found once on this emulator, Cortex-M4, gcc 12.2, best build (-O2,
CMSIS-NN with its inline-assembly requantization); building it is no part of a benchmark.
RAM is its arena. Cycles per MAC are the lowest that vendors of closed engines published,
measured on boards with a Cortex-M4.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """TFLite Micro with CMSIS-NN; executed instructions per inference, bytes."""

    instructions: int
    flash_bytes: int
    ram_bytes: int


@dataclass(frozen=True)
class Network:
    """One network: the most that ours may take, and what others take.

    Args:
        name: of its file, `NAME_int8.tflite`.
        arena_bytes, small_arena_bytes: activations with input and output, speed-first and
            memory-first.
        overhead_bytes: flash beyond the network's own parameters.
    """

    name: str
    title: str
    instructions: int
    arena_bytes: int
    small_arena_bytes: int
    overhead_bytes: int
    micro: Reference
    published_cycles_per_mac: float


NETWORKS = {
    network.name: network
    for network in (
        Network(
            name="kws",
            title="KWS",
            instructions=5_060_000,
            arena_bytes=16_000,
            small_arena_bytes=9_600,
            overhead_bytes=12_000,
            micro=Reference(7_226_400, 106_668, 22_820),
            published_cycles_per_mac=1.95,
        ),
        Network(
            name="ic",
            title="IC",
            instructions=19_950_000,
            arena_bytes=49_152,
            small_arena_bytes=36_000,
            overhead_bytes=12_000,
            micro=Reference(28_506_080, 148_552, 54_996),
            published_cycles_per_mac=1.58,
        ),
        Network(
            name="vww",
            title="VWW",
            instructions=15_830_000,
            arena_bytes=55_296,
            small_arena_bytes=40_500,
            overhead_bytes=16_000,
            micro=Reference(22_609_040, 386_020, 100_708),
            published_cycles_per_mac=1.42,
        ),
        Network(
            name="ad",
            title="AD",
            instructions=401_000,
            arena_bytes=768,
            small_arena_bytes=768,
            overhead_bytes=4_000,
            micro=Reference(573_200, 304_472, 2_580),
            published_cycles_per_mac=1.84,
        ),
    )
}

MICRO_SHARE = 0.70
"""Of TFLite Micro's instructions, the most that ours may take."""
