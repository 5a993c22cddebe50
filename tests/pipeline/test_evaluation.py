"""Accuracy, agreement, budgets and plan execution, against computation by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.arrays import load_arrays, save_arrays
from edgesmith.pipeline.budgets import Figures, check_budgets
from edgesmith.pipeline.errors import CacheError, DataError, ToolFailedError, ToolMissingError
from edgesmith.pipeline.evaluation import accuracy_row, check_labels, confusion, predictions, share
from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.results import AccuracyRow
from edgesmith.pipeline.spec import Budgets, LatencyBudget
from edgesmith.pipeline.values import BuildPlan, Command, Kind, Measurement
from edgesmith.targets.cpu.statistics import latency_series
from tests.reports.sample import device_result


def test_the_wilson_interval_of_a_textbook_case() -> None:
    found = share("accuracy", np.arange(10) < 8, "t")
    assert found.value == 80.0
    assert found.samples == 10
    assert found.interval is not None
    # Wilson (1927) for 8 of 10 at 95 %: 0.4902 to 0.9433.
    assert found.interval.low == pytest.approx(49.02, abs=0.01)
    assert found.interval.high == pytest.approx(94.33, abs=0.01)


@given(st.integers(1, 200), st.data())
def test_an_interval_holds_its_value(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    found = share("m", np.arange(total) < hits, "t")
    assert found.interval is not None
    assert -1e-9 <= found.interval.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.interval.high <= 100 + 1e-9


def test_predictions_take_the_largest_of_any_shape() -> None:
    codes = np.array([[[[1, 5, -3]]], [[[0, -9, 7]]]], np.int8)
    assert predictions(codes).tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(4, 1), (4, 3, 2), (4,)])
def test_an_output_that_is_no_class_score_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"one value for each of two or more classes"):
        predictions(np.zeros(shape))


def test_a_label_beyond_the_outputs_is_refused() -> None:
    check_labels(np.array([0, 2]), 3)
    with pytest.raises(DataError, match=r"label 3, but the model has 3 outputs"):
        check_labels(np.array([0, 3]), 3)


def test_confusion_counts_every_pair() -> None:
    labels = np.array([0, 0, 1, 2])
    found = confusion(("cat",), labels, np.array([0, 1, 1, 2]), np.array([0, 0, 1, 0]), 3)
    assert found.labels == ("cat", "1", "2")
    assert found.float_counts == ((1, 1, 0), (0, 1, 0), (0, 0, 1))
    assert found.deployed_counts == ((2, 0, 0), (0, 1, 0), (1, 0, 0))


SIZE = Measurement("deployed file", 900.0, "bytes", Kind.MEASURED, "t", 1)
LABELS = np.zeros(200, np.int64)


def rows(float_hits: int, deployed_hits: int) -> tuple[AccuracyRow, ...]:
    return tuple(
        accuracy_row(form, (np.arange(200) >= hits).astype(np.int64), LABELS, "t")
        for form, hits in (("float", float_hits), ("deployed", deployed_hits))
    )


def test_budgets_are_met_at_their_limit_and_missed_beyond() -> None:
    budgets = Budgets(accuracy_drop_points=0.5, size_bytes=900, agreement_percent=99.0)
    agreement = share("prediction agreement", np.arange(200) < 198, "t")
    checks, notes = check_budgets(budgets, Figures(rows(190, 189), agreement, None, SIZE))
    assert [check.met for check in checks] == [True, True, True]
    assert notes == ()
    checks, _ = check_budgets(budgets, Figures(rows(190, 188), agreement, None, SIZE))
    assert [check.met for check in checks] == [False, True, True]


def test_a_budget_that_cannot_be_checked_is_not_met_and_said() -> None:
    budgets = Budgets(
        accuracy_drop_points=1, agreement_percent=9, latency_ms=LatencyBudget(max=1.0)
    )
    checks, notes = check_budgets(budgets, Figures((), None, None, SIZE))
    assert [(check.met, check.value, check.kind) for check in checks] == [(False, None, None)] * 3
    assert [check.limit for check in checks] == [1, 9, 1.0]
    assert [note.split(" ")[0] for note in notes] == [
        "accuracy_drop_points",
        "agreement_percent",
        "latency_ms",
    ]


def test_an_estimated_time_is_no_percentile() -> None:
    device = device_result().device
    assert device is not None
    assert device.time is not None
    budgets = Budgets(latency_ms=LatencyBudget(max=1e6, percentile="p99"))
    checks, _ = check_budgets(budgets, Figures((), None, None, SIZE, device))
    found = checks[0]
    assert (found.name, found.kind, found.met) == ("time, estimated", Kind.ESTIMATED, True)
    assert found.value == device.time.value


def test_percentiles_lie_in_their_intervals_and_repeat() -> None:
    samples = np.random.default_rng(1).gamma(2.0, 1.0, 300).tolist()
    first, second = (latency_series("deployed", samples, "t", {}) for _ in range(2))
    assert first == second
    assert first.median.value == np.median(samples)
    for found in (first.median, first.p90, first.p99):
        assert found.interval is not None
        assert found.interval.low <= found.value <= found.interval.high


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.lists(st.integers(-128, 127), max_size=5),
        max_size=4,
    )
)
def test_arrays_survive_with_any_name(
    tmp_path_factory: pytest.TempPathFactory, named: dict[str, list[int]]
) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.npz"
    arrays = {name: np.array(values, np.int8) for name, values in named.items()}
    save_arrays(path, arrays)
    first = path.read_bytes()
    save_arrays(path, arrays)
    assert path.read_bytes() == first
    again = load_arrays(path)
    assert list(again) == list(arrays)
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


def test_damaged_arrays_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_arrays(path, {"a": np.arange(100)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CacheError, match="--force"):
        load_arrays(path)


def test_a_plan_writes_files_and_runs_commands_there(tmp_path: Path) -> None:
    command = Command((sys.executable, "-c", "open('made', 'w').write(open('a/in').read() * 2)"))
    products = execute_plan(BuildPlan({"a/in": b"xy"}, (command,), "made"), tmp_path)
    assert (Path(products.folder) / products.main).read_text() == "xyxy"


def test_a_failing_command_names_its_log(tmp_path: Path) -> None:
    command = Command((sys.executable, "-c", "print('broken input'); raise SystemExit(4)"))
    with pytest.raises(ToolFailedError, match=r"exit status 4\n.*build\.log"):
        execute_plan(BuildPlan({}, (command,)), tmp_path)
    assert "broken input" in (tmp_path / "build.log").read_text()


def test_a_hanging_command_is_stopped(tmp_path: Path) -> None:
    command = Command((sys.executable, "-c", "import time; time.sleep(60)"), timeout_s=0.2)
    with pytest.raises(ToolFailedError, match="did not finish"):
        execute_plan(BuildPlan({}, (command,)), tmp_path)


def test_a_missing_program_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError, match=r"'no-such-gcc' is not installed"):
        execute_plan(BuildPlan({}, (Command(("no-such-gcc",)),)), tmp_path)


@pytest.mark.parametrize("name", ["../out", "/elsewhere/out", "a/../../out"])
def test_a_plan_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside of its folder"):
        execute_plan(BuildPlan({name: b""}), tmp_path)
