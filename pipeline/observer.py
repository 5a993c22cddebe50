"""What a run says while it goes on, and the console that says it.

On a terminal anything that lasts over two seconds shows a bar; elsewhere there
is one line per stage and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgesmith.pipeline.stage import Progress, SilentProgress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

T = TypeVar("T")
SHOW_AFTER_S = 2.0
_SPEED_PERIOD_S = 3600.0
"""Seconds whose reports the time left rests on: epochs and evaluations come minutes apart."""


class Observer(Protocol):
    """Hears what a run does."""

    def running(self, label: str) -> AbstractContextManager[Progress]:
        """A step runs inside the context."""

    def finished(
        self, label: str, seconds: float, *, cached: bool, why: tuple[str, ...] = ()
    ) -> None:
        """A step's result is there. `why` says why it ran, when that was asked for."""

    def note(self, message: str) -> None:
        """Something the user should know: a wait, a damaged cache entry, a failed target."""


class ConsoleObserver:
    """Says it on a rich console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def running(self, label: str) -> Iterator[Progress]:
        """Show a bar when the step lasts; a pulsing one until it reports."""
        if not self._console.is_terminal:
            yield SilentProgress()
            return
        bar = _make_bar(self._console)
        progress = _BarProgress(bar, bar.add_task(label, total=None))
        timer = threading.Timer(SHOW_AFTER_S, bar.start)
        timer.daemon = True
        timer.start()
        try:
            yield progress
        finally:
            timer.cancel()
            timer.join()  # a start that is under way must not come after the stop
            bar.stop()

    def finished(
        self, label: str, seconds: float, *, cached: bool, why: tuple[str, ...] = ()
    ) -> None:
        """One line per step."""
        time = "cached" if cached else f"{seconds:.1f} s"
        self._print(f"{label:<32} {time}", "dim" if cached else "")
        for reason in why:
            self._print(f"    {reason}", "dim")

    def note(self, message: str) -> None:
        """One line."""
        self._print(message, "yellow")

    def _print(self, text: str, style: str) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


class _BarProgress:
    """A `Progress` that moves one task of a bar."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def report(self, label: str, done: int, total: int | None) -> None:
        """Move the bar."""
        self._bar.update(self._task, description=label, completed=done, total=total)

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items, moving the bar."""
        known = len(items) if total is None and isinstance(items, Sized) else total
        self.report(label, 0, known)
        for done, item in enumerate(items, start=1):
            yield item
            self.report(label, done, known)


def _make_bar(console: Console) -> Bar:
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(
        *columns, console=console, transient=True, speed_estimate_period=_SPEED_PERIOD_S
    )
