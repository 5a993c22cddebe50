"""Which allocation to prune to, decided by training several for a moment.

A saliency says what the loss is before fine-tuning, layer by layer. What a layer's width is worth
after it is another question, and no formula answers it for every model; still less what a whole
residual block is worth. So allocations of the same cost that rank the layers differently, or do
without blocks, are trained for a few epochs each; half of the trials go to them, and half to
neighbours of the best so far: one group wider or a block more, others narrower. The selection split
decides. (Widths chosen by measured accuracy at a measured cost: NetAdapt, arXiv:1804.03230.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic

from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.prune.options import Trials
from edgesmith.prune.selection import Choice, Price, Report, Selection, saliency_lost

Accuracy = Callable[[Choice], float]
_DRAWS = 50
"""Neighbours that are drawn in vain before trials end: a small model has few of them."""


def log_lost(gone: float, stays: float, whole: float) -> float:
    """Redundancy runs out: what is left of a group is worth the more, the less it is."""
    return whole * share_lost(gone, stays, whole)


def root_log_lost(gone: float, stays: float, whole: float) -> float:
    """As `log_lost`, with groups weighed less unlike each other."""
    return math.sqrt(whole) * share_lost(gone, stays, whole)


def share_lost(gone: float, stays: float, whole: float) -> float:
    """Groups weigh the same, whatever their saliency: close to uniform widths."""
    if gone <= 0:
        return 0.0
    return math.log((gone + stays) / max(stays, _LEAST * gone))


PRICES: tuple[Price, ...] = (saliency_lost, log_lost, root_log_lost, share_lost)
_LEAST = 1e-12  # where nothing stays, the loss is large but finite


@dataclass(frozen=True)
class Tried:
    """The best allocation, and the selection accuracies of all, in the order of the trials."""

    choice: Choice
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Trial:
    """Steps taken in each group, and the accuracy after a short training."""

    rung: dict[str, int]
    accuracy: float


@dataclass(frozen=True)
class _Made:
    trials: tuple[Trial, ...]


class KnownTrials:
    """Trials of one round that an interrupted run has made: the same ones are asked for again.

    Args:
        folder: of the checkpoint; None remembers nothing.
        number: of the round.

    Raises:
        CacheError: what is there cannot be read.
    """

    def __init__(self, folder: Path | None, number: int) -> None:
        self._path = None if folder is None else folder / f"trials-{number}.json"
        self._found: list[Trial] = []
        if self._path is not None and self._path.exists():
            try:
                self._found = list(from_json(_Made, self._path.read_bytes()).trials)
            except (OSError, pydantic.ValidationError) as error:
                raise unreadable(self._path.parent, error) from error

    def accuracy(self, choice: Choice) -> float | None:
        """What a trial reached; None if it was not made."""
        rung = dict(choice.rung)
        return next((each.accuracy for each in self._found if each.rung == rung), None)

    def add(self, choice: Choice, accuracy: float) -> None:
        """Write a trial down."""
        self._found.append(Trial(dict(choice.rung), accuracy))
        if self._path is not None:
            with cache_errors(self._path.parent):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                made = to_json(_Made(tuple(self._found)))
                write_atomically(self._path, made.encode())


def unreadable(folder: Path, error: Exception) -> CacheError:
    """What to say about a checkpoint that is damaged."""
    return CacheError(
        f"the pruning checkpoint in {folder} cannot be read: {type(error).__name__}",
        fix="delete the folder; pruning starts again",
    )


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
        UnreachableCostError, PruningError: as `Selection.reach`; beside them what measuring
            costs and `accuracy` raise.
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

    for price, dropped in _starts(selection.blocks()):
        if len(found) < max(1, options.candidates // 2):
            attempt(selection.reach(goal, report, price, dropped))
    vain = 0
    while len(found) < options.candidates and vain < _DRAWS:
        # Where neighbours of the best are all known, those of others may not be.
        other = found[generator.integers(len(found))][1]
        from_here = other if vain > _DRAWS // 2 else _best(found)
        vain = 0 if attempt(selection.near(from_here, goal, generator, share_lost)) else vain + 1
    return Tried(_best(found), tuple(each for each, _ in found))


def _starts(blocks: Sequence[str]) -> Iterator[tuple[Price, Sequence[str]]]:
    """By turns another price with all blocks, and one block less with all groups alike."""
    shallower = ((share_lost, blocks[:count]) for count in range(1, len(blocks) + 1))
    for pair in itertools.zip_longest(((price, ()) for price in PRICES), shallower):
        yield from (start for start in pair if start is not None)


def _best(found: list[tuple[float, Choice]]) -> Choice:
    """Of equals the earliest."""
    return max(found, key=lambda each: each[0])[1]
