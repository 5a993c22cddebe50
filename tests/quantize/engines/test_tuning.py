"""The best trial is kept whatever ends a loop: its own end, the budgets, or an exception."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from torch import nn

from edgesmith.pipeline.errors import DataError, QuantizationError
from edgesmith.quantize.engines.options import Tuning
from edgesmith.quantize.engines.tuning import Evaluate, Tuned, keep_best

RECIPES = ("first", "second", "third", "fourth")
MODEL = nn.Identity()


class Clock:
    """Each look is `step` seconds later."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def loop_of(trials: int, failing: int | None = None) -> Callable[[Evaluate], None]:
    """A loop as Neural Compressor's, which returns nothing unless its own condition is met."""

    def loop(evaluate: Evaluate) -> None:
        evaluate(MODEL)
        for trial in range(trials):
            if trial == failing:
                raise RuntimeError("cannot convert\nand more")
            evaluate(MODEL)

    return loop


def run(
    accuracies: Sequence[float | Exception],
    tuning: Tuning,
    loop: Callable[[Evaluate], object] | None = None,
    clock: Callable[[], float] | None = None,
    baseline: float = 90.0,
) -> Tuned[str]:
    given: Iterator[float | Exception] = iter(accuracies)

    def score(model: nn.Module, recipe: str) -> tuple[str, float]:
        found = next(given)
        if isinstance(found, Exception):
            raise found
        return recipe, found

    return keep_best(
        loop or loop_of(len(RECIPES)),
        score,
        lambda: baseline,
        RECIPES,
        tuning,
        clock or Clock(0.0),
    )


NEVER = Tuning(tolerable_loss_percent=0.0)


def test_all_recipes_are_tried_and_the_best_is_kept() -> None:
    found = run([50.0, 70.0, 70.0, 60.0], NEVER)
    assert found.best == "second"
    assert [trial.accuracy_percent for trial in found.trials] == [50.0, 70.0, 70.0, 60.0]
    assert found.ended == "4 recipes were tried"
    assert found.baseline == 90.0


def test_one_trial_is_enough_for_a_result() -> None:
    found = run([50.0], Tuning(max_trials=1, tolerable_loss_percent=0.0))
    assert (found.best, len(found.trials)) == ("first", 1)


def test_a_small_loss_ends_it() -> None:
    found = run([80.0, 89.2], Tuning(tolerable_loss_percent=1.0))
    assert (found.best, found.ended) == ("second", "the tolerable loss was met")


def test_a_loop_that_runs_out_of_recipes_keeps_the_best() -> None:
    """What loses everything in the loop itself."""
    found = run([60.0, 40.0], NEVER, loop_of(2))
    assert found.best == "first"
    assert "no more recipes" in found.ended


def test_time_ends_it_behind_the_trial_under_way() -> None:
    found = run(
        [60.0, 70.0, 80.0], Tuning(max_seconds=2.0, tolerable_loss_percent=0.0), clock=Clock(1.0)
    )
    assert (found.best, found.ended) == ("second", "2 s were over")


def test_a_slow_first_trial_still_counts() -> None:
    found = run([60.0], Tuning(max_seconds=1.0, tolerable_loss_percent=0.0), clock=Clock(100.0))
    assert (found.best, found.ended) == ("first", "1 s were over")


def test_an_evaluation_that_raises_late_costs_no_earlier_trial() -> None:
    found = run([60.0, 75.0, ValueError("no memory")], NEVER)
    assert found.best == "second"
    assert found.ended == "ValueError: no memory"
    assert found.trials[2].failure == found.ended
    assert found.trials[2].accuracy_percent is None


def test_a_recipe_that_cannot_be_converted_costs_no_earlier_trial() -> None:
    found = run([60.0], NEVER, loop_of(4, failing=1))
    assert found.best == "first"
    assert found.ended == "RuntimeError: cannot convert"


def test_no_trial_at_all_is_an_error() -> None:
    with pytest.raises(QuantizationError, match="RuntimeError: cannot convert") as raised:
        run([], NEVER, loop_of(4, failing=0))
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_an_error_of_ours_stays_what_it_is() -> None:
    with pytest.raises(DataError, match="labels"):
        run([DataError("labels do not fit", fix="correct them")], NEVER)


def test_an_interrupted_run_is_interrupted() -> None:
    def loop(evaluate: Evaluate) -> None:
        evaluate(MODEL)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([], NEVER, loop)
