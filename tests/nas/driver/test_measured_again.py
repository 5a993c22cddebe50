"""What is said of members of a front once they were built."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgesmith.nas import outcome
from edgesmith.nas.options import SearchOptions
from edgesmith.nas.values import Constraint, Found, Task
from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.training.trainer import Tuned
from edgesmith.pipeline.values import Kind, Measurement
from tests.nas.driver.searches import task
from tests.nas.driver.test_ladder import exact, found_by

ASKED = task(Constraint("bytes", "most", 40.0))


def measured_again(found: Found, asked: Task) -> tuple[dict[int, Any], list[str]]:
    place = SimpleNamespace(options=SearchOptions(measure_front=2), target=None)
    nothing = cast("Any", None)
    return outcome._measured_again(found, asked, nothing, cast("Any", place), SilentProgress())


def built(size: float) -> dict[str, Measurement]:
    return {"bytes": Measurement("bytes", size, "bytes", Kind.MEASURED, "plain", 1)}


@pytest.mark.parametrize(("size", "exceeds"), [(40.0, False), (41.0, True)])
def test_a_limit_that_the_choice_exceeds_as_built_is_said(
    size: float, exceeds: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = found_by(exact, ASKED, tmp_path)
    monkeypatch.setattr(outcome, "remeasured", lambda *_: built(size))
    again, notes = measured_again(found, ASKED)
    assert found.chosen in again
    assert len(again) == 2
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

    def refused(*_: object) -> dict[str, Measurement]:
        raise UnsupportedError("nothing is built here", fix="none")

    monkeypatch.setattr(outcome, "remeasured", refused)
    again, notes = measured_again(found, ASKED)
    assert again == {}
    assert len(notes) == 2
    assert all("was not measured again: nothing is built here" in note for note in notes)
