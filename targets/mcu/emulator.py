"""Running firmware images in QEMU: outputs, traces, counts, stack."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.targets.c.exchange import (
    INPUTS,
    OUTPUTS,
    TRACE,
    Rows,
    TensorType,
    joined,
    read,
    split,
    traced_rows,
)
from edgesmith.targets.mcu.counting import (
    Profile,
    Watch,
    build_plugin,
    find_watch,
    read_profile,
    write_watch,
)
from edgesmith.targets.mcu.elf import read_symbols
from edgesmith.targets.mcu.facts import Core
from edgesmith.targets.mcu.toolchain import BARE_ELF, HARNESS_ELF, QEMU, TRACE_ELF

Data = npt.NDArray[np.generic]
_LOG = "qemu.log"
_REPORT = "report.bin"  # uint32: samples, stack bytes


@dataclass(frozen=True)
class Firmware:
    """The images around one library; `trace` is None where it was not asked for."""

    harness: Path
    bare: Path
    trace: Path | None
    core: Core
    prefix: str = "model"

    @classmethod
    def in_folder(cls, folder: Path, core: Core, prefix: str = "model") -> Firmware:
        """The images that a `firmware_plan` left."""
        trace = folder / TRACE_ELF
        images = (folder / HARNESS_ELF, folder / BARE_ELF, trace if trace.is_file() else None)
        return cls(*images, core, prefix)


@dataclass(frozen=True, eq=False)
class Emulation:
    """What a run gave.

    Args:
        outputs: per graph output, [samples, *shape].
        traced: tensor index -> its bytes, uint8 [samples, bytes]; empty without trace.
        stack_bytes: what `model_invoke` and all below it used at most.
        profile: instruction counts, where they were asked for.
    """

    outputs: tuple[Data, ...]
    traced: Mapping[int, Rows]
    stack_bytes: int
    profile: Profile | None


def run(
    firmware: Firmware,
    inputs: Sequence[Data],
    outputs: Sequence[TensorType],
    *,
    trace: bool = False,
    count: bool = False,
    timeout_s: float | None = None,
    folder: Path | None = None,
) -> Emulation:
    """Run samples in QEMU.

    With `trace` the tracing image runs; with `count` the plain one (also), so that tracing
    is in no count.

    Args:
        inputs: per graph input, [samples, *shape], in the type that the model takes.
        outputs: the graph outputs.
        timeout_s: limit of each run; by default one minute and five seconds per sample.
        folder: where the files of the run go; by default a temporary folder, which stays
            only when the run fails.

    Raises:
        ToolMissingError: QEMU (or for counts gcc) is not installed.
        ToolFailedError: the program crashed, hung or wrote too little; the message names its log.
        ValueError: there is no sample, inputs differ in their number of samples, or the firmware
            has no tracing image.
    """
    QEMU.require()
    samples = _samples(inputs)
    if trace and firmware.trace is None:
        raise ValueError("the firmware was built without its tracing image")
    limit = 60.0 + 5.0 * samples if timeout_s is None else timeout_s
    place = folder or Path(tempfile.mkdtemp(prefix="edgesmith-emulator-"))
    place.mkdir(parents=True, exist_ok=True)
    (place / INPUTS).write_bytes(joined(inputs))
    result = None
    if trace:
        assert firmware.trace is not None
        result = _run_image(firmware.trace, firmware, place, limit, outputs, samples)
    if count or not trace:
        prefix = firmware.prefix
        watch = find_watch(read_symbols(firmware.harness, prefix), prefix) if count else None
        plain = _run_image(firmware.harness, firmware, place, limit, outputs, samples, watch)
        traced = result.traced if result else {}
        result = Emulation(plain.outputs, traced, plain.stack_bytes, plain.profile)
    if folder is None:
        shutil.rmtree(place)
    assert result is not None
    return result


def _samples(inputs: Sequence[Data]) -> int:
    counts = {len(each) for each in inputs}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"inputs have {sorted(counts)} samples; one number above 0 was expected")
    return counts.pop()


def _run_image(
    elf: Path,
    firmware: Firmware,
    folder: Path,
    timeout_s: float,
    outputs: Sequence[TensorType],
    samples: int,
    watch: Watch | None = None,
) -> Emulation:
    for name in (OUTPUTS, TRACE, _REPORT, "counts.txt"):
        (folder / name).unlink(missing_ok=True)
    plugin: tuple[str, ...] = ()
    if watch is not None:
        write_watch(folder / "watch.txt", watch)
        # A copy beside the run: commas in its own path would end QEMU's option.
        shutil.copy(build_plugin(), folder / "counter.so")
        plugin = ("-plugin", "file=./counter.so,watch=watch.txt,out=counts.txt")
    _run_qemu(elf, firmware.core, folder, timeout_s, plugin)
    report = np.frombuffer(read(folder / _REPORT), "<u4")
    if report[0] != samples:
        raise ToolFailedError(
            f"the harness ran {report[0]} samples of {samples}",
            fix="give inputs of the sizes that the library was generated for",
        )
    traced = traced_rows(read(folder / TRACE), samples) if elf == firmware.trace else {}
    profile = read_profile(folder / "counts.txt", watch) if watch else None
    found = tuple(split(read(folder / OUTPUTS), outputs, samples))
    return Emulation(found, traced, int(report[1]), profile)


def _run_qemu(elf: Path, core: Core, folder: Path, timeout_s: float, plugin: Sequence[str]) -> None:
    command = [QEMU.name, "-machine", core.machine.name, "-no-reboot"]
    command += ["-display", "none", "-monitor", "none", "-serial", "none"]
    command += ["-semihosting-config", "enable=on,target=native", *plugin]
    command += ["-kernel", str(elf.absolute())]
    log = folder / _LOG
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                command,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ToolFailedError(
                f"{elf.name} did not finish within {timeout_s:.0f} s in {QEMU.name}",
                fix=f"read {log}; raise the limit if the network is really that slow there",
            ) from error
    if status:
        said = log.read_text(errors="replace").strip() or "it printed nothing"
        tail = "\n".join(said.splitlines()[-8:])
        raise ToolFailedError(
            f"{elf.name} failed in {QEMU.name} (exit status {status}):\n{tail}", fix=f"read {log}"
        )
