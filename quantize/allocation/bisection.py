"""The cheapest allocation whose measured accuracy meets a bound, in few measurements.

Bisection over a front, which is ordered by predicted loss. Measured accuracy is not quite
monotone in that order, so it is repaired: a point counts as good as the best that was measured at
no more cost, because that one can take its place. Where bisection ends, the next cheaper points
are probed as well. Whatever happens, the best point so far is in the result.

Source of the repair: isotonic bounds by running maximum (Barlow et al., "Statistical Inference
under Order Restrictions", 1972).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgesmith.pipeline.errors import UnreachableAccuracyError
from edgesmith.quantize.allocation.front import Front
from edgesmith.quantize.allocation.problem import Solution

Evaluate = Callable[[Solution], float]


@dataclass(frozen=True)
class Trial:
    """One measured point of a front, by its position in it."""

    point: int
    accuracy: float


@dataclass(frozen=True)
class Bisection:
    """What was measured, in order, and the choice.

    Args:
        bound: the accuracy that was asked for, in the unit of the trials.
        chosen: position in the front: the cheapest measured point that meets the bound, or the
            most accurate one where none does.
        met: whether it does.
    """

    bound: float
    trials: tuple[Trial, ...]
    chosen: int
    met: bool

    @property
    def accuracy(self) -> float:
        """Of the chosen point."""
        return next(each.accuracy for each in self.trials if each.point == self.chosen)

    def require(self) -> None:
        """Refuse a result below the bound.

        Raises:
            UnreachableAccuracyError: names the most accurate point measured.
        """
        if not self.met:
            raise UnreachableAccuracyError(
                f"no allocation of {len(self.trials)} that were measured reaches an accuracy of"
                f" {self.bound:g}; the best one, number {self.chosen} of the front, has"
                f" {self.accuracy:g}",
                fix=f"lower the bound to {self.accuracy:g}, or offer wider formats",
            )


def bisect(
    front: Front,
    bound: float,
    evaluate: Evaluate,
    *,
    most: int = 12,
    probes: int = 2,
    seen: Callable[[Trial], None] | None = None,
) -> Bisection:
    """The cheapest point of a front that meets an accuracy bound.

    Args:
        bound: least accuracy, in the unit of `evaluate`.
        evaluate: measures the accuracy of a choice; called once per point.
        most: measurements, at most; at least one is made.
        probes: cheaper points that are tried after bisection, in a row without success.
        seen: told of every trial as it is made.
    """
    search = _Search(front, bound, evaluate, max(most, 1), seen)
    # The most expensive point may fail where a cheaper one passes: only probing shows that.
    passing = len(front.solutions) - 1
    failing = -1 if search.passes(passing) else passing
    while passing - failing > 1 and search.may_measure():
        middle = (failing + passing) // 2
        if search.passes(middle):
            passing = middle
        else:
            failing = middle
    search.probe(probes)
    return search.result()


class _Search:
    """The measurements so far."""

    def __init__(
        self,
        front: Front,
        bound: float,
        evaluate: Evaluate,
        most: int,
        seen: Callable[[Trial], None] | None,
    ) -> None:
        self._front, self._bound, self._evaluate = front, bound, evaluate
        self._most, self._seen = most, seen
        self._found: dict[int, float] = {}

    def may_measure(self) -> bool:
        return len(self._found) < self._most

    def passes(self, point: int) -> bool:
        """Whether a point, or a cheaper one in its place, meets the bound."""
        if point not in self._found:
            accuracy = float(self._evaluate(self._front.solutions[point]))
            self._found[point] = accuracy
            if self._seen is not None:
                self._seen(Trial(point, accuracy))
        return any(a >= self._bound for p, a in self._found.items() if p <= point)

    def best_passing(self) -> int | None:
        return min((p for p, a in self._found.items() if a >= self._bound), default=None)

    def probe(self, probes: int) -> None:
        """Try unmeasured points, from the cheapest passing one (or the end) downwards."""
        left = probes
        while left and self.may_measure():
            below = self.best_passing()
            top = len(self._front.solutions) if below is None else below
            point = next((p for p in range(top - 1, -1, -1) if p not in self._found), None)
            if point is None:
                return
            left = probes if self.passes(point) else left - 1

    def result(self) -> Bisection:
        trials = tuple(Trial(point, accuracy) for point, accuracy in self._found.items())
        passing = self.best_passing()
        if passing is not None:
            return Bisection(self._bound, trials, passing, met=True)
        # Of equally accurate ones, the cheapest.
        best = max(self._found, key=lambda point: (self._found[point], -point))
        return Bisection(self._bound, trials, best, met=False)
