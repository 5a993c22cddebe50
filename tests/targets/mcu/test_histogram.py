"""Reading disassembly: mnemonics, conditions, kinds, register lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.targets.mcu.histogram import Instruction, Kind, disassemble, parse_disassembly
from edgesmith.targets.mcu.toolchain import OBJDUMP
from tests.targets.mcu.cores import CORES
from tests.targets.mcu.library import need

TEXT = """
x.elf:     file format elf32-littlearm

Disassembly of section .text:

00000100 <first>:
 100:\tpush\t{r4, r5, r6, lr}
 102:\tldr.w\tr3, [r0, #4]!
 106:\titte\tne
 108:\taddne.w\tr0, r0, #1
 10c:\tldrbne\tr1, [r2, #0]
 10e:\tmoveq\tr0, #0
 110:\tbics\tr0, r1
 112:\tbne.n\t100 <first>
 114:\tldr\tr4, [pc, #8]\t@ (120 <first+0x20>)
 116:\tvadd.i32\tq0, q1, q2
 11a:\tpop\t{r4, pc}
 11c:\t.word\t0x20000000

00000130 <second>:
     130:\tbx\tlr
"""


def test_disassembly_is_read() -> None:
    code = parse_disassembly(TEXT)
    assert [each.mnemonic for each in code.values()] == [
        *("push", "ldr", "itte", "add", "ldrb", "mov", "bics", "bne", "ldr", "vadd.i32", "pop"),
        "bx",
    ]
    assert [hex(each.address) for each in code.values() if each.conditional] == [
        "0x108",
        "0x10c",
        "0x10e",
    ]
    assert code[0x11A].function == "first"
    assert code[0x130].function == "second"
    assert code[0x114].operands == "r4, [pc, #8]"
    assert code[0x114].addresses == {"pc"}


def one(text: str) -> Instruction:
    mnemonic, _, operands = text.partition(" ")
    return Instruction(0, mnemonic, operands, "f")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("adds r0, r1, r2", Kind.ALU),
        ("sxtb16 r0, r1, ror #8", Kind.ALU),
        ("ssat r0, #8, r1", Kind.ALU),
        ("mov pc, lr", Kind.INDIRECT),
        ("mls r0, r1, r2, r3", Kind.MULTIPLY),
        ("smlad r0, r1, r2, r3", Kind.MULTIPLY),
        ("smmulr r0, r1, r2", Kind.MULTIPLY),
        ("umull r0, r1, r2, r3", Kind.MULTIPLY),
        ("sdiv r0, r1, r2", Kind.DIVIDE),
        ("ldrsb r0, [r1, r2]", Kind.LOAD),
        ("ldr pc, [r1, #4]", Kind.INDIRECT),
        ("ldrd r0, r1, [r2]", Kind.LOAD_MULTIPLE),
        ("ldmia r0!, {r1, r2}", Kind.LOAD_MULTIPLE),
        ("strh r0, [r1, #2]", Kind.STORE),
        ("strd r0, r1, [sp]", Kind.STORE_MULTIPLE),
        ("bls 100", Kind.BRANCH),
        ("b 100", Kind.BRANCH),
        ("cbz r0, 100", Kind.BRANCH),
        ("bl 100", Kind.CALL),
        ("bx lr", Kind.INDIRECT),
        ("blx r3", Kind.INDIRECT),
        ("tbb [pc, r0]", Kind.TABLE_BRANCH),
        ("bfi r0, r1, #8, #8", Kind.ALU),
        ("bic r0, r1", Kind.ALU),
        ("le lr, 100", Kind.LOOP),
        ("itte ne", Kind.PREDICATE),
        ("vpst ", Kind.PREDICATE),
        ("vctp.8 r0", Kind.PREDICATE),
        ("vmladava.s8 r0, q0, q1", Kind.VECTOR),
        ("vpsel q0, q1, q2", Kind.VECTOR),
        ("vldrb.u8 q0, [r0], #16", Kind.VECTOR_LOAD),
        ("vstrw.32 q0, [r0]", Kind.VECTOR_STORE),
        ("vldr s0, [r0]", Kind.FLOAT),
        ("vpush {d8, d9}", Kind.STORE_MULTIPLE),
        ("dsb sy", Kind.SYSTEM),
    ],
)
def test_instructions_are_told_apart(text: str, kind: Kind) -> None:
    assert one(text).kind is kind


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("push {r4, r5, r6, lr}", 4),
        ("ldmia r0!, {r1, r2}", 2),
        ("ldrd r0, r1, [r2]", 2),
        ("vpush {d8-d15}", 8),
        ("pop {r4, pc}", 2),
        ("stmdb sp!, {r4-r8, sl, fp, lr}", 8),
    ],
)
def test_registers_of_a_list_are_counted(text: str, count: int) -> None:
    assert one(text).listed == count


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    need(OBJDUMP)
    (tmp_path / "x.elf").write_text("no image")
    with pytest.raises(ToolFailedError, match="arm-none-eabi-objdump failed"):
        disassemble(tmp_path / "x.elf", CORES["cortex-m4"])


def test_a_pop_of_the_program_counter_jumps() -> None:
    assert one("pop {r4, pc}").writes_pc
    assert not one("pop {r4, r5}").writes_pc
