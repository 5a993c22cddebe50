"""What is said of members of a front once they were built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgesmith.nas import ladder, outcome
from edgesmith.nas.outcome import Building, Climbed
from edgesmith.nas.remeasure import Member
from edgesmith.nas.values import Constraint, Found, Task
from edgesmith.pipeline.errors import InfeasibleSearchError, UnsupportedError
from edgesmith.pipeline.training.trainer import Tuned
from edgesmith.pipeline.values import Kind, Measurement
from tests.nas.driver.searches import task
from tests.nas.driver.test_ladder import exact, found_by

ASKED = task(Constraint("bytes", "most", 40.0))


def building(found: Found, asked: Task, folder: Path) -> Building:
    assert found.chosen is not None
    members = [found.trials[number] for number in found.front]
    order = ladder.preferred(asked, "best:bytes", members)
    made = cast("Any", SimpleNamespace(quantized=lambda choices: choices))
    climbed = Climbed(found, (), asked, made, order)
    return Building(climbed, cast("Any", None), folder / "front")


def measuring(monkeypatch: pytest.MonkeyPatch, sizes: Mapping[int, float], found: Found) -> None:
    """Let members come out in these sizes, others in those that were predicted."""
    predicted = {str(each.choices): each.metrics["bytes"] for each in found.trials}
    known = {str(found.trials[number].choices): size for number, size in sizes.items()}

    def deployed(choices: object, *_: object) -> Member:
        size = {**predicted, **known}[str(choices)]
        if math.isnan(size):
            raise UnsupportedError("nothing is built here", fix="none")
        value = Measurement("bytes", size, "bytes", Kind.MEASURED, "plain", 1)
        return Member({"bytes": value}, 7)

    monkeypatch.setattr(outcome, "deployed", deployed)


def test_a_choice_that_keeps_its_limits_as_built_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = found_by(exact, ASKED, tmp_path)
    made = building(found, ASKED, tmp_path)
    first = made.climbed.order[0]
    measuring(monkeypatch, {first: 40.0}, found)
    assert made.choice() == first
    assert made.notes == []
    folders = {each.name for each in (tmp_path / "front").iterdir()}
    assert folders == {outcome.member_folder(first)}


@pytest.mark.parametrize("size", [41.0, math.nan])
def test_a_choice_that_exceeds_a_limit_as_built_makes_room(
    size: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = found_by(exact, ASKED, tmp_path)
    made = building(found, ASKED, tmp_path)
    first, second, *_ = made.climbed.order
    measuring(monkeypatch, {first: size}, found)
    assert made.choice() == second
    assert len(made.notes) == 1
    said = "was not deployed: nothing" if math.isnan(size) else "bytes 41 against a limit of 40"
    assert made.notes[0].startswith(f"candidate {first} ")
    assert said in made.notes[0]
    assert (tmp_path / "front" / outcome.member_folder(first)).exists() != math.isnan(size)


def test_where_nothing_keeps_its_limits_as_built_numbers_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = found_by(exact, ASKED, tmp_path)
    made = building(found, ASKED, tmp_path)
    measuring(monkeypatch, dict.fromkeys(made.climbed.order, 44.0), found)
    with pytest.raises(InfeasibleSearchError, match="bytes 44 against a limit of 40") as refused:
        made.choice()
    assert f"none of {len(made.climbed.order)} candidates" in refused.value.message


def test_the_order_begins_with_what_the_rule_chooses(tmp_path: Path) -> None:
    found = found_by(exact, ASKED, tmp_path)
    members = [found.trials[number] for number in found.front]
    order = ladder.preferred(ASKED, "best:bytes", members)
    assert sorted(order) == sorted(found.front)
    sizes = [found.trials[number].metrics["bytes"] for number in order]
    assert sizes == sorted(sizes)
    assert order[0] == found_by(exact, ASKED, tmp_path).chosen
    assert ladder.preferred(ASKED, "best:bytes", []) == ()


def test_training_that_ended_early_is_said() -> None:
    assert outcome.said_of(None) == ()
    assert outcome.said_of(Tuned(20.0, 61.5, 3)) == ()
    (said,) = outcome.said_of(Tuned(20.0, 61.5, 3, diverged=True))
    assert "ended in epoch 3" in said
    assert "61.5 %" in said


def test_where_nothing_can_be_built_the_choice_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The stage `compile` says what is wrong with it."""
    found = found_by(exact, ASKED, tmp_path)
    made = building(found, ASKED, tmp_path)
    measuring(monkeypatch, dict.fromkeys(made.climbed.order, math.nan), found)
    assert made.choice() == made.climbed.order[0]
    assert made.built == {}
    assert len(made.notes) == len(made.climbed.order)
    assert not any((tmp_path / "front").iterdir())
