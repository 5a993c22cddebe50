"""Which allocation to prune to, decided by training several for a moment.

A saliency says what the loss is before fine-tuning, layer by layer. What a layer's width is worth
after it is another question, and no formula answers it for every model. So allocations of the
same cost that rank the layers differently are trained for a few epochs each; half of the trials
go to them, and half to neighbours of the best so far: one group wider, others narrower. The
selection split decides. (Widths chosen by measured accuracy at a measured cost: NetAdapt,
arXiv:1804.03230.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgesmith.prune.options import Trials
from edgesmith.prune.selection import Choice, Price, Report, Selection, saliency_lost

Accuracy = Callable[[Choice], float]
_DRAWS = 50
"""Neighbours that are drawn in vain before trials end: a small model has few of them."""


def log_lost(before: float, after: float, whole: float) -> float:
    """Redundancy runs out: what is left of a group is worth the more, the less it is."""
    return whole * _log_ratio(before, after)


def root_log_lost(before: float, after: float, whole: float) -> float:
    """As `log_lost`, with groups weighed less unlike each other."""
    return math.sqrt(whole) * _log_ratio(before, after)


def share_lost(before: float, after: float, whole: float) -> float:
    """Groups weigh the same, whatever their saliency: close to uniform widths."""
    return _log_ratio(before, after)


PRICES: tuple[Price, ...] = (saliency_lost, log_lost, root_log_lost, share_lost)


def _log_ratio(before: float, after: float) -> float:
    """Of nothing, nothing can be lost."""
    if before <= 0:
        return 0.0
    return math.log(before / max(after, 1e-12 * before))


@dataclass(frozen=True)
class Tried:
    """The best allocation, and the selection accuracies of all, in the order of the trials."""

    choice: Choice
    accuracies: tuple[float, ...]


def best_allocation(
    selection: Selection,
    goal: float,
    accuracy: Accuracy,
    options: Trials,
    *,
    seed: int,
    report: Report | None = None,
) -> Tried:
    """Try allocations that cost at most `goal`; the first one is that of saliency alone.

    Args:
        accuracy: trains an allocation for a moment, and measures it.

    Raises:
        UnreachableCostError, PruningError: as `Selection.reach`.
    """
    generator = np.random.default_rng(seed)
    found: list[tuple[float, Choice]] = []

    def attempt(choice: Choice | None) -> bool:
        if choice is None or any(choice.plan == other.plan for _, other in found):
            return False
        found.append((accuracy(choice), choice))
        if report is not None:
            report("trying allocations", len(found), options.candidates)
        return True

    for price in PRICES:
        if len(found) < max(1, options.candidates // 2):
            attempt(selection.reach(goal, price=price))
    vain = 0
    while len(found) < options.candidates and vain < _DRAWS:
        # Where neighbours of the best are all known, those of others may not be.
        other = found[generator.integers(len(found))][1]
        from_here = other if vain > _DRAWS // 2 else _best(found)
        vain = 0 if attempt(selection.near(from_here, goal, generator)) else vain + 1
    return Tried(_best(found), tuple(each for each, _ in found))


def _best(found: list[tuple[float, Choice]]) -> Choice:
    """Of equals the earliest."""
    return max(found, key=lambda each: each[0])[1]
