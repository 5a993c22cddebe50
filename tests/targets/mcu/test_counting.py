"""Counts are exact, to the instruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.errors import CacheError, ToolFailedError
from edgesmith.targets.mcu import emulator
from edgesmith.targets.mcu.counting import (
    BlockRun,
    InstructionCount,
    Profile,
    Watch,
    build_plugin,
    find_watch,
    read_profile,
    write_watch,
)
from edgesmith.targets.mcu.cycles import TIMINGS, estimate
from edgesmith.targets.mcu.elf import Purpose, Symbol, read_symbols
from edgesmith.targets.mcu.emulator import Firmware, run
from edgesmith.targets.mcu.facts import Core
from edgesmith.targets.mcu.histogram import Instruction, disassemble, histogram
from tests.targets.mcu.cores import CORES
from tests.targets.mcu.library import BYTES, OUTPUT, asm_layer, build, c_layer, need

M4 = CORES["cortex-m4"]
CALL_OF_THE_NEXT = 1  # a layer's count ends at the entry of the next one
every_core = pytest.mark.parametrize("core", CORES.values(), ids=lambda core: core.name)

LOOP = asm_layer("movs r0, #100", "1:", "subs r0, #1", "bne 1b")
# As often as the first input says, 1 to 127: loads, twice the loop, return.
DATA_LOOP = asm_layer("ldr r0, =net_scratch", "ldr r0, [r0]", "1:", "subs r0, #1", "bne 1b")


@pytest.fixture(autouse=True)
def _tools() -> None:
    need()


def profile_of(firmware: Firmware, codes: np.ndarray | None = None) -> Profile:
    given_codes = np.ones((3, BYTES), np.int8) if codes is None else codes
    profile = run(firmware, [given_codes], [OUTPUT], count=True).profile
    assert profile is not None
    return profile


@every_core
def test_a_loop_in_assembly_is_counted_exactly(core: Core, tmp_path: Path) -> None:
    firmware = build(tmp_path, core, LOOP)
    profile = profile_of(firmware)
    layer = profile.layers[1]
    assert layer.instructions == InstructionCount(1 + 200 + 1 + CALL_OF_THE_NEXT, 203, 203, 3)
    code = disassemble(firmware.harness, core)
    counted = histogram(layer.blocks, code).by_mnemonic
    assert counted == {"subs": 300, "bne": 300, "movs": 3, "bx": 3, "bl": 3}


@every_core
def test_blocks_run_to_their_end(core: Core, tmp_path: Path) -> None:
    """Counting whole blocks gives what counting one instruction at a time gives."""
    firmware = build(tmp_path, core, LOOP)
    watch = find_watch(read_symbols(firmware.harness, "net"), "net")
    (tmp_path / "inputs.bin").write_bytes(bytes(3 * BYTES))
    write_watch(tmp_path / "watch.txt", watch)
    plugin = f"file={build_plugin(tmp_path)},watch=watch.txt,out=counts.txt"
    emulator._run_qemu(firmware.harness, core, tmp_path, 60, ("-singlestep", "-plugin", plugin))
    stepped = read_profile(tmp_path / "counts.txt", watch)
    assert {len(block.sizes) for block in stepped.blocks()} == {1}
    counted = profile_of(firmware, np.zeros((3, BYTES), np.int8))
    assert stepped.invoke == counted.invoke
    assert [each.instructions for each in stepped.layers] == [
        each.instructions for each in counted.layers
    ]


@every_core
def test_taken_branches_are_counted_exactly(core: Core, tmp_path: Path) -> None:
    firmware = build(tmp_path, core, LOOP)
    code = disassemble(firmware.harness, core)
    taken = {"bne": 0, "bx": 0, "bl": 0}
    for block in profile_of(firmware).layers[1].blocks:
        *_, last = block.addresses()
        taken[code[last].mnemonic] += block.taken
    assert taken == {"bne": 3 * 99, "bx": 3, "bl": 3}


PAGE = 1024  # of QEMU on these cores; blocks end where pages do


@pytest.mark.parametrize("before_the_end", range(2, 13, 2))
@pytest.mark.parametrize("body", [("nop", "nop"), ("ldr.w r2, [r1]", "nop"), ("nop", "nop.w")])
def test_loops_across_pages_are_counted_exactly(
    body: tuple[str, ...], before_the_end: int, tmp_path: Path
) -> None:
    start = f".space {PAGE - before_the_end}"
    layer = asm_layer(
        "ldr r1, =net_scratch",
        "movs r0, #50",
        "b 1f",
        f".balign {PAGE}",
        start,
        "1:",
        *body,
        "subs r0, #1",
        "bne 1b",
    )
    firmware = build(tmp_path, M4, layer)
    code = disassemble(firmware.harness, M4)
    layer_profile = profile_of(firmware).layers[1]
    assert layer_profile.instructions.mean == 3 + 4 * 50 + 1 + CALL_OF_THE_NEXT
    counted = histogram(layer_profile.blocks, code).by_mnemonic
    assert (counted["subs"], counted["bne"]) == (150, 150)
    taken = [
        each.taken
        for each in layer_profile.blocks
        if code[[*each.addresses()][-1]].mnemonic == "bne"
    ]
    assert sum(taken) == 3 * 49


@every_core
def test_layers_wiring_and_histogram_add_up_to_the_inference(core: Core, tmp_path: Path) -> None:
    firmware = build(tmp_path, core, LOOP)
    profile = profile_of(firmware)
    parts = [*profile.layers, profile.wiring]
    assert sum(each.instructions.mean for each in parts) == profile.invoke.mean
    counted = histogram(profile.blocks(), disassemble(firmware.harness, core))
    for by in (counted.by_mnemonic, counted.by_kind, counted.by_function):
        assert sum(by.values()) == profile.invoke.mean * profile.samples
    assert set(counted.by_function) == {
        *(f"net_layer_00{index}" for index in range(3)),
        "net_layers_end",
        "net_invoke",
    }


@pytest.fixture(scope="module")
def data_dependent(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    need()
    body = """
    uint32_t turns = (uint8_t)net_arena[0];
    __asm__ volatile(".syntax unified\\n1: subs %0, #1\\nbne 1b" : "+l"(turns) : : "cc");
    """
    return build(tmp_path_factory.mktemp("data"), M4, c_layer(body))


@settings(max_examples=15)
@given(st.lists(st.integers(1, 127), min_size=1, max_size=9))
def test_counts_that_depend_on_data_have_a_range(
    data_dependent: Firmware, turns: list[int]
) -> None:
    codes = np.zeros((len(turns), BYTES), np.int8)
    codes[:, 0] = turns
    profile = profile_of(data_dependent, codes)
    once = profile_of(data_dependent, np.ones((1, BYTES), np.int8)).layers[1].instructions.low - 2
    expected = [once + 2 * turn for turn in turns]
    assert profile.layers[1].instructions == InstructionCount.of(expected)
    assert profile.layers[0].instructions.constant
    assert profile.invoke.high - profile.invoke.low == 2 * (max(turns) - min(turns))


def test_multiply_accumulates_are_all_found(tmp_path: Path) -> None:
    body = """
    uint32_t sum = 0;
    for (int i = 0; i < 512; ++i) {
        __asm__ volatile("smlad %0, %1, %1, %0" : "+r"(sum) : "r"(i));
    }
    """
    firmware = build(tmp_path, M4, c_layer(body))
    profile = profile_of(firmware)
    code = disassemble(firmware.harness, M4)
    assert histogram(profile.layers[1].blocks, code).by_mnemonic["smlad"] == 3 * 512


def test_what_an_it_block_skips_counts_as_executed(tmp_path: Path) -> None:
    layer = asm_layer(
        "movs r0, #0", "cmp r0, #0", "itte ne", "addne r0, #1", "addne r0, #1", "moveq r1, #1"
    )
    firmware = build(tmp_path, M4, layer)
    profile = profile_of(firmware)
    assert profile.layers[1].instructions.low == 7 + CALL_OF_THE_NEXT
    code = disassemble(firmware.harness, M4)
    skipped = [each for each in code.values() if each.function == "net_layer_001"][3:6]
    assert [(each.mnemonic, each.conditional) for each in skipped] == [
        ("add", True),
        ("add", True),
        ("mov", True),
    ]


def test_low_overhead_loops_are_counted(tmp_path: Path) -> None:
    core = CORES["cortex-m55"]
    layer = asm_layer(
        "push {lr}", "movs r0, #10", "dls lr, r0", "1:", "nop", "le lr, 1b", "pop {lr}"
    )
    firmware = build(tmp_path, core, layer)
    code = disassemble(firmware.harness, core)
    counted = histogram(profile_of(firmware).layers[1].blocks, code).by_mnemonic
    assert (counted["nop"], counted["le"], counted["dls"]) == (30, 30, 3)


def test_estimated_cycles_of_the_loop_are_those_of_the_manual(tmp_path: Path) -> None:
    firmware = build(tmp_path, M4, LOOP)
    cycles = estimate(profile_of(firmware), disassemble(firmware.harness, M4), TIMINGS[M4.name])
    # movs 1, 100 subs, 100 bne of which 99 taken, bx 1+P, bl 1+P
    nominal = 1 + 100 + 100 + 99 * 1 + (1 + 2) + (1 + 1)
    assert cycles.layers["net_layer_001"].nominal == pytest.approx(nominal)
    assert cycles.total.low < cycles.total.nominal < cycles.total.high
    assert sum(cycles.by_mnemonic.values()) == pytest.approx(cycles.total.nominal)


def test_the_plugin_is_compiled_once(tmp_path: Path) -> None:
    first = build_plugin(tmp_path)
    state = first.stat()
    assert build_plugin(tmp_path) == first
    assert first.stat() == state
    assert list(tmp_path.iterdir()) == [first]


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot be kept in"):
        build_plugin(tmp_path / "file" / "cache")


def test_an_image_without_the_harness_cannot_be_counted(tmp_path: Path) -> None:
    firmware = build(tmp_path, M4)
    with pytest.raises(ToolFailedError, match="no function 'harness_return'"):
        find_watch(read_symbols(firmware.bare, "net"), "net")


def symbol(name: str, address: int) -> Symbol:
    return Symbol(name, ".text", address, 4, True, Purpose.WIRING)


INVOKE, LAYER, END, BACK = (
    symbol(name, address) for name, address in (("i", 0x30), ("l", 0x10), ("e", 0x20), ("r", 0x40))
)
WATCH = Watch(INVOKE, (LAYER,), END, BACK)
# Segments by ascending address: 1 the layer, 2 the end, 3 invoke, 4 the return.
HITS = "hit 3 100\nhit 1 105\nhit 2 145\nhit 4 150\n"
BLOCKS = "block 10 24\ncount 1 20 19\ncount 3 1 1\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "counts.txt"
    path.write_text(text)
    return path


def test_what_the_plugin_writes_is_read(tmp_path: Path) -> None:
    profile = read_profile(written(tmp_path, HITS + BLOCKS + "total 160\n"), WATCH)
    assert profile.invoke == InstructionCount(50, 50, 50, 1)
    assert profile.layers[0].instructions.mean == 40
    assert profile.wiring.instructions.mean == 10
    (block,) = profile.layers[0].blocks
    assert (list(block.addresses()), block.executed, block.taken) == ([0x10, 0x12], 20, 19)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HITS + BLOCKS, "incomplete"),
        ("total 5\n", "once and in order"),
        (HITS + "hit 3 170\ntotal 180\n", "once and in order"),
        (HITS.replace("hit 1", "hit 2", 1) + "total 180\n", "once and in order"),
        ("gap 20\n" + HITS + "total 160\n", "no instruction at 20"),
        ("inside 20\n" + HITS + "total 160\n", "the watched address 20"),
    ],
)
def test_counts_that_make_no_sense_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ToolFailedError, match=message):
        read_profile(written(tmp_path, text), WATCH)


def test_merged_layers_are_refused(tmp_path: Path) -> None:
    watch = Watch(INVOKE, (LAYER, LAYER), END, BACK)
    with pytest.raises(ToolFailedError, match="merged into one"):
        write_watch(tmp_path / "watch.txt", watch)


def test_code_of_another_image_is_refused() -> None:
    code = {0: Instruction(0, "nop", "", "f")}
    with pytest.raises(ToolFailedError, match="code ran at 0x2"):
        histogram([BlockRun(0, (2, 2), 1, 0)], code)
    with pytest.raises(ToolFailedError, match="a jump was counted at 0x0, which is no branch"):
        histogram([BlockRun(0, (2,), 1, 1)], code)
