"""Tables on the console: how a run came out, and which targets there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from edgesmith.pipeline.run_folder import REPORT, TargetOutcome, read_result

if TYPE_CHECKING:
    from rich.console import Console

    from edgesmith.pipeline.registry import Registries
    from edgesmith.pipeline.results import DeploymentResult, Device
    from edgesmith.pipeline.runner import RunRecord
    from edgesmith.pipeline.values import Measurement
    from edgesmith.targets.base import OpFormat

_NONE = "-"


def print_summary(record: RunRecord, console: Console, overview: Path | None = None) -> None:
    """One row per target, read from its `result.json`; its notes, and where its report is.

    Args:
        overview: the page of all targets.
    """
    table = Table(title=escape(record.name))
    table.add_column("target", no_wrap=True, overflow="fold")
    for title in ("float", "deployed", "latency", "size", "verdict"):
        table.add_column(title)
    for outcome in record.targets:
        table.add_row(*map(escape, _row(outcome)))
    console.print(table)
    _print_devices(record, console)
    for outcome in record.targets:
        if outcome.folder is not None:
            for note in read_result(Path(outcome.folder)).notes:
                _plain(console, f"{outcome.target}: {note}")
            _plain(console, str(Path(outcome.folder) / REPORT))
        if outcome.error is not None:
            _plain(console, f"{outcome.target}: {outcome.error}")
        if outcome.skipped is not None:
            _plain(console, f"{outcome.target}: skipped: {outcome.skipped}")
    if overview is not None:
        _plain(console, str(overview))


def print_targets(registries: Registries, console: Console) -> None:
    """Every target: what it takes, its boards and options, its tools; how to get missing ones."""
    for name in registries.targets.names():
        target = registries.targets.get(name)()
        facts = target.describe()
        table = Table(
            show_header=False, title=escape(f"{name}: {facts.title}"), title_justify="left"
        )
        table.add_row("summary", escape(facts.summary))
        for formats, ops in _by_formats(facts.ops).items():
            table.add_row(escape(formats), escape(", ".join(sorted(ops))))
        for what, text in target.details().items():
            table.add_row(escape(what), escape(text))
        for tool in target.tools():
            found = tool.find()
            state = found if found is not None else f"missing; install: {tool.install}"
            table.add_row(escape(f"tool {tool.name}"), escape(state))
        if reason := target.unavailable():
            table.add_row("skipped here", escape(reason))
        console.print(table)


def _print_devices(record: RunRecord, console: Console) -> None:
    """What the emulated devices found, each figure with its kind; nothing where there are none."""
    table = Table(title="devices")
    table.add_column("target", no_wrap=True, overflow="fold")
    for title in ("flash, bytes", "RAM, bytes", "arena, bytes", "instructions", "time, ms"):
        table.add_column(title, justify="right")
    for outcome in record.targets:
        device = read_result(Path(outcome.folder)).device if outcome.folder is not None else None
        if device is not None:
            table.add_row(escape(outcome.target), *map(escape, _device_row(device)))
    if table.row_count:
        console.print(table)


def _device_row(device: Device) -> Iterator[str]:
    yield _cell(device.flash, device.flash_limit)
    yield _cell(device.ram, device.ram_limit)
    yield _cell(device.arena)
    yield _cell(device.instructions)
    yield _cell(device.time, digits=3) if device.time else _NONE


def device_lines(device: Device) -> Iterator[str]:
    """What an emulated device found, a line for each figure with its kind."""
    yield f"{device.core} on {device.board or 'no board'}, {device.emulator}"
    figures = (
        ("flash", device.flash, device.flash_limit),
        ("RAM", device.ram, device.ram_limit),
        (f"arena, planned for {device.plan}", device.arena, None),
        ("instructions", device.instructions, None),
        ("cycles", device.cycles, None),
        ("time, ms", device.time, None),
    )
    for name, found, limit in figures:
        if found is not None:
            of = f" of {limit:,}" if limit is not None else ""
            digits = 3 if found.unit == "ms" else 0
            yield f"  {name:<28} {found.value:>12,.{digits}f}{of} ({found.kind.value})"


def _cell(found: Measurement, limit: int | None = None, digits: int = 0) -> str:
    lines = [f"{found.value:,.{digits}f}", *([f"of {limit:,}"] if limit is not None else [])]
    return "\n".join([*lines, found.kind.value])


def _row(outcome: TargetOutcome) -> Iterator[str]:
    yield outcome.target
    if outcome.folder is None:
        yield from (_NONE, _NONE, _NONE, _NONE, "skipped" if outcome.skipped else "failed")
        return
    result = read_result(Path(outcome.folder))
    yield _accuracy(result, "float")
    yield _accuracy(result, "deployed")
    yield f"{result.latency.deployed.median.value:.3f} ms" if result.latency else _NONE
    yield f"{result.size[0].value:,.0f} {result.size[0].unit}" if result.size else _NONE
    yield _verdict(result)


def _verdict(result: DeploymentResult) -> str:
    if result.ok:
        return "budgets met" if result.budgets else "no budgets set"
    missed = [check.name for check in result.budgets if not check.met and check.value is not None]
    unchecked = [check.name for check in result.budgets if check.value is None]
    groups = {"missed": missed, "not checked": unchecked}
    words = [f"{what}: {', '.join(names)}" for what, names in groups.items() if names]
    return "; ".join(words) or "not met"


def _accuracy(result: DeploymentResult, form: str) -> str:
    found = (row.accuracy.value for row in result.accuracy if row.form == form)
    value = next(found, None)
    return _NONE if value is None else f"{value:.2f} %"


def _by_formats(ops: Mapping[str, Sequence[OpFormat]]) -> dict[str, list[str]]:
    """Operators that take the same formats, under those formats in words."""
    grouped: dict[str, list[str]] = {}
    for kind, formats in ops.items():
        words = " | ".join(dict.fromkeys(_words(each) for each in formats))
        grouped.setdefault(words, []).append(kind)
    return grouped


def _words(form: OpFormat) -> str:
    words = form.activation
    if form.weight is not None:
        words += f" x {form.weight}{' per channel' if form.per_channel else ''}"
    if form.output is not None:
        words += f" to {form.output}"
    return words


def _plain(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
