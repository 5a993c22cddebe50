"""What is said of members of a front once they were built."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgesmith.nas import outcome
from edgesmith.nas.options import SearchOptions
from edgesmith.nas.remeasure import Member
from edgesmith.nas.values import Constraint, Found, Task
from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.training.trainer import Tuned
from edgesmith.pipeline.values import Kind, Measurement
from tests.nas.driver.searches import task
from tests.nas.driver.test_ladder import exact, found_by

ASKED = task(Constraint("bytes", "most", 40.0))


def built(found: Found, asked: Task, folder: Path) -> tuple[dict[int, Member], list[str]]:
    place = SimpleNamespace(options=SearchOptions(measure_front=2), target=None)
    nothing, silent = cast("Any", None), SilentProgress()
    return outcome._built(found, asked, nothing, cast("Any", place), folder / "front", silent)


def member(size: float) -> Member:
    return Member({"bytes": Measurement("bytes", size, "bytes", Kind.MEASURED, "plain", 1)}, 7)


@pytest.mark.parametrize(("size", "exceeds"), [(40.0, False), (41.0, True)])
def test_a_limit_that_the_choice_exceeds_as_built_is_said(
    size: float, exceeds: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = found_by(exact, ASKED, tmp_path)
    monkeypatch.setattr(outcome, "deployed", lambda *_: member(size))
    again, notes = built(found, ASKED, tmp_path)
    assert found.chosen in again
    assert len(again) == 2
    folders = {each.name for each in (tmp_path / "front").iterdir()}
    assert folders == {outcome.member_folder(number) for number in again}
    said = ["the choice, as it was built, has bytes 41 against a limit of 40"]
    assert notes == (said if exceeds else [])


def test_training_that_ended_early_is_said() -> None:
    assert outcome.said_of(None) == ()
    assert outcome.said_of(Tuned(20.0, 61.5, 3)) == ()
    (said,) = outcome.said_of(Tuned(20.0, 61.5, 3, diverged=True))
    assert "ended in epoch 3" in said
    assert "61.5 %" in said


def test_members_that_cannot_be_built_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = found_by(exact, ASKED, tmp_path)

    def refused(*_: object) -> Member:
        raise UnsupportedError("nothing is built here", fix="none")

    monkeypatch.setattr(outcome, "deployed", refused)
    again, notes = built(found, ASKED, tmp_path)
    assert again == {}
    assert len(notes) == 2
    assert all("was not deployed: nothing is built here" in note for note in notes)
    assert not any((tmp_path / "front").iterdir())
