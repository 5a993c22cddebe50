"""A tuning loop that is not ours, run so that its best trial is kept whatever ends it.

Neural Compressor's `autotune` returns a model only where its own condition to stop is met:
when its recipes run out before, when a trial or the evaluation fails, or when time is up, all
trials are lost. Here every trial is recorded by the evaluation function that the loop calls,
which also ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from torch import nn

from edgesmith.pipeline.errors import EdgesmithError, QuantizationError
from edgesmith.quantize.engines.options import Tuning
from edgesmith.quantize.engines.values import Trial

T = TypeVar("T")

Evaluate = Callable[[nn.Module], float]
Loop = Callable[[Evaluate], object]


@dataclass(frozen=True)
class Tuned(Generic[T]):
    """The best trial's result, all trials in order, and why there are no more."""

    best: T
    trials: tuple[Trial, ...]
    baseline: float
    ended: str


class _EndedError(Exception):
    """Leaves the loop; the message says why."""


def keep_best(
    loop: Loop,
    score: Callable[[nn.Module, str], tuple[T, float]],
    score_float: Callable[[], float],
    recipes: Sequence[str],
    tuning: Tuning,
    clock: Callable[[], float] = monotonic,
) -> Tuned[T]:
    """Run a tuning loop.

    Args:
        loop: calls its argument with the float model first, then with each trial's model, in the
            order of `recipes`.
        score: what a trial's model becomes, and its accuracy in percent.
        clock: seconds.

    Raises:
        QuantizationError: no trial succeeded; its cause is what failed last.
    """
    recorder = _Recorder(score, score_float, recipes, tuning, clock)
    cause: Exception | None = None
    try:
        loop(recorder.evaluate)
        ended = "its own condition was met, or it had no more recipes"
    except _EndedError as end:
        ended = str(end)
    except Exception as error:  # whatever a foreign loop raises must not cost its trials
        cause = error
        ended = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        recorder.failed(ended)
    if recorder.best is None and isinstance(cause, EdgesmithError):
        raise cause
    if recorder.best is None:
        raise QuantizationError(
            f"none of the recipes {', '.join(recipes)} could be tried: {ended}",
            fix="try them singly, without `tune`, or quantize with `engine: edgesmith`",
        ) from cause
    return Tuned(recorder.best[0], tuple(recorder.trials), recorder.baseline, ended)


class _Recorder(Generic[T]):
    def __init__(
        self,
        score: Callable[[nn.Module, str], tuple[T, float]],
        score_float: Callable[[], float],
        recipes: Sequence[str],
        tuning: Tuning,
        clock: Callable[[], float],
    ) -> None:
        self.trials: list[Trial] = []
        self.best: tuple[T, float] | None = None
        self.baseline = 0.0
        self._score, self._score_float = score, score_float
        self._recipes, self._tuning, self._clock = recipes, tuning, clock
        self._start = clock()
        self._begun = False

    def evaluate(self, model: nn.Module) -> float:
        """What the loop calls, with the float model first."""
        if not self._begun:
            self._begun = True
            self.baseline = self._score_float()
            return self.baseline
        recipe = self._recipes[len(self.trials)]
        made, accuracy = self._score(model, recipe)
        self.trials.append(Trial(recipe, accuracy))
        # Of equally good ones the first stays.
        if self.best is None or accuracy > self.best[1]:
            self.best = (made, accuracy)
        tolerated = self.baseline * (1.0 - self._tuning.tolerable_loss_percent / 100.0)
        if accuracy >= tolerated:
            raise _EndedError("the tolerable loss was met")
        if len(self.trials) >= min(self._tuning.max_trials, len(self._recipes)):
            raise _EndedError(f"{len(self.trials)} recipes were tried")
        if self._seconds() >= self._tuning.max_seconds:
            raise _EndedError(f"{self._tuning.max_seconds:g} s were over")
        return accuracy

    def failed(self, reason: str) -> None:
        """The trial under way ended in an exception."""
        if len(self.trials) < len(self._recipes):
            recipe = self._recipes[len(self.trials)]
            self.trials.append(Trial(recipe, None, reason))

    def _seconds(self) -> float:
        return self._clock() - self._start
