"""The search loop: deterministic, resumable at any point, unmoved by candidates that fail."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edgesmith.nas.archive import Archive, read_archive
from edgesmith.nas.driver import HOPELESS, search
from edgesmith.nas.executors.base import Choices, Executor
from edgesmith.nas.executors.serial import Serial
from edgesmith.nas.values import Constraint, Found, Metrics, Task
from edgesmith.pipeline.errors import (
    EvaluationError,
    NothingEvaluatedError,
    SearchError,
    UnsupportedError,
)
from edgesmith.pipeline.jsonvalue import to_json
from edgesmith.pipeline.stage import Progress, SilentProgress
from tests.nas.driver.searches import (
    SEEDS,
    SPACE,
    Backwards,
    Counting,
    NoneNeeded,
    Stopped,
    Unseeded,
    Walk,
    metrics_of,
    task,
)

EVALUATIONS = 18
FACTS = {"model": "m"}


def run(
    path: Path,
    make: Counting,
    executor: Executor | None = None,
    what: Task | None = None,
    *,
    rule: str = "knee",
    progress: Progress | None = None,
) -> Found:
    with Archive.opened(path, SPACE, FACTS) as archive:
        return search(
            what or task(evaluations=EVALUATIONS),
            Walk(),
            make,
            executor or Serial(),
            archive,
            progress or SilentProgress(),
            rule=rule,
            provenance={"samples": "500"},
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evaluations.jsonl"


class Labels(SilentProgress):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int | None]] = []

    def report(self, label: str, done: int, total: int | None) -> None:
        self.seen.append((label, done, total))


def test_a_search_evaluates_every_candidate_once_in_the_order_of_asking(path: Path) -> None:
    make = Counting()
    found = run(path, make)
    assert [trial.number for trial in found.trials] == list(range(EVALUATIONS))
    assert [trial.choices for trial in found.trials] == make.seen
    assert len({SPACE.of(each) for each in make.seen}) == EVALUATIONS
    assert found.trials[0].origin == "seed: trained model"
    assert found.trials[0].metrics == {**metrics_of(make.seen[0]), "bytes": 64.0}
    assert found.trials[0].provenance == {"samples": "500"}
    assert list(read_archive(path, SPACE, FACTS).known.values()) == list(found.trials)


def test_it_is_deterministic_whatever_order_results_arrive_in(path: Path) -> None:
    again = path.with_name("again.jsonl")
    assert run(path, Counting()) == run(again, Counting(), Backwards())
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("after", range(EVALUATIONS))
def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(path: Path, after: int) -> None:
    whole, stopped = Counting(), Counting()
    expected = run(path.with_name("whole.jsonl"), whole)
    with pytest.raises(KeyboardInterrupt):
        run(path, stopped, Stopped(after=after))
    assert len(stopped.seen) == after
    assert to_json(run(path, stopped)) == to_json(expected)
    assert stopped.seen == whole.seen
    assert path.read_bytes() == path.with_name("whole.jsonl").read_bytes()


def test_a_finished_search_starts_nothing(path: Path) -> None:
    expected = run(path, Counting())
    make = Counting()
    assert run(path, make, NoneNeeded()) == expected
    assert not make.seen


def test_a_damaged_line_is_evaluated_again_and_reported(path: Path) -> None:
    expected = run(path, Counting())
    lines = path.read_bytes().splitlines(keepends=True)
    lines[5] = b"{" + lines[5]
    path.write_bytes(b"".join(lines))
    make = Counting()
    found = run(path, make)
    assert found.trials == expected.trials
    assert make.seen == [expected.trials[4].choices]
    assert (found.corrupted, len(found.notes)) == (1, 1)
    assert "6" in found.notes[0]


def test_another_sampler_or_seed_uses_what_is_known(path: Path) -> None:
    first = run(path, Counting())
    make = Counting()
    found = run(path, make, what=task(evaluations=EVALUATIONS, seed=2))
    assert [trial.number for trial in found.trials] == list(range(EVALUATIONS))
    asked = [trial.choices for trial in found.trials]
    known = [trial.choices for trial in first.trials]
    assert make.seen == [each for each in asked if each not in known]


def test_what_another_search_found_is_taken_over(path: Path) -> None:
    """Into an archive of its own, which is the same as if everything had been evaluated for it."""
    run(path, Counting())
    asked = task(evaluations=EVALUATIONS, seed=2)
    alone, beside = path.with_name("alone.jsonl"), path.with_name("beside.jsonl")
    expected = run(alone, Counting(), what=asked)
    make = Counting()
    with Archive.opened(beside, SPACE, FACTS, [path, path.with_name("none.jsonl")]) as archive:
        shown = SilentProgress()
        facts = {"samples": "500"}
        found = search(asked, Walk(), make, Serial(), archive, shown, provenance=facts)
    assert found == expected
    assert 0 < len(make.seen) < EVALUATIONS
    assert beside.read_bytes() == alone.read_bytes()


def test_the_front_and_what_is_chosen(path: Path) -> None:
    found = run(path, Counting())
    points = [(each.metrics["bytes"], -each.metrics["accuracy"]) for each in found.trials]
    front = {
        number
        for number, (size, loss) in enumerate(points)
        if not any(s <= size and a <= loss and (s, a) != (size, loss) for s, a in points)
    }
    assert set(found.front) == front
    accuracy = [found.trials[number].metrics["accuracy"] for number in found.front]
    assert accuracy == sorted(accuracy, reverse=True)
    assert found.chosen in found.front
    assert found.marks == {"trained model": 0, "smallest": 1, "uniform int4": 2}
    assert list(found.hypervolume) == sorted(found.hypervolume)
    assert 0 < found.hypervolume[-1] <= 1
    assert found.ideal == (min(loss for _, loss in points), min(size for size, _ in points))
    assert found.nadir == (max(loss for _, loss in points), max(size for size, _ in points))
    assert not found.nearest_miss
    assert found.predictors[0].evaluations == EVALUATIONS


def test_the_best_in_one_metric_can_be_chosen_within_the_limits(path: Path) -> None:
    limited = task(Constraint("bytes", "most", 32), evaluations=EVALUATIONS)
    best = run(path, Counting(), what=limited, rule="best:accuracy")
    assert best.chosen is not None
    within = [each for each in best.trials if each.metrics["bytes"] <= 32]
    assert best.trials[best.chosen].metrics["accuracy"] == max(
        each.metrics["accuracy"] for each in within
    )
    assert set(best.front) <= {each.number for each in within}
    small = run(path, Counting(), what=limited, rule="best:bytes")
    assert small.chosen is not None
    assert small.trials[small.chosen].metrics["bytes"] == 8


@pytest.mark.parametrize("rule", ["best:latency", "best", "fastest"])
def test_a_rule_that_says_nothing_is_refused_at_once(path: Path, rule: str) -> None:
    make = Counting()
    with pytest.raises(SearchError) as caught:
        run(path, make, rule=rule)
    assert f"`{rule}`" in caught.value.message
    assert caught.value.fix == "write knee or best:accuracy or best:bytes"
    assert not make.seen


def narrow_fails(choices: Choices) -> Metrics | None:
    if choices["width:a"] == 8:
        raise UnsupportedError("no kernel is that narrow", fix="widen it")
    return None


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (narrow_fails, "ES410: no kernel is that narrow"),
        (lambda each: {"accuracy": math.nan} if each["width:a"] == 8 else None, "accuracy is nan"),
        (lambda each: {"accuracy": math.inf} if each["width:a"] == 8 else None, "accuracy is inf"),
        (lambda each: {} if each["width:a"] == 8 else None, "the evaluation gave no accuracy"),
    ],
)
def test_a_candidate_that_fails_is_a_failed_trial(path: Path, trouble: object, error: str) -> None:
    found = run(path, Counting(trouble))  # type: ignore[arg-type]
    failed = [each for each in found.trials if each.choices["width:a"] == 8]
    assert failed
    assert failed == [each for each in found.trials if each.failed]
    assert {each.error for each in failed} == {error}
    assert not any(each.metrics for each in failed)
    assert found.marks == {"trained model": 0, "uniform int4": 2}
    assert not {each.number for each in failed} & set(found.front)
    share = f"{len(failed)} of {EVALUATIONS} evaluations failed, most often: {error}"
    assert found.notes == (share,)
    make = Counting()
    assert run(path, make) == found
    assert not make.seen


def always_fails(choices: Choices) -> Metrics | None:
    raise UnsupportedError("no accelerator", fix="plug it in")


def test_a_search_whose_seeds_all_fail_is_given_up(path: Path) -> None:
    with pytest.raises(NothingEvaluatedError) as caught:
        run(path, Counting(always_fails))
    assert caught.value.message == (
        f"all {len(SEEDS)} evaluations failed, most often: ES410: no accelerator"
    )
    assert str(path) in caught.value.fix


def test_a_search_is_given_up_after_many_failures_without_seeds(path: Path) -> None:
    many = task(evaluations=EVALUATIONS)
    seedless = Task(SPACE, many.objectives, (), many.computed, (), EVALUATIONS, 1)
    with Archive.opened(path, SPACE, FACTS) as archive, pytest.raises(NothingEvaluatedError):
        search(seedless, Unseeded(), Counting(always_fails), Serial(), archive, SilentProgress())
    assert len(read_archive(path, SPACE, FACTS).known) == HOPELESS


def test_a_defect_stops_the_search_and_keeps_what_there_is(path: Path) -> None:
    left = iter(range(7))

    def defect(choices: Choices) -> Metrics | None:
        if next(left, None) is None:
            raise IndexError("list index out of range")
        return None

    with pytest.raises(EvaluationError, match="IndexError: list index out of range") as caught:
        run(path, Counting(defect))
    assert "Traceback" in caught.value.__notes__[0]
    assert len(read_archive(path, SPACE, FACTS).known) == 7


def test_where_nothing_is_feasible_the_nearest_miss_is_named(path: Path) -> None:
    limits = Constraint("bytes", "most", 4), Constraint("accuracy", "least", 0.1)
    found = run(path, Counting(), what=task(*limits, evaluations=EVALUATIONS))
    assert (found.front, found.chosen) == ((), None)
    assert found.nearest_miss == {"bytes": (8.0, 4.0)}
    assert set(found.hypervolume) == {0.0}
    sizes = [found.trials[number].metrics["bytes"] for number in found.marks.values()]
    assert (found.ideal[1], found.nadir[1]) == (min(sizes), max(sizes))


def test_progress_says_what_is_best(path: Path) -> None:
    labels = Labels()
    found = run(path, Counting(), progress=labels)
    assert [each[1:] for each in labels.seen] == [(n, EVALUATIONS) for n in range(EVALUATIONS + 1)]
    best = max(each.metrics["accuracy"] for each in found.trials)
    assert labels.seen[-1][0] == f"searching: best accuracy {best:.4g}"
    limited = task(Constraint("bytes", "most", 4), evaluations=EVALUATIONS)
    run(path, Counting(), what=limited, progress=labels)
    assert labels.seen[-1][0] == "searching: nothing within the limits yet"


def test_fewer_evaluations_than_are_asked_for_at_once(path: Path) -> None:
    make = Counting()
    found = run(path, make, what=task(evaluations=2))
    assert len(found.trials) == len(make.seen) == 2
