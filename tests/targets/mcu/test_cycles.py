"""Timing models against the tables that they state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.targets.mcu.counting import BlockRun, InstructionCount, LayerProfile, Profile
from edgesmith.targets.mcu.cycles import TIMINGS, ZERO, Cycles, Timing, estimate, exactly
from edgesmith.targets.mcu.histogram import Instruction


def timings(core: str, *lines: str) -> list[Timing]:
    """Of a block given as text."""
    block = []
    for index, line in enumerate(lines):
        mnemonic, _, operands = line.partition(" ")
        block.append(Instruction(4 * index, mnemonic, operands, "f"))
    return TIMINGS[core].block(block)


def nominal(core: str, *lines: str) -> list[float]:
    return [each.issue.nominal for each in timings(core, *lines)]


@pytest.mark.parametrize(
    ("line", "cycles"),
    [
        ("adds r0, r1, r2", 1),
        ("smlad r0, r1, r2, r3", 1),
        ("smull r0, r1, r2, r3", 1),
        ("ldr r0, [r1]", 2),
        ("str r0, [r1, #4]", 1),
        ("ldrd r0, r1, [r2]", 3),
        ("ldmia r0!, {r1, r2, r3, r4}", 5),
        ("push {r4, r5, lr}", 4),
        ("pop {r4, r5}", 3),
        ("tbb [pc, r0]", 2),
        ("nop", 1),
    ],
)
def test_cortex_m4_alone(line: str, cycles: float) -> None:
    assert nominal("cortex-m4", line) == [cycles]


def test_cortex_m4_overlaps_neighbouring_loads() -> None:
    assert nominal("cortex-m4", "ldr r0, [r4]", "ldr r1, [r5]", "ldr r2, [r6]") == [2, 1, 1]
    assert nominal("cortex-m4", "str r0, [r4]", "ldr r1, [r5]") == [1, 1]


def test_cortex_m4_waits_for_a_loaded_address() -> None:
    assert nominal("cortex-m4", "ldr r0, [r4]", "ldr r1, [r0]") == [2, 2]


def test_cortex_m4_divides_and_jumps_within_a_range() -> None:
    (division,) = timings("cortex-m4", "sdiv r0, r1, r2")
    assert (division.issue.low, division.issue.high) == (2, 12)
    (branch,) = timings("cortex-m4", "bne 100")
    assert (branch.issue, branch.jump) == (exactly(1), Cycles(1, 1, 3))
    (back,) = timings("cortex-m4", "pop {r4, pc}")
    assert (back.issue, back.jump) == (exactly(3), Cycles(1, 2, 3))


@pytest.mark.parametrize(
    ("line", "issue", "jump"),
    [
        ("muls r0, r1", 1, 0),
        ("ldr r0, [r1]", 2, 0),
        ("strb r0, [r1]", 2, 0),
        ("ldmia r0!, {r1, r2}", 3, 0),
        ("pop {r4, pc}", 3, 2),
        ("bne 100", 1, 1),
        ("bl 100", 1, 2),
        ("bx lr", 1, 1),
        ("mrs r0, ipsr", 3, 0),
    ],
)
def test_cortex_m0plus(line: str, issue: float, jump: float) -> None:
    assert timings("cortex-m0plus", line) == [Timing(exactly(issue), exactly(jump))]


def test_cortex_m55_overlaps_vector_units() -> None:
    lines = ("vldrb.u8 q0, [r0]", "vmladava.s8 r2, q0, q1", "vadd.i8 q0, q1, q2")
    assert nominal("cortex-m55", *lines) == [2, 1, 2]
    assert nominal("cortex-m55", "vldrb.u8 q0, [r0, q1]") == [4]


def test_cortex_m7_pairs_what_is_independent() -> None:
    assert nominal("cortex-m7", "adds r0, r1, r2", "adds r3, r4, r5", "nop") == [1, 0, 1]
    assert nominal("cortex-m7", "adds r0, r1, r2", "adds r3, r0, r5") == [1, 1]
    assert nominal("cortex-m7", "smlad r0, r1, r2, r0", "smlad r3, r4, r5, r3") == [1, 1]
    assert nominal("cortex-m7", "ldr r0, [r4]", "ldr r1, [r5]") == [1, 0]
    assert nominal("cortex-m7", "str r0, [r4]", "ldr r1, [r5]") == [1, 1]


LINES = st.sampled_from(
    [
        *("adds r0, r1, r2", "smlad r0, r1, r2, r3", "ldr r0, [r1]", "ldrsb r1, [r2, r3]"),
        *("str r0, [r1, r2]", "pop {r4, pc}", "push {r4, lr}", "sdiv r0, r1, r2", "bne 100"),
        *("bl 100", "tbb [pc, r0]", "itte ne", "vldrb.u8 q0, [r0]", "vadd.i8 q0, q1, q2"),
        *("le lr, 100", "vldr d0, [r0]", "ldr pc, [r0]", "stmia r0!, {r1-r4}", "dsb sy"),
    ]
)


@pytest.mark.parametrize("core", TIMINGS)
@given(lines=st.lists(LINES, min_size=1, max_size=12))
def test_ranges_are_ranges_in_every_block(core: str, lines: list[str]) -> None:
    found = timings(core, *lines)
    assert len(found) == len(lines)
    for each in found:
        for cycles in (each.issue, each.jump):
            assert 0 <= cycles.low <= cycles.nominal <= cycles.high


STRAIGHT = st.sampled_from(
    ["adds r0, r1, r2", "smlad r0, r1, r2, r3", "ldr r0, [r1]", "ldr r2, [r0]", "str r0, [r1]"]
)


@pytest.mark.parametrize("core", TIMINGS)
@given(
    lines=st.lists(STRAIGHT, min_size=2, max_size=10),
    cuts=st.sets(st.integers(1, 9), max_size=3),
    entered=st.integers(0, 5),
)
def test_where_the_emulator_cuts_a_block_changes_nothing(
    core: str, lines: list[str], cuts: set[int], entered: int
) -> None:
    """A page of code ends in the middle of straight code; some runs may enter behind the cut."""
    code = {}
    for index, line in enumerate([*lines, "bne 100"]):
        mnemonic, _, operands = line.partition(" ")
        code[4 * index] = Instruction(4 * index, mnemonic, operands, "f")
    starts = sorted({0, *(cut for cut in cuts if cut < len(code))})
    ends = [*starts[1:], len(code)]
    pieces = [
        BlockRun(4 * start, (4,) * (end - start), 7 + entered * bool(start), 3 * (end == len(code)))
        for start, end in zip(starts, ends, strict=True)
    ]
    if entered and len(pieces) > 2:
        return  # entering behind the first cut runs through every later one
    whole = [BlockRun(0, (4,) * len(code), 7, 3)]
    if entered and len(pieces) > 1:
        tail = pieces[1]
        whole.append(BlockRun(tail.address, tail.sizes, entered, 0))

    def total(*blocks: BlockRun) -> Cycles:
        count = InstructionCount(0, 0, 0, 1)
        layer = LayerProfile("layer", count, blocks)
        profile = Profile(1, count, (layer,), LayerProfile("wiring", count, ()))
        return estimate(profile, code, TIMINGS[core]).total

    expected = ZERO
    for block in whole:
        expected += total(block)
    found = total(*pieces)
    assert found.nominal == pytest.approx(expected.nominal)
    assert found.low == pytest.approx(expected.low)
    assert found.high == pytest.approx(expected.high)
