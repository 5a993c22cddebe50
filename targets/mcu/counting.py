"""Exact counts of executed instructions, by a QEMU plugin: building it, and reading its output."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from edgesmith.pipeline.errors import CacheError, ToolFailedError
from edgesmith.targets.mcu.elf import Symbol
from edgesmith.targets.mcu.toolchain import HOST_GCC, QEMU

_SOURCE = Path(__file__).parent / "plugin" / "counter.c"
_FLAGS = ("-shared", "-fPIC", "-O2", "-std=c11", "-Wall", "-Wextra", "-Werror")
_TIMEOUT_S = 120.0
RETURN = "harness_return"  # the instruction behind the call of the model, in harness.c


@dataclass(frozen=True)
class InstructionCount:
    """Executed instructions per inference, over `samples` of them."""

    mean: float
    low: int
    high: int
    samples: int

    @property
    def constant(self) -> bool:
        """Whether every sample took the same number."""
        return self.low == self.high

    @classmethod
    def of(cls, values: Sequence[int]) -> InstructionCount:
        """From the count of each sample."""
        return cls(sum(values) / len(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class BlockRun:
    """Instructions that always ran together, and how often, summed over all samples.

    Args:
        sizes: bytes of each instruction.
        executed: how often the block ran.
        taken: how often its last instruction jumped rather than going on to the next one.
    """

    address: int
    sizes: tuple[int, ...]
    executed: int
    taken: int

    def addresses(self) -> Iterator[int]:
        """Of its instructions."""
        return accumulate(self.sizes[:-1], initial=self.address)


@dataclass(frozen=True)
class LayerProfile:
    """One layer: from its entry to the entry of the next."""

    name: str
    instructions: InstructionCount
    blocks: tuple[BlockRun, ...]


@dataclass(frozen=True)
class Profile:
    """Instructions of inferences.

    Args:
        invoke: of `model_invoke`, from its entry to its return.
        layers: in order of execution.
        wiring: what of `invoke` lies before the first and after the last layer.
    """

    samples: int
    invoke: InstructionCount
    layers: tuple[LayerProfile, ...]
    wiring: LayerProfile

    def blocks(self) -> Iterator[BlockRun]:
        """Everything that ran inside `model_invoke`."""
        for each in (*self.layers, self.wiring):
            yield from each.blocks


@dataclass(frozen=True)
class Watch:
    """The addresses that a count distinguishes: the entry of the model, its layers, its return.

    `layers` are in order of execution; `end` is the function behind the last of them.
    """

    invoke: Symbol
    layers: tuple[Symbol, ...]
    end: Symbol | None
    back: Symbol

    def sequence(self) -> list[Symbol]:
        """In the order in which one inference reaches them."""
        end = [self.end] if self.end else []
        return [self.invoke, *self.layers, *end, self.back]


def find_watch(symbols: Iterable[Symbol], prefix: str = "model") -> Watch:
    """The watched addresses of a harness image.

    Raises:
        ToolFailedError: the image lacks `model_invoke` or the harness, or layers have no end.
    """
    layer = re.compile(rf"{re.escape(prefix)}_layer_(\d+)(\..+)?$")
    by_name = {each.name: each for each in symbols if each.function}
    numbered = {int(m[1]): by_name[name] for name in by_name if (m := layer.match(name))}
    layers = tuple(numbered[number] for number in sorted(numbered))
    needed = [f"{prefix}_invoke", RETURN, *([f"{prefix}_layers_end"] if layers else [])]
    if missing := [name for name in needed if name not in by_name]:
        raise ToolFailedError(
            f"the image has no function {', '.join(map(repr, missing))}",
            fix="link the harness, and keep the layer functions out of line",
        )
    end = by_name.get(f"{prefix}_layers_end") if layers else None
    return Watch(by_name[needed[0]], layers, end, by_name[RETURN])


def build_plugin(cache: Path | None = None) -> Path:
    """The compiled plugin; made once per source, compiler call and plugin interface.

    Args:
        cache: where to keep it; by default a folder of the user's.

    Raises:
        ToolMissingError: the host has no gcc or no QEMU.
        ToolFailedError: gcc failed.
        CacheError: the folder cannot be written.
    """
    HOST_GCC.require()
    flags = (*_FLAGS, f"-DPLUGIN_API={_plugin_api()}")
    digest = hashlib.sha256(_SOURCE.read_bytes() + repr(flags).encode()).hexdigest()[:16]
    folder = cache or Path.home() / ".cache" / "edgesmith" / "plugins"
    plugin = folder / f"counter-{digest}.so"
    if plugin.is_file():
        return plugin
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, hidden = tempfile.mkstemp(dir=folder, suffix=".so")
    except OSError as error:
        raise CacheError(
            f"the counter plugin cannot be kept in {folder}: {error}", fix="make it writable"
        ) from error
    os.close(handle)
    try:
        _run_gcc([HOST_GCC.name, *flags, str(_SOURCE), "-o", hidden])
        os.replace(hidden, plugin)
    finally:
        Path(hidden).unlink(missing_ok=True)
    return plugin


def _run_gcc(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolFailedError(
            f"gcc did not compile the counter plugin within {_TIMEOUT_S:.0f} s", fix="try again"
        ) from error
    if done.returncode:
        raise ToolFailedError(
            f"gcc cannot compile the counter plugin:\n{done.stderr.strip()}",
            fix="check that gcc makes shared libraries here",
        )


def _plugin_api() -> int:
    """Version of the plugin interface to ask for: 1 until QEMU 8, which 9 no longer takes."""
    program = QEMU.require()
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    version = re.search(r"version (\d+)", done.stdout)
    return 1 if version is None or int(version[1]) < 9 else 2


def write_watch(path: Path, watch: Watch) -> None:
    """The plugin's list of addresses.

    Raises:
        ToolFailedError: two watched functions share one address.
    """
    addresses = [each.address for each in watch.sequence()]
    if len(set(addresses)) != len(addresses):
        raise ToolFailedError(
            "two layer functions were merged into one", fix="compile with -fno-ipa-icf"
        )
    path.write_text("".join(f"{address:x}\n" for address in sorted(addresses)))


def read_profile(path: Path, watch: Watch) -> Profile:
    """What the plugin wrote.

    Raises:
        ToolFailedError: the file is incomplete, or layers did not run one after the other.
    """
    addresses = sorted(each.address for each in watch.sequence())
    segment_of = {address: index + 1 for index, address in enumerate(addresses)}
    hits: list[tuple[int, int]] = []
    blocks: dict[int, list[BlockRun]] = {}
    start, complete = 0, False
    sizes: tuple[int, ...] = ()
    for line in path.read_text().splitlines():
        word, *fields = line.split()
        if word == "hit":
            hits.append((int(fields[0]), int(fields[1])))
        elif word == "block":
            start, sizes = int(fields[0], 16), tuple(map(int, fields[1]))
        elif word == "count":
            segment, executed, taken = map(int, fields)
            blocks.setdefault(segment, []).append(BlockRun(start, sizes, executed, taken))
        elif word == "inside":
            raise _broken(f"the watched address {fields[0]} is also reached from above")
        elif word == "gap":
            raise _broken(f"the emulator found no instruction at {fields[0]}")
        complete = word == "total"
    if not complete:
        raise _broken("the plugin's file is incomplete")
    return _profile(watch, [segment_of[each.address] for each in watch.sequence()], hits, blocks)


def _broken(what: str) -> ToolFailedError:
    return ToolFailedError(f"cannot count instructions: {what}", fix="keep layers out of line")


def _profile(
    watch: Watch,
    order: Sequence[int],
    hits: Sequence[tuple[int, int]],
    blocks: dict[int, list[BlockRun]],
) -> Profile:
    samples, rest = divmod(len(hits), len(order))
    if rest or samples == 0 or [segment for segment, _ in hits] != list(order) * samples:
        raise _broken("an inference does not run every layer once and in order")
    totals = [total for _, total in hits]
    rows = [totals[at : at + len(order)] for at in range(0, len(totals), len(order))]
    steps = [[after - before for before, after in pairwise(row)] for row in rows]
    layers = tuple(
        LayerProfile(
            layer.name,
            InstructionCount.of([step[index] for step in steps]),
            tuple(blocks.get(order[index], ())),
        )
        for index, layer in enumerate(watch.layers, start=1)
    )
    outside = [0] + ([len(order) - 2] if watch.end else [])
    wiring = LayerProfile(
        watch.invoke.name,
        InstructionCount.of([sum(step[index] for index in outside) for step in steps]),
        tuple(each for index in outside for each in blocks.get(order[index], ())),
    )
    invoke = InstructionCount.of([row[-1] - row[0] for row in rows])
    return Profile(samples, invoke, layers, wiring)
