"""What a run shows: a bar on a terminal when it lasts, one line per stage elsewhere."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from edgesmith.pipeline import observer
from edgesmith.pipeline.observer import ConsoleObserver
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.stage_log import stage_log

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def wait_for_the_bar() -> None:
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()


def console_to_text(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def test_elsewhere_there_is_one_line_per_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "SHOW_AFTER_S", 0.0)
    console = console_to_text(terminal=False)
    watch = ConsoleObserver(console)
    with watch.running("fit") as progress:
        assert list(progress.track([1, 2], "half")) == [1, 2]
    watch.finished("fit", 1.25, cached=False, why=("seed: 1 -> 2",))
    watch.finished("[bold]odd[/bold]", 0.1, cached=True)
    assert shown(console).splitlines() == [
        "fit                              1.2 s",
        "    seed: 1 -> 2",
        "[bold]odd[/bold]                 cached",
    ]


def test_on_a_terminal_a_bar_comes_when_the_stage_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "SHOW_AFTER_S", 0.0)
    console = console_to_text(terminal=True)
    with ConsoleObserver(console).running("fit") as progress:
        wait_for_the_bar()
        for _ in progress.track(range(4), "fitting [b]x[/b]"):
            pass
    text = shown(console)
    assert "fitting [b]x[/b]" in text
    assert "100 %" in text


def test_time_left_is_known_though_reports_come_minutes_apart() -> None:
    """As epochs and evaluations do."""
    bar = observer._make_bar(console_to_text(terminal=True))
    now = [0.0]
    bar.get_time = lambda: now[0]
    task = bar.add_task("training", total=10)
    for done in range(4):
        now[0] = 120.0 * done
        bar.update(task, completed=done)
    assert bar.tasks[0].time_remaining == pytest.approx(7 * 120, rel=0.01)


def test_on_a_terminal_a_short_stage_shows_no_bar() -> None:
    console = console_to_text(terminal=True)
    with ConsoleObserver(console).running("fit") as progress:
        progress.report("fitting", 1, 2)
    assert shown(console) == ""


def test_the_bar_is_taken_away_when_the_stage_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "SHOW_AFTER_S", 0.0)
    console = console_to_text(terminal=True)

    def fail() -> None:
        wait_for_the_bar()
        raise KeyError

    with pytest.raises(KeyError), ConsoleObserver(console).running("fit"):
        fail()
    text = shown(console)
    assert text.count(HIDE_CURSOR) == text.count(SHOW_CURSOR) == 1
    assert text.index(HIDE_CURSOR) < text.index(SHOW_CURSOR)


def test_silence_tracks_too() -> None:
    assert list(SilentProgress().track(iter("ab"), "x")) == ["a", "b"]


def test_logs_and_warnings_of_libraries_go_to_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "stage.log"
    level = logging.getLogger().level
    with stage_log("fit", path) as log:
        log.info("mine")
        logging.getLogger("some.library").info("theirs")
        warnings.warn("careful", stacklevel=1)
    logging.getLogger("some.library").warning("afterwards")
    text = path.read_text()
    assert "mine" in text
    assert "theirs" in text
    assert "careful" in text
    assert "afterwards" not in text
    assert "careful" not in capsys.readouterr().err
    assert logging.getLogger().level == level
