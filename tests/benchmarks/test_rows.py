"""What every benchmark writes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.loading import benchmark

rows = benchmark("rows")
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(value=FINITE, goal=FINITE)
def test_a_goal_that_is_reached_exactly_is_met_in_both_directions(
    value: float, goal: float
) -> None:
    lower = rows.Row("figure", value, "", goal=goal)
    higher = rows.Row("figure", value, "", goal=goal, better="higher")
    assert lower.met == (value <= goal)
    assert higher.met == (value >= goal)


def test_what_is_no_number_meets_nothing() -> None:
    assert rows.Row("figure", math.nan, "").met is False
    assert rows.Row("figure", math.nan, "", goal=1).met is False


def test_a_figure_without_a_goal_is_not_judged() -> None:
    assert rows.Row("figure", 1.0, "").met is None


@pytest.mark.parametrize(("value", "met"), [(0.0, True), (1.0, False)])
def test_published_rows_are_a_file_and_a_verdict(
    value: float,
    met: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    row = rows.Row("network: bytes that differ", value, "bytes", "simulated", goal=0)
    assert rows.publish("trial", [row], {"emulator": "7.2"}) is met
    document = json.loads((tmp_path / "trial.json").read_text())
    assert document["versions"]["emulator"] == "7.2"
    assert document["versions"]["numpy"] != "absent"
    (written,) = document["rows"]
    assert (written["kind"], written["goal"], written["met"]) == ("simulated", 0, met)
    shown = capsys.readouterr().out
    assert "network: bytes that differ" in shown
    assert ("NO" in shown) is not met


def test_large_figures_are_shown_to_the_last_digit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    rows.publish("trial", [rows.Row("instructions", 22_764_363, "", goal=22_764_280)])
    shown = capsys.readouterr().out
    assert "22,764,363" in shown
    assert "22,764,280" in shown


def groups(measured: list[str], second: float = 1.0) -> Any:
    """Two groups of one row each, which write down that they ran."""

    def group(name: str, value: float) -> Any:
        def run() -> Any:
            measured.append(name)
            yield rows.Row(f"{name}: figure", value, "", goal=1)

        return run

    return {"first": group("first", 1.0), "second": group("second", second)}


def test_groups_are_measured_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    ran: list[str] = []
    assert not rows.publish_groups("trial", groups(ran), ["second"], {})  # one was not measured
    assert rows.publish_groups("trial", groups(ran), ["first"], {})
    assert ran == ["second", "first"]
    document = json.loads((tmp_path / "trial.json").read_text())
    assert [row["group"] for row in document["rows"]] == ["first", "second"]
    assert not rows.publish_groups("trial", groups(ran, 2.0), ["second"], {})  # its goal is missed
    assert rows.publish_groups("trial", groups(ran), ["first", "second"], {})


def test_figures_of_other_versions_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    ran: list[str] = []
    rows.publish_groups("trial", groups(ran), ["second"], {"emulator": "7.1"})
    assert not rows.publish_groups("trial", groups(ran), ["first"], {"emulator": "7.2"})
    document = json.loads((tmp_path / "trial.json").read_text())
    assert [row["group"] for row in document["rows"]] == ["first"]


@pytest.mark.parametrize(
    ("then", "kept"),
    [({"system": "Linux 6.18-b"}, True), ({"system": "Darwin 25"}, False), ({"cores": "8"}, False)],
)
def test_figures_of_another_machine_are_not_kept_but_of_another_build_of_its_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: dict[str, str], kept: bool
) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    here = {"system": "Linux 6.18-a", "cores": "2"}
    monkeypatch.setattr(rows, "machine", lambda: here)
    rows.publish_groups("trial", groups([]), ["second"], {})
    monkeypatch.setattr(rows, "machine", lambda: here | then)
    assert rows.publish_groups("trial", groups([]), ["first"], {}) == kept
    found = json.loads((tmp_path / "trial.json").read_text())["rows"]
    systems = {row["group"]: row["system"] for row in found}
    assert systems.pop("first") == (here | then)["system"]
    assert systems == ({"second": here["system"]} if kept else {})


def test_a_run_that_is_cut_off_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    rows.publish_groups("trial", groups([]), ["first", "second"], {})

    def stops() -> Any:
        yield rows.Row("first: figure", 1.0, "", goal=1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows.publish_groups("trial", groups([]) | {"first": stops}, ["first", "second"], {})
    document = json.loads((tmp_path / "trial.json").read_text())
    assert [row["group"] for row in document["rows"]] == ["first", "second"]
    assert all(len(row["source"]) == 12 for row in document["rows"])
