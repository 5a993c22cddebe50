"""Estimated cycles: a core's instruction timings applied to what it executed.

These are estimates, never measurements: memories without wait states, no cache misses,
no contention with DMA or debug. Each model says in `basis` what it rests on. Where the
documents give a range, the estimate has one too: `low` takes every fast case, `high`
every slow one, `nominal` what the model states.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from edgesmith.targets.mcu.counting import BlockRun, Profile
from edgesmith.targets.mcu.histogram import Instruction, Kind, instructions_of

_SINGLE = (Kind.LOAD, Kind.STORE)
_MULTIPLE = (Kind.LOAD_MULTIPLE, Kind.STORE_MULTIPLE)
_JUMPS = (Kind.INDIRECT, Kind.TABLE_BRANCH)


@dataclass(frozen=True)
class Cycles:
    """A number of cycles, or of cycles per inference."""

    low: float
    nominal: float
    high: float

    def __add__(self, other: Cycles) -> Cycles:
        return Cycles(self.low + other.low, self.nominal + other.nominal, self.high + other.high)

    def times(self, factor: float) -> Cycles:
        """All three, scaled."""
        return Cycles(self.low * factor, self.nominal * factor, self.high * factor)


ZERO = Cycles(0, 0, 0)


def exactly(cycles: float) -> Cycles:
    """A number without a range."""
    return Cycles(cycles, cycles, cycles)


@dataclass(frozen=True)
class Timing:
    """Cycles of an instruction in its block, and what it adds when it jumps."""

    issue: Cycles
    jump: Cycles = ZERO


@dataclass(frozen=True)
class TimingModel:
    """Timings of a core's instructions.

    `documented` says that the timings, ranges included, are the core's own published ones.
    `block` gives the timing of each instruction of a block that runs from top to end.
    """

    basis: str
    documented: bool
    block: Callable[[Sequence[Instruction]], list[Timing]]


def _pipelined(before: Instruction | None, this: Instruction) -> bool:
    """Whether this load's address phase overlaps the neighbour's data phase.

    Not when the neighbour loads a register that makes this one's address.
    """
    if before is None or before.kind not in _SINGLE:
        return False
    return before.kind is Kind.STORE or before.registers[0] not in this.addresses


def _in_line(
    timing: Callable[[Instruction | None, Instruction], Timing],
) -> Callable[[Sequence[Instruction]], list[Timing]]:
    """A block's timings from a rule on neighbours; the first one's neighbour is unknown."""

    def block(instructions: Sequence[Instruction]) -> list[Timing]:
        befores = (None, *instructions[:-1])
        return [timing(*pair) for pair in zip(befores, instructions, strict=True)]

    return block


_REFILL_DIRECT = Cycles(1, 1, 3)
_REFILL_INDIRECT = Cycles(1, 2, 3)


def _refill(this: Instruction) -> Cycles:
    """P of the manual: 1 to 3; fewer where the target is in the instruction, so known early."""
    return _REFILL_INDIRECT if this.kind in _JUMPS or this.writes_pc else _REFILL_DIRECT


def _m4(before: Instruction | None, this: Instruction) -> Timing:
    kind, jump = this.kind, _refill(this)
    if kind is Kind.LOAD:
        slow = 1 if "pc" in this.addresses else 0  # a literal may contend with fetching
        fast = 1 if _pipelined(before, this) else 2
        return Timing(Cycles(fast, fast, fast + slow))
    if kind is Kind.STORE:  # data leave through the write buffer
        return Timing(Cycles(1, 1, 1 if "," not in this.operands.partition("[")[2] else 2))
    if kind in _MULTIPLE:
        return Timing(exactly(1 + this.listed), jump if this.writes_pc else ZERO)
    if kind is Kind.DIVIDE:
        return Timing(Cycles(2, 7, 12))
    if kind is Kind.PREDICATE:  # may be folded into the instruction before it
        return Timing(Cycles(0, 1, 1))
    if kind is Kind.TABLE_BRANCH or this.mnemonic.startswith("ldr"):
        return Timing(exactly(2), jump)
    if kind in {Kind.BRANCH, Kind.CALL, Kind.INDIRECT}:
        return Timing(exactly(1), jump)
    if kind is Kind.FLOAT and this.mnemonic.startswith("vldr"):
        return Timing(exactly(3 if this.operands.startswith("d") else 2))
    return Timing(exactly(1))


def _m0plus(before: Instruction | None, this: Instruction) -> Timing:
    del before  # nothing overlaps in a two-stage pipeline
    kind = this.kind
    if kind in _SINGLE:
        return Timing(exactly(2))
    if kind in _MULTIPLE:
        return Timing(exactly(1 + this.listed), exactly(2) if this.writes_pc else ZERO)
    if kind is Kind.CALL:
        return Timing(exactly(1), exactly(2))
    if kind in {Kind.BRANCH, Kind.INDIRECT}:
        return Timing(exactly(1), exactly(1))
    return Timing(exactly(3 if kind is Kind.SYSTEM else 1))


_VECTOR = (Kind.VECTOR, Kind.VECTOR_LOAD, Kind.VECTOR_STORE)
_VECTOR_MEMORY = (Kind.VECTOR_LOAD, Kind.VECTOR_STORE)


def _m55(before: Instruction | None, this: Instruction) -> Timing:
    kind = this.kind
    if kind in _VECTOR:
        beats = 4.0 if "[q" in this.operands or ", q" in this.operands.partition("[")[2] else 2.0
        other_unit = (
            before is not None
            and before.kind in _VECTOR
            and (before.kind in _VECTOR_MEMORY) != (kind in _VECTOR_MEMORY)
        )
        overlap = 1.0 if other_unit else 0.0
        return Timing(Cycles(beats - overlap, beats - overlap, beats))
    if kind is Kind.LOOP:
        return Timing(Cycles(0, 1, 1), Cycles(0, 0, 3))
    if kind is Kind.LOAD:
        return Timing(Cycles(1, 1, 2))
    return _m4(before, this)


def _pairs(first: Instruction, second: Instruction) -> bool:
    """Whether two neighbours may issue in one cycle, under the assumptions of `_M7`."""
    if first.kind not in _PAIRABLE or second.kind not in (*_PAIRABLE, Kind.BRANCH):
        return False
    if first.kind in _SINGLE and second.kind in _SINGLE:
        return first.kind is Kind.LOAD and second.kind is Kind.LOAD
    if first.kind is Kind.MULTIPLY and second.kind is Kind.MULTIPLY:
        return False
    written = first.registers[:1] if first.kind is not Kind.STORE else ()
    return not set(written) & set(second.registers)


_PAIRABLE = (Kind.ALU, Kind.MULTIPLY, Kind.LOAD, Kind.STORE)


def _m7(instructions: Sequence[Instruction]) -> list[Timing]:
    timings: list[Timing] = []
    alone = True  # the one before has the cycle for itself
    for index, this in enumerate(instructions):
        before = instructions[index - 1] if index else None
        single = _m4(before, this)
        if before is not None and alone and _pairs(before, this):
            alone = False
            timings.append(Timing(Cycles(0, 0, single.issue.high), Cycles(0, 1, 3)))
            continue
        alone = True
        issue = 1.0
        if this.kind in _MULTIPLE:  # 64-bit data path
            issue = float(ceil(this.listed / 2))
        low = Cycles(issue, issue, single.issue.high)
        if this.kind is Kind.DIVIDE:
            low = single.issue
        jump = Cycles(0, 1, 3) if single.jump != ZERO else ZERO
        timings.append(Timing(low, jump))
    return timings


_M4 = TimingModel(
    "Cortex-M4 Technical Reference Manual r0p1 (Arm 100166), table of processor instructions, "
    "zero wait states. A load next to another load or store takes 1 cycle less, unless it needs "
    "what the other loads; a taken branch adds P = 1 to 3 cycles, nominally 1 where the target is "
    "in the instruction and 2 where it is in a register; a division takes 2 to 12, nominally 7; "
    "an instruction that its IT block skips counts like one that runs.",
    documented=True,
    block=_in_line(_m4),
)

TIMINGS: Mapping[str, TimingModel] = {
    "cortex-m0plus": TimingModel(
        "Cortex-M0+ Technical Reference Manual r0p1 (Arm DDI 0484C), instruction summary, zero "
        "wait states, with the single-cycle multiplier (the small one takes 32 cycles) and no "
        "single-cycle port on the data's memory.",
        documented=True,
        block=_in_line(_m0plus),
    ),
    "cortex-m4": _M4,
    "cortex-m7": TimingModel(
        "Assumption, for there is no published table: two neighbours issue together unless the "
        "second uses what the first writes, both multiply, or one stores and the other accesses "
        "memory; load and store multiple move 8 bytes a cycle; a taken branch adds 0 to 3 cycles, "
        "nominally 1; everything in zero-wait-state memory. `high` is Cortex-M4 timing, one "
        "instruction at a time.",
        documented=False,
        block=_m7,
    ),
    "cortex-m33": TimingModel(
        "Assumption, for there is no published table: Cortex-M4 timing. Cortex-M33 is in-order "
        "with a pipeline as short; its dual issue of some 16-bit pairs is not credited.",
        documented=False,
        block=_in_line(_m4),
    ),
    "cortex-m55": TimingModel(
        "Assumption: vector instructions take 2 cycles (two beats a cycle, Armv8.1-M beat-wise "
        "execution), 1 of which overlaps with a neighbour in the other of the memory and "
        "arithmetic units, gather and scatter 4; a low-overhead loop branch costs 0 to 1; single "
        "loads take 1 (tightly coupled memory); other instructions as on Cortex-M4. Waits for a "
        "result are not modelled.",
        documented=False,
        block=_in_line(_m55),
    ),
}


@dataclass(frozen=True)
class CycleEstimate:
    """Estimated cycles per inference.

    Args:
        layers: by name, in order of execution.
        by_mnemonic: nominal cycles of each mnemonic, jumps included, most first.
    """

    total: Cycles
    layers: Mapping[str, Cycles]
    wiring: Cycles
    by_mnemonic: Mapping[str, float]
    basis: str
    documented: bool


def estimate(
    profile: Profile, code: Mapping[int, Instruction], model: TimingModel
) -> CycleEstimate:
    """Cycles of one inference, the mean over the profile's samples.

    Args:
        code: the disassembled image that was profiled.

    Raises:
        ToolFailedError: the profile is of another image.
    """
    mnemonics: dict[str, float] = defaultdict(float)
    share = 1 / profile.samples
    layers = {
        each.name: _cycles(each.blocks, code, model, mnemonics).times(share)
        for each in profile.layers
    }
    wiring = _cycles(profile.wiring.blocks, code, model, mnemonics).times(share)
    total = sum(layers.values(), wiring)
    ranked = sorted(mnemonics.items(), key=lambda item: -item[1])
    by_mnemonic = {name: cycles * share for name, cycles in ranked}
    return CycleEstimate(total, layers, wiring, by_mnemonic, model.basis, model.documented)


_ENDS = (Kind.BRANCH, Kind.CALL, Kind.INDIRECT, Kind.TABLE_BRANCH, Kind.LOOP)


@dataclass(frozen=True)
class _Straight:
    """Blocks that ran as one, because an emulator ends a block where a page of code ends.

    `whole` has the instructions from this block's first one on; `own` of them are the block's.
    """

    block: BlockRun
    own: int
    whole: list[Instruction]
    alone: int  # runs that did not come from the block before


def _straightened(
    blocks: Iterable[BlockRun], code: Mapping[int, Instruction]
) -> Iterator[_Straight]:
    """Every block, with the instructions that followed it without a jump between."""
    ordered = sorted(blocks, key=lambda block: -block.address)
    starts = {block.address: block for block in ordered}
    arriving: dict[int, int] = defaultdict(int)
    tails: dict[int, list[Instruction]] = {}
    owns: dict[int, int] = {}
    for block in ordered:
        own = instructions_of(block, code)
        end = block.address + sum(block.sizes)
        falls = own[-1].kind not in _ENDS and not own[-1].writes_pc and end in starts
        if falls:
            arriving[end] += block.executed
        tails[block.address] = own + tails[end] if falls else own
        owns[block.address] = len(own)
    for block in ordered:
        alone = max(0, block.executed - arriving[block.address])
        yield _Straight(block, owns[block.address], tails[block.address], alone)


def _cycles(
    blocks: Iterable[BlockRun],
    code: Mapping[int, Instruction],
    model: TimingModel,
    mnemonics: dict[str, float],
) -> Cycles:
    """Of all runs of some blocks; adds the nominal ones to `mnemonics`."""
    total = ZERO
    for part in _straightened(blocks, code):
        timings = model.block(part.whole)
        for instruction, timing in zip(part.whole, timings, strict=True):
            cycles = timing.issue.times(part.alone)
            mnemonics[instruction.mnemonic] += cycles.nominal
            total += cycles
        jump = timings[part.own - 1].jump.times(part.block.taken)
        mnemonics[part.whole[part.own - 1].mnemonic] += jump.nominal
        total += jump
    return total
