"""Running: what is executed, what comes from the cache, and what failures leave behind."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgesmith.pipeline.cache import Cache, key_of
from edgesmith.pipeline.errors import (
    CacheError,
    EdgesmithError,
    ExitCode,
    PluginError,
    SpecError,
    StageError,
    ToolMissingError,
)
from edgesmith.pipeline.planner import PlannedStep, Status, plan
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.runner import Runner, RunOptions, RunRecord
from edgesmith.pipeline.spec import Spec
from edgesmith.pipeline.stage import Progress, SilentProgress, Stage, StageContext, stage_seed
from edgesmith.pipeline.steps import steps_of
from edgesmith.pipeline.summary import print_summary
from edgesmith.pipeline.tools import Tool
from tests.pipeline.world import SPEC, Board, behave, load, ran, registries

ALL = ["make", "count", "fit@plain-board", "report@plain-board"]


@dataclass
class Notes:
    """An observer that keeps what it hears."""

    finished_steps: list[tuple[str, bool, tuple[str, ...]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, label: str) -> Iterator[Progress]:
        yield SilentProgress()

    def finished(
        self, label: str, seconds: float, *, cached: bool, why: tuple[str, ...] = ()
    ) -> None:
        self.finished_steps.append((label, cached, why))

    def note(self, message: str) -> None:
        self.messages.append(message)


@dataclass
class Place:
    """A folder with a spec, a cache and run folders."""

    folder: Path
    found: Registries = field(default_factory=registries)
    notes: Notes = field(default_factory=Notes)

    def run(
        self, text: str = SPEC, targets: tuple[str, ...] = ("plain-board",), **options: object
    ) -> RunRecord:
        spec = load(self.folder, text)
        with Cache(self.folder / "cache") as cache:
            runner = Runner(spec, self.found, cache, self.folder / "runs", self.notes)
            return runner.run(targets, RunOptions(**options))  # type: ignore[arg-type]

    def plan(
        self,
        text: str = SPEC,
        targets: tuple[str, ...] = ("plain-board",),
        start: str | None = None,
        force: tuple[str, ...] = (),
    ) -> dict[str, PlannedStep]:
        cache = Cache(self.folder / "cache")
        spec = load(self.folder, text)
        steps = plan(spec, targets, self.found, cache, start=start, force=force)
        return {step.stage: step for step in steps}

    def ran(self) -> list[str]:
        return ran(self.folder)

    def files(self, stage: str) -> Path:
        with Cache(self.folder / "cache") as cache:
            target = "plain-board" if stage in {"fit", "report"} else None
            record = cache.latest("small", stage, target)
            assert record is not None
            return cache.outputs_of(record)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_run_executes_everything_once_and_then_nothing(place: Place) -> None:
    record = place.run()
    assert place.ran() == ALL
    assert record.exit_code is ExitCode.OK
    assert (place.folder / "runs/small/plain-board/result.json").is_file()
    seed = stage_seed(7, "fit")
    artifact = place.folder / "runs/small/plain-board/artifact.bin"
    assert artifact.read_text() == f"plain-board 3 {seed}"
    again = place.run()
    assert place.ran() == []
    assert [step.cached for step in again.steps] == [True] * 4
    assert [step.key for step in again.steps] == [step.key for step in record.steps]


def test_a_stage_sees_the_records_of_all_stages_before_it(place: Place) -> None:
    place.run()
    result = (place.folder / "runs/small/plain-board/result.json").read_text()
    for name in ("make", "count", "fit"):
        assert f'"{name}"' in result


def test_targets_share_what_does_not_depend_on_them(place: Place) -> None:
    place.run(targets=("plain-board", "other-board"))
    assert place.ran() == [*ALL, "fit@other-board", "report@other-board"]


def test_a_changed_parameter_runs_the_stage_and_stops_where_outputs_are_equal(
    place: Place,
) -> None:
    place.run()
    place.ran()
    text = SPEC.replace("text: abc", "text: xyz")  # of the same length: `count` gives the same
    planned = place.plan(text)
    assert planned["make"].status is Status.RUN
    assert planned["make"].why == ('parameter text: "abc" -> "xyz"',)
    assert planned["count"].status is Status.DEPENDS
    assert planned["count"].why == ("depends on make, which will run",)
    assert planned["report"].why == ("depends on fit, which will run",)
    place.run(text)
    assert place.ran() == ["make", "count"]
    assert {step.status for step in place.plan(text).values()} == {Status.CACHED}


def test_going_back_to_an_earlier_parameter_is_cached(place: Place) -> None:
    place.run()
    place.run(SPEC.replace("text: abc", "text: abcdef"))
    place.ran()
    place.run()
    assert place.ran() == []


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("{width: 8}", "{width: 9}", "model args: {'width': 8} -> {'width': 9}"),
        ("seed: 7", "seed: 8", f"seed: {stage_seed(7, 'make')} -> {stage_seed(8, 'make')}"),
    ],
)
def test_the_plan_names_the_part_that_changed(place: Place, old: str, new: str, part: str) -> None:
    place.run()
    assert place.plan(SPEC.replace(old, new))["make"].why == (part,)


def test_the_plan_of_an_empty_cache_writes_nothing(place: Place) -> None:
    planned = place.plan()
    assert {step.status for step in planned.values()} == {Status.RUN}
    assert planned["make"].why == ("it never ran for this spec",)
    assert not (place.folder / "cache").exists()


def test_another_target_description_is_another_key(place: Place) -> None:
    place.run()
    place.ran()

    class Bigger(Board):
        ram = 2048

    place.found = registries(Bigger)
    planned = place.plan()
    assert planned["count"].status is Status.CACHED
    assert planned["fit"].why == ("target ram_bytes: 1024 -> 2048",)
    place.run()
    assert place.ran() == ["fit@plain-board", "report@plain-board"]


def test_a_new_version_of_a_stage_is_another_key(place: Place) -> None:
    place.run()
    kind = place.found.stages.get("make")
    newer = type("Newer", (kind,), {"version": 2, "__module__": kind.__module__})
    place.found = replace(place.found, stages=place.found.stages.plus({"make": newer}))
    assert place.plan()["make"].why == ("version: 1 -> 2",)


def test_force_runs_one_stage_and_from_all_after_it(place: Place) -> None:
    place.run()
    place.ran()
    place.run(force=("count",))
    assert place.ran() == ["count"]
    place.run(start="count")
    assert place.ran() == ["count", "fit@plain-board", "report@plain-board"]
    planned = place.plan(start="count")
    assert planned["make"].status is Status.CACHED
    assert planned["fit"].why == ("--from count",)
    assert place.plan(force=("make",))["make"].why == ("--force make",)


def test_explain_says_why_each_stage_ran(place: Place) -> None:
    place.run()
    place.run(SPEC.replace("text: abc", "text: abcd"), explain=True)
    reasons = {label: why for label, _, why in place.notes.finished_steps[4:]}
    assert reasons["make"] == ('parameter text: "abc" -> "abcd"',)
    assert len(reasons["count"]) == 1
    assert reasons["count"][0].startswith("input make: ")


@pytest.mark.parametrize("options", [{"force": ("cuont",)}, {"start": "cuont"}])
def test_an_option_that_names_no_stage_is_an_error(
    place: Place, options: dict[str, object]
) -> None:
    with pytest.raises(SpecError, match="did you mean 'count'"):
        place.run(**options)  # type: ignore[arg-type]


def test_an_unknown_target_is_an_error(place: Place) -> None:
    with pytest.raises(SpecError, match="did you mean 'plain-board'"):
        place.run(targets=("plane-board",))


class Missing(Board):
    """Needs a program that is nowhere."""

    def tools(self) -> Sequence[Tool]:
        return (Tool("no-such-gcc", "apt install gcc"),)


def test_a_missing_tool_is_said_before_the_first_stage(place: Place) -> None:
    place.found = registries(Missing)
    with pytest.raises(ToolMissingError, match=r"no-such-gcc.*needed by target 'plain-board'"):
        place.run(targets=("other-board", "plain-board"))
    assert place.ran() == []
    place.run(targets=("other-board",))
    assert place.ran()[0] == "make"


def test_the_summary_says_the_notes_of_a_result(place: Place) -> None:
    record = place.run()
    console = Console(file=io.StringIO(), width=200)
    print_summary(record, console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line for line in lines if line.startswith("plain-board: ")] == [
        f"plain-board: {stage}" for stage in ("count", "fit", "make")
    ]


def test_a_missed_budget_decides_the_exit_code(place: Place) -> None:
    text = SPEC.replace("{accuracy_drop_points: 0.5", "{size_bytes: 1, accuracy_drop_points: 0.5")
    record = place.run(text)
    assert record.exit_code is ExitCode.BUDGET_MISSED
    assert [target.ok for target in record.targets] == [False]


@pytest.mark.parametrize("damage", ["changed", "truncated", "missing", "added", "record"])
def test_damaged_outputs_are_discarded_and_made_again(place: Place, damage: str) -> None:
    first = place.run()
    place.ran()
    file = place.files("make") / "deep" / "text.txt"
    file.chmod(0o644)
    if damage == "changed":
        file.write_text("axc")  # same size: only the digest tells
    elif damage == "truncated":
        file.write_text("")
    elif damage == "missing":
        file.unlink()
    elif damage == "added":
        (file.parent / "more").touch()
    else:
        key = first.steps[0].key
        record = place.folder / "cache/objects" / key[:2] / key / "record.json"
        record.write_text(record.read_text()[:100])
    again = place.run(explain=True)
    assert place.ran() == ["make"]
    assert any("discarded" in message for message in place.notes.messages)
    assert any("damaged" in why for _, _, reasons in place.notes.finished_steps for why in reasons)
    assert (place.files("make") / "deep" / "text.txt").read_text() == "abc"
    assert [step.digest for step in again.steps] == [step.digest for step in first.steps]


def test_a_record_under_another_key_is_not_believed(place: Place) -> None:
    first = place.run()
    one, two = first.steps[0].key, first.steps[1].key
    objects = place.folder / "cache/objects"
    stolen = (objects / two[:2] / two / "record.json").read_text()
    (objects / one[:2] / one / "record.json").write_text(stolen)
    place.ran()
    place.run()
    assert place.ran() == ["make"]


def test_outputs_cannot_be_changed_by_accident_nor_through_the_run_folder(place: Place) -> None:
    place.run()
    cached = place.files("report") / "artifact.bin"
    assert cached.stat().st_mode & 0o222 == 0
    shown = place.folder / "runs/small/plain-board/artifact.bin"
    shown.write_text("edited")
    assert cached.read_text() != "edited"
    place.run()
    assert shown.read_text() == cached.read_text()


@pytest.mark.parametrize(("given", "found"), [(None, "care"), ("haste", "haste")])
def test_what_libraries_read_once_is_set_before_any_stage(
    place: Place, monkeypatch: pytest.MonkeyPatch, given: str | None, found: str
) -> None:
    """By a stage that comes later; users have the last word."""
    monkeypatch.setenv("COUNTED_WITH", given or "")
    if given is None:
        monkeypatch.delenv("COUNTED_WITH")
    behave(place.folder, "make:raise")
    with pytest.raises(StageError):
        place.run()
    assert place.ran() == ["make"]
    assert os.environ["COUNTED_WITH"] == found


def test_an_exception_becomes_a_stage_error_and_is_logged(place: Place) -> None:
    load(place.folder)
    behave(place.folder, "count:raise")
    with pytest.raises(StageError, match=r"count.*RuntimeError: something") as caught:
        place.run()
    log = Path(caught.value.fix.split(" is in ")[1].split(";")[0])
    assert "Traceback" in log.read_text()
    assert "at work on count" in log.read_text()
    assert place.ran() == ["make", "count"]
    behave(place.folder, "")
    place.run()
    assert place.ran() == ["count", "fit@plain-board", "report@plain-board"]


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("exit", "ES700", "SystemExit"),
        ("tool", "ES501", "compiler crashed"),
        ("full", "ES600", "no space left"),
        ("link", "ES700", "no links"),
    ],
)
def test_each_failure_has_its_code_and_leaves_the_cache_valid(
    place: Place, what: str, code: str, words: str
) -> None:
    load(place.folder)
    behave(place.folder, f"make:{what}")
    with pytest.raises(EdgesmithError, match=words) as caught:
        place.run()
    assert caught.value.code == code
    assert list((place.folder / "cache/tmp").iterdir()) == []
    assert not (place.folder / "cache/objects").exists()
    behave(place.folder, "")
    place.run()
    assert place.ran() == ["make", *ALL]


def test_an_interrupt_leaves_the_cache_valid(place: Place) -> None:
    load(place.folder)
    behave(place.folder, "fit@plain-board:interrupt")
    with pytest.raises(KeyboardInterrupt):
        place.run()
    place.ran()
    behave(place.folder, "")
    place.run()
    assert place.ran() == ["fit@plain-board", "report@plain-board"]


def test_a_target_that_fails_does_not_stop_the_others(place: Place) -> None:
    load(place.folder)
    behave(place.folder, "fit@plain-board:tool")
    record = place.run(targets=("plain-board", "other-board"))
    assert record.exit_code is ExitCode.STAGE_FAILED
    failed, fine = record.targets
    assert failed.error is not None
    assert "ES501" in failed.error
    assert fine.ok
    assert (place.folder / "runs/small/other-board/report.html").is_file()
    assert "report@plain-board" not in place.ran()


def test_a_full_disk_stops_the_whole_run(place: Place) -> None:
    load(place.folder)
    behave(place.folder, "fit@plain-board:full")
    with pytest.raises(CacheError, match="no space left"):
        place.run(targets=("plain-board", "other-board"))


@pytest.mark.parametrize("what", ["cache", "runs"])
def test_a_place_that_cannot_be_written_is_an_error_with_a_fix(place: Place, what: str) -> None:
    (place.folder / what).write_text("a file in the place of the folder")
    with pytest.raises(CacheError, match="--cache and --out"):
        place.run()


def test_a_full_disk_while_the_record_is_written(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(CacheError, match="no space left"):
            place.run()
    assert place.plan()["make"].status is Status.RUN
    place.ran()
    place.run()
    assert place.ran() == ALL


class Circle(Stage):
    """Needs itself through another."""

    name = "make"

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("count",)

    def run(self, context: StageContext) -> None:
        raise NotImplementedError


class Upside(Circle):
    """Runs once but needs a per-target stage."""

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("alone",)


class Alone(Circle):
    """Runs per target and needs nothing."""

    name = "alone"
    per_target = True

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ()


class Thief(Stage):
    """Names a key part that the framework names."""

    name = "make"

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        return {"seed": "1"}

    def run(self, context: StageContext) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(("kind", "words"), [(Circle, "each other"), (Thief, "'seed'")])
def test_stages_that_do_not_fit_are_named(place: Place, kind: type[Stage], words: str) -> None:
    place.found = replace(place.found, stages=place.found.stages.plus({"make": kind}))
    with pytest.raises(PluginError, match=words):
        place.plan(SPEC.replace("stages:\n  - stage: make\n    text: abc\n", ""))


def test_a_shared_stage_cannot_need_one_per_target(place: Place) -> None:
    found = place.found.stages.plus({"make": Upside, "alone": Alone})
    text = SPEC.replace("    text: abc\n", "")
    spec = load(place.folder, text)
    with pytest.raises(PluginError, match="runs per target"):
        steps_of(spec, ("plain-board",), replace(place.found, stages=found))


PARTS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=6)


@given(PARTS, st.randoms(use_true_random=False))
def test_a_key_does_not_depend_on_the_order_of_its_parts(
    parts: dict[str, str], random: Random
) -> None:
    shuffled = list(parts.items())
    random.shuffle(shuffled)
    assert key_of(dict(shuffled)) == key_of(parts)


@given(PARTS, PARTS)
def test_different_parts_have_different_keys(one: dict[str, str], two: dict[str, str]) -> None:
    assert (key_of(one) == key_of(two)) == (one == two)


@given(st.integers(0, 2**63 - 1), st.sampled_from(ALL))
def test_seeds_of_stages_are_their_own(seed: int, stage: str) -> None:
    assert 0 <= stage_seed(seed, stage) < 2**32
    assert stage_seed(seed, stage) == stage_seed(seed, stage)
    assert stage_seed(seed, stage) != stage_seed(seed + 1, stage)
