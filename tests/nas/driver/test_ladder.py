"""The rungs above the search, on made-up evaluations that are noisy at first and exact then."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from edgesmith.nas import ladder
from edgesmith.nas.archive import Archive
from edgesmith.nas.driver import search
from edgesmith.nas.executors.base import Choices, Evaluation
from edgesmith.nas.executors.serial import Serial
from edgesmith.nas.found import revised
from edgesmith.nas.run import _infeasible
from edgesmith.nas.space import Choice
from edgesmith.nas.values import ACCURACY, Constraint, Found, Metrics, Objective, Rung, Task
from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.pipeline.stage import SilentProgress
from tests.nas.driver.searches import SPACE, Walk, metrics_of, size_of, task

RULE = "best:bytes"
ALL = 500
FACTS = {"samples": str(ALL), "seed": "3"}


def exact(choices: Choices) -> Metrics:
    return {**metrics_of(choices), **size_of(SPACE.of(choices))}


def noisy(choices: Choices) -> Metrics:
    known = exact(choices)
    noise = zlib.crc32(repr(sorted(choices.items())).encode()) / 2**32 - 0.5
    return {**known, ACCURACY: known[ACCURACY] + 0.1 * noise}


def evaluating(evaluate: Evaluation) -> Evaluation:
    return evaluate


def found_by(evaluate: Evaluation, asked: Task, folder: Path, rule: str = RULE) -> Found:
    with Archive.opened(folder / "trials.jsonl", SPACE, {}) as archive:
        make = partial(evaluating, evaluate)
        return search(asked, Walk(), make, Serial(), archive, SilentProgress(), rule=rule)


def confirmed(before: Found, asked: Task, folder: Path) -> tuple[Found, Rung]:
    with Archive.opened(folder / "confirmed.jsonl", SPACE, {}) as archive:
        make = partial(evaluating, exact)
        shown = SilentProgress()
        return ladder.confirmed(before, asked, RULE, make, Serial(), archive, shown, FACTS)


def trained(
    before: Found, asked: Task, numbers: tuple[int, ...], evaluate: Evaluation, folder: Path
) -> tuple[Found, Rung, tuple[int, ...]]:
    with Archive.opened(folder / "trained.jsonl", SPACE, {}) as archive:
        shown = SilentProgress()
        return ladder.trained(before, asked, RULE, numbers, evaluate, archive, shown, FACTS)


def test_the_front_consists_of_what_was_scored_on_all_samples(tmp_path: Path) -> None:
    before = found_by(noisy, task(), tmp_path)
    after, rung = confirmed(before, task(), tmp_path)
    assert set(after.front) <= set(rung.accuracy)
    assert set(before.front) <= set(rung.accuracy)
    assert len(rung.accuracy) < len(before.trials)
    for number in rung.accuracy:
        trial = after.trials[number]
        assert trial.metrics == exact(trial.choices)
        assert trial.provenance == FACTS
        assert trial.number == number
        assert trial.origin == before.trials[number].origin
    for number in set(range(len(before.trials))) - set(rung.accuracy):
        assert after.trials[number] == before.trials[number]
    assert (rung.name, rung.samples) == (ladder.ALL, ALL)
    assert rung.tau is not None
    assert after.chosen in after.front


def test_scoring_again_goes_on_where_it_was(tmp_path: Path) -> None:
    before = found_by(noisy, task(), tmp_path)
    first = confirmed(before, task(), tmp_path)
    with Archive.opened(tmp_path / "confirmed.jsonl", SPACE, {}) as archive:
        shown = SilentProgress()
        again = ladder.confirmed(before, task(), RULE, unable, Serial(), archive, shown, FACTS)
    assert again == first


def unable() -> Evaluation:
    raise AssertionError("nothing is evaluated twice")


def least(limit: float) -> Task:
    return task(Constraint(ACCURACY, "least", limit))


def improved(choices: Choices) -> Metrics:
    known = exact(choices)
    return {**known, ACCURACY: known[ACCURACY] + 0.05}


def test_finalists_are_the_choice_and_cheaper_ones_that_may_get_there(tmp_path: Path) -> None:
    asked = least(0.9)
    before = found_by(exact, asked, tmp_path)
    assert before.chosen is not None
    numbers = ladder.finalists(before, asked, RULE, 3, 0.05)
    assert before.chosen in numbers
    costs = [before.trials[n].metrics["bytes"] for n in numbers]
    assert costs == sorted(costs)
    assert all(before.trials[n].metrics[ACCURACY] >= 0.85 for n in numbers)
    after, rung, order = trained(before, asked, numbers, improved, tmp_path)
    assert after.chosen == numbers[0] == order[0]
    assert set(order) == set(numbers)
    assert set(rung.accuracy) == set(numbers)
    assert after.trials == before.trials
    assert rung.tau is None or rung.tau == pytest.approx(1.0)


def test_training_can_bring_within_the_limits_what_nothing_was(tmp_path: Path) -> None:
    asked = least(0.99)
    before = found_by(exact, asked, tmp_path)
    assert before.chosen is None
    assert before.nearest_miss
    assert ladder.finalists(before, asked, RULE, 3, 0.0) == ()
    numbers = ladder.finalists(before, asked, RULE, 3, 0.2)
    after, _, _ = trained(before, asked, numbers, improved, tmp_path)
    assert after.chosen in numbers
    assert after.nearest_miss == {}


def test_what_training_leaves_short_is_the_nearest_miss(tmp_path: Path) -> None:
    """Not what it was before: that is nearer now."""
    asked = least(1.5)
    before = found_by(exact, asked, tmp_path)
    numbers = ladder.finalists(before, asked, RULE, 3, 1.0)
    after, rung, _ = trained(before, asked, numbers, improved, tmp_path)
    assert after.chosen is None
    assert after.nearest_miss == {ACCURACY: (max(rung.accuracy.values()), 1.5)}
    assert after.nearest_miss[ACCURACY][0] > before.nearest_miss[ACCURACY][0]


def test_finalists_are_cheap_in_what_the_rule_is_about(tmp_path: Path) -> None:
    """The last objective is another cost, which falls where the rule's rises."""
    asked = least(0.9)
    both = (*asked.objectives, Objective("room", "lower"))
    asked = replace(asked, objectives=both)

    def evaluate(choices: Choices) -> Metrics:
        known = exact(choices)
        return {**known, "room": -known["bytes"]}

    before = found_by(evaluate, asked, tmp_path)
    assert before.chosen is not None
    numbers = ladder.finalists(before, asked, RULE, 3, 0.05)
    costs = [before.trials[n].metrics["bytes"] for n in numbers]
    assert costs == sorted(costs)
    assert before.chosen in numbers


def test_judged_by_loss_the_choice_is_a_finalist_though_a_less_accurate_one_beats_it(
    tmp_path: Path,
) -> None:
    """Whose loss and cost are less, but whose accuracy is below the limit before training."""
    asked = least(0.9)
    asked = replace(asked, objectives=(Objective("loss", "lower"), asked.objectives[1]))

    def evaluate(choices: Choices) -> Metrics:
        known = exact(choices)
        return {**known, "loss": known["bytes"] / 100}

    before = found_by(evaluate, asked, tmp_path)
    assert before.chosen is not None
    loosened = least(0.9 - 0.2).constraints
    beyond = revised(before, replace(asked, constraints=loosened), before.trials, RULE)
    assert before.chosen not in beyond.front
    numbers = ladder.finalists(before, asked, RULE, 3, 0.2)
    assert {before.chosen, beyond.chosen} <= set(numbers)


def test_finalists_beside_the_most_accurate_are_the_next_cheaper_ones(tmp_path: Path) -> None:
    """It is the dearest of the front, so that there are none beyond it."""
    asked, rule = task(), "best:accuracy"
    before = found_by(exact, asked, tmp_path, rule)
    front = sorted(before.front, key=lambda number: before.trials[number].metrics["bytes"])
    assert before.chosen == front[-1]
    assert len(front) > 3
    assert ladder.finalists(before, asked, rule, 3, 1.0) == tuple(front[-3:])
    assert ladder.finalists(before, asked, rule, 1, 1.0) == (front[-1],)
    assert ladder.finalists(before, asked, rule, len(front) + 1, 1.0) == tuple(front)


def test_the_choice_stays_where_training_helps_nobody(tmp_path: Path) -> None:
    asked = least(0.9)
    before = found_by(exact, asked, tmp_path)
    numbers = ladder.finalists(before, asked, RULE, 3, 0.05)
    after, _, _ = trained(before, asked, numbers, exact, tmp_path)
    assert after.chosen == before.chosen


@pytest.mark.parametrize("failing", [1, 3])
def test_training_that_fails_is_no_evidence(failing: int, tmp_path: Path) -> None:
    asked = least(0.9)
    before = found_by(exact, asked, tmp_path)
    numbers = ladder.finalists(before, asked, RULE, 3, 0.05)
    bad = [before.trials[n].choices for n in numbers[:failing]]
    evaluate = failing_for(bad)
    after, rung, _ = trained(before, asked, numbers, evaluate, tmp_path)
    assert set(rung.accuracy) == set(numbers[failing:])
    if failing < len(numbers):
        assert after.chosen in numbers[failing:]
        assert after.notes[-1].startswith("training finalists: 1 of 3 evaluations failed")
        return
    assert after.chosen == before.chosen
    assert "finalists could not be trained" in after.notes[-1]
    assert "diverged" in after.notes[-1]


def failing_for(bad: list[dict[str, Choice]]) -> Callable[[Choices], Metrics]:
    def evaluate(choices: Choices) -> Metrics:
        if choices in bad:
            raise UnsupportedError("training diverged", fix="lower the learning rate")
        return improved(choices)

    return evaluate


def test_missed_accuracy_names_the_options_that_it_follows_from(tmp_path: Path) -> None:
    before = found_by(exact, least(0.5), tmp_path)
    for metric, named in (("accuracy", True), ("bytes", False)):
        error = _infeasible(replace(before, nearest_miss={metric: (82.9, 86.3)}))
        assert f"{metric} 82.9 against 86.3" in error.message
        assert ("`recovers_points`" in error.fix) == named
