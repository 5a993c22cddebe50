"""Executed instructions by mnemonic, by function and by class, from counts and disassembly."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.targets.mcu.counting import BlockRun
from edgesmith.targets.mcu.facts import Core
from edgesmith.targets.mcu.toolchain import OBJDUMP

_TIMEOUT_S = 120.0
_FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>[^>]+)>:$")
_LINE = re.compile(r"^\s*(?P<address>[0-9a-f]+):\t(?P<mnemonic>\S+)\s*(?P<operands>[^@;]*)")
_IT = re.compile(r"^it(?P<more>[te]{0,3})$")
_VECTOR_REGISTER = re.compile(r"\bq[0-7]\b")
_REGISTER = re.compile(r"\b(?:r1[0-5]|r\d|sl|fp|ip|sp|lr|pc|[sdq]\d+)\b")
_RANGE = re.compile(r"\b([rsd])(\d+)-\1(\d+)\b")


class Kind(StrEnum):
    """Instructions that timing models tell apart."""

    ALU = "alu"
    MULTIPLY = "multiply"
    DIVIDE = "divide"
    LOAD = "load"
    STORE = "store"
    LOAD_MULTIPLE = "load multiple"
    STORE_MULTIPLE = "store multiple"
    BRANCH = "branch"  # the target is in the instruction
    CALL = "call"
    INDIRECT = "indirect branch"  # the target is in a register
    TABLE_BRANCH = "table branch"
    LOOP = "loop"  # low-overhead loops of Armv8.1-M
    PREDICATE = "predicate"  # IT, and those of vector instructions
    FLOAT = "float"
    VECTOR_LOAD = "vector load"
    VECTOR_STORE = "vector store"
    VECTOR = "vector"
    SYSTEM = "system"


_EXACT = {
    **dict.fromkeys(("b", "cbz", "cbnz"), Kind.BRANCH),
    "bl": Kind.CALL,
    **dict.fromkeys(("bx", "blx", "bxns", "blxns"), Kind.INDIRECT),
    **dict.fromkeys(("tbb", "tbh"), Kind.TABLE_BRANCH),
    **dict.fromkeys(("wls", "dls", "le", "wlstp", "dlstp", "letp", "lctp"), Kind.LOOP),
    **dict.fromkeys(("push", "stmia", "stm", "stmdb", "strd", "vpush"), Kind.STORE_MULTIPLE),
    **dict.fromkeys(("pop", "ldmia", "ldm", "ldmdb", "ldrd", "vpop"), Kind.LOAD_MULTIPLE),
    **dict.fromkeys(("sdiv", "udiv"), Kind.DIVIDE),
    **dict.fromkeys(("dmb", "dsb", "isb", "mrs", "msr", "cpsid", "cpsie", "svc"), Kind.SYSTEM),
    "bkpt": Kind.SYSTEM,
}
_CONDITIONS = (
    "eq",
    "ne",
    "cs",
    "hs",
    "cc",
    "lo",
    "mi",
    "pl",
    "vs",
    "vc",
    "hi",
    "ls",
    "ge",
    "lt",
    "gt",
    "le",
)
_EXACT |= dict.fromkeys((f"b{condition}" for condition in _CONDITIONS), Kind.BRANCH)
_MULTIPLIES = (
    "mul",
    "mla",
    "mls",
    "smul",
    "smla",
    "smls",
    "smml",
    "smmu",
    "smua",
    "smus",
    "umul",
    "umla",
    "umaal",
)
_VECTOR_PREDICATES = ("vpst", "vpt", "vpnot", "vctp")
_JUMPS = (Kind.BRANCH, Kind.CALL, Kind.INDIRECT, Kind.TABLE_BRANCH, Kind.LOOP)


@dataclass(frozen=True)
class Instruction:
    """One disassembled instruction.

    `mnemonic` is without width (`.w`) and without the condition that an IT block gives it;
    `conditional` says that it had one.
    """

    address: int
    mnemonic: str
    operands: str
    function: str
    conditional: bool = False

    @cached_property
    def kind(self) -> Kind:
        """How timing models see it."""
        name = self.mnemonic
        if name in _EXACT:
            return Kind.INDIRECT if self._loads_pc_alone else _EXACT[name]
        if _IT.match(name):
            return Kind.PREDICATE
        if name.startswith("v"):
            return self._vector_kind()
        if name.startswith("ldr"):
            return Kind.INDIRECT if self._loads_pc_alone else Kind.LOAD
        if name.startswith("str"):
            return Kind.STORE
        if name.startswith(_MULTIPLIES):
            return Kind.MULTIPLY
        return Kind.INDIRECT if self.operands.startswith("pc,") else Kind.ALU

    @property
    def _loads_pc_alone(self) -> bool:
        return self.mnemonic.startswith("ldr") and self.operands.startswith("pc,")

    def _vector_kind(self) -> Kind:
        if self.mnemonic.startswith(_VECTOR_PREDICATES):
            return Kind.PREDICATE
        if not _VECTOR_REGISTER.search(self.operands):
            return Kind.FLOAT
        if self.mnemonic.startswith("vld"):
            return Kind.VECTOR_LOAD
        return Kind.VECTOR_STORE if self.mnemonic.startswith("vst") else Kind.VECTOR

    @cached_property
    def registers(self) -> tuple[str, ...]:
        """Register names in order of their appearance, ranges spelled out."""
        return tuple(_REGISTER.findall(_RANGE.sub(_spell_out, self.operands)))

    @cached_property
    def listed(self) -> int:
        """Registers that a load or store multiple moves."""
        if self.mnemonic in {"ldrd", "strd"}:
            return 2
        inside = self.operands[self.operands.find("{") :]
        return len(_REGISTER.findall(_RANGE.sub(_spell_out, inside)))

    @cached_property
    def addresses(self) -> frozenset[str]:
        """Registers that make a memory address."""
        return frozenset(_REGISTER.findall(self.operands.partition("[")[2]))

    @property
    def jumps(self) -> bool:
        """Whether the next instruction may lie elsewhere."""
        return self.kind in _JUMPS or self.writes_pc

    @property
    def writes_pc(self) -> bool:
        """Whether a load multiple ends in a jump."""
        return self.kind is Kind.LOAD_MULTIPLE and "pc" in self.registers


def _spell_out(match: re.Match[str]) -> str:
    letter, first, last = match[1], int(match[2]), int(match[3])
    return ", ".join(f"{letter}{number}" for number in range(first, last + 1))


def disassemble(elf: Path, core: Core) -> dict[int, Instruction]:
    """Every instruction of an image's code, by address.

    Raises:
        ToolMissingError: objdump is not installed.
        ToolFailedError: it failed.
    """
    OBJDUMP.require()
    command = [OBJDUMP.name, "-d", "--no-show-raw-insn", *core.disassembly, str(elf)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolFailedError(
            f"{OBJDUMP.name} did not finish within {_TIMEOUT_S:.0f} s", fix=f"check {elf}"
        ) from error
    if done.returncode:
        raise ToolFailedError(f"{OBJDUMP.name} failed: {done.stderr.strip()}", fix=f"check {elf}")
    return parse_disassembly(done.stdout)


def parse_disassembly(text: str) -> dict[int, Instruction]:
    """Instructions in the output of `objdump -d --no-show-raw-insn`."""
    found: dict[int, Instruction] = {}
    function, in_block = "", 0
    for line in text.splitlines():
        if header := _FUNCTION.match(line):
            function = header["name"]
            continue
        match = _LINE.match(line)
        if match is None or match["mnemonic"].startswith("."):
            continue
        name, width, rest = match["mnemonic"].partition(".")
        if rest not in {"n", "w"}:  # a data type is part of the name: vadd.i32
            name += width + rest.removesuffix(".w").removesuffix(".n")
        conditional = in_block > 0
        if conditional:
            in_block -= 1
            name = _without_condition(name)
        if opening := _IT.match(name):
            in_block = 1 + len(opening["more"])
        address = int(match["address"], 16)
        operands = match["operands"].strip()
        found[address] = Instruction(address, name, operands, function, conditional)
    return found


def _without_condition(name: str) -> str:
    """`addeq` -> `add`: objdump appends the condition to what an IT block governs."""
    base, dot, types = name.partition(".")
    return (base[:-2] if base[-2:] in _CONDITIONS else base) + dot + types


def instructions_of(block: BlockRun, code: Mapping[int, Instruction]) -> list[Instruction]:
    """The instructions of an executed block.

    Raises:
        ToolFailedError: the image has no such code, or none that jumps where a jump was counted.
    """
    try:
        instructions = [code[address] for address in block.addresses()]
    except KeyError as error:
        raise ToolFailedError(
            f"code ran at {error.args[0]:#x}, where the image has none",
            fix="count and disassemble the same image",
        ) from error
    if block.taken and not instructions[-1].jumps:
        raise ToolFailedError(
            f"a jump was counted at {instructions[-1].address:#x}, which is no branch",
            fix="count and disassemble the same image",
        )
    return instructions


@dataclass(frozen=True)
class Histogram:
    """Executed instructions, summed over all counted samples."""

    by_mnemonic: Mapping[str, int]
    by_kind: Mapping[Kind, int]
    by_function: Mapping[str, int]


def histogram(blocks: Iterable[BlockRun], code: Mapping[int, Instruction]) -> Histogram:
    """How often each mnemonic ran, each class, and each function's own instructions."""
    mnemonics: Counter[str] = Counter()
    kinds: Counter[Kind] = Counter()
    functions: Counter[str] = Counter()
    for block in blocks:
        for each in instructions_of(block, code):
            mnemonics[each.mnemonic] += block.executed
            kinds[each.kind] += block.executed
            functions[each.function] += block.executed
    return Histogram(
        dict(mnemonics.most_common()), dict(kinds.most_common()), dict(functions.most_common())
    )
