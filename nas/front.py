"""Pareto fronts and their hypervolume, of losses: less is better in every column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pymoo.indicators.hv import HV

from edgesmith.nas.space import Floats

Indices = npt.NDArray[np.intp]
_BEYOND = 1.1
_LEAST_GAIN = 1e-9


def nondominated(losses: Floats) -> Indices:
    """Rows of losses [N, K] that no other row dominates, ascending; equal rows all stay.

    A row dominates another that it exceeds nowhere and is below somewhere.
    """
    # In this order no row is dominated by a later one, so each that is left at its turn stays.
    left = np.lexsort(losses.T[::-1])
    kept = []
    while len(left):
        first, rest = losses[left[0]], losses[left[1:]]
        kept.append(left[0])
        beaten = (rest >= first).all(axis=1) & (rest > first).any(axis=1)
        left = left[1:][~beaten]
    return np.sort(np.array(kept, dtype=np.intp))


def fronts(losses: Floats, violations: Floats) -> list[Indices]:
    """All rows, the better ones first, feasibility before everything else (Deb, 2000).

    Args:
        losses: [N, K].
        violations: [N], 0 where feasible.

    Returns:
        The front of the feasible rows, the front of the others, and so on; then the infeasible
        ones by violation, those with the same violation together.
    """
    found = []
    left = np.flatnonzero(violations <= 0)
    while len(left):
        front = left[nondominated(losses[left])]
        found.append(front)
        left = np.setdiff1d(left, front)
    worse = violations[violations > 0]
    return found + [np.flatnonzero(violations == each) for each in np.unique(worse)]


def ranked(losses: Floats, violations: Floats, most: int | None = None) -> Indices:
    """Row numbers, best first: front by front, each spread as widely as it goes.

    Args:
        losses: [N, K].
        violations: [N], 0 where feasible.
        most: how many are wanted; all if not given.
    """
    wanted = len(losses) if most is None else most
    order: list[Indices] = []
    for front in fronts(losses, violations):
        order.append(front[spread(losses[front], wanted)])
        wanted -= len(order[-1])
        if wanted <= 0:
            break
    return np.concatenate(order) if order else np.empty(0, dtype=np.intp)


def hypervolume(losses: Floats, ideal: Sequence[float], nadir: Sequence[float]) -> float:
    """Share of the box between `ideal` and `nadir` that losses [N, K] dominate.

    Points beyond the box count as if they lay on its side; a side without length is reached by
    everything at or below it.
    """
    low, high = np.asarray(ideal, dtype=np.float64), np.asarray(nadir, dtype=np.float64)
    points = _scaled(losses, low, high).clip(0.0, 1.0)
    inside = points[(points < 1).all(axis=1)]
    return float(HV(ref_point=np.ones(len(low)))(inside)) if len(inside) else 0.0


def hypervolume_curve(
    losses: Floats, violations: Floats, ideal: Sequence[float], nadir: Sequence[float]
) -> list[float]:
    """Hypervolume of the feasible rows among the first 1, 2, ... N.

    Args:
        losses: [N, K]; rows of failed trials may be anything, with an infinite violation.
        violations: [N], 0 where feasible.
    """
    curve: list[float] = []
    front, volume = np.empty((0, len(ideal))), 0.0
    for row, violation in zip(losses, violations, strict=True):
        if violation <= 0 and not (front <= row).all(axis=1).any():
            front = np.vstack([front[(front < row).any(axis=1)], row])
            volume = hypervolume(front, ideal, nadir)
        curve.append(volume)
    return curve


def knee(losses: Floats) -> int:
    """Row of a front [N, K] that is farthest below the chord between its ends.

    Losses are scaled to their range first; with more than two, the chord is the plane through the
    ends of the axes. Of equals the first.

    Raises:
        ValueError: no rows.
    """
    if not len(losses):
        raise ValueError("an empty front has no knee")
    scaled = _scaled(losses, losses.min(axis=0), losses.max(axis=0))
    return int(scaled.sum(axis=1).round(12).argmin())


def spread(losses: Floats, count: int) -> Indices:
    """`count` rows of a front [N, K] that lie far from each other, in order of choice.

    First the least of every loss, then always the row that is farthest, in losses scaled to their
    range, from those already chosen; of equals the first. All rows if there are no more.
    """
    if count <= 0 or not len(losses):
        return np.empty(0, dtype=np.intp)
    scaled = _scaled(losses, losses.min(axis=0), losses.max(axis=0))
    # Of rows with the same least loss, the best in the others.
    ends = [int(np.lexsort((scaled.sum(axis=1), column))[0]) for column in scaled.T]
    chosen = list(dict.fromkeys(ends))[:count]
    gaps = np.min([_distances(scaled, at) for at in chosen], axis=0)
    while len(chosen) < min(count, len(losses)):
        gaps[chosen] = -1.0
        chosen.append(int(gaps.argmax()))
        gaps = np.minimum(gaps, _distances(scaled, chosen[-1]))
    return np.array(chosen, dtype=np.intp)


def improving(losses: Floats, known: Floats, count: int) -> Indices:
    """Up to `count` rows of losses [N, K] that add most hypervolume to a known front [M, K].

    One after the other, each with those before in the front; none that adds nothing. The box
    reaches from the least to a tenth of the range beyond the largest loss of both fronts.
    """
    rows = nondominated(losses)
    if not len(rows):
        return rows
    both = np.vstack([losses[rows], known[nondominated(known)]])
    scaled = _scaled(both, both.min(axis=0), both.max(axis=0))
    points, front = scaled[: len(rows)], scaled[len(rows) :]
    chosen: list[int] = []
    gains = np.array([_gain(point, front) for point in points])
    while len(chosen) < min(count, len(rows)) and gains.max() > _LEAST_GAIN:
        chosen.append(int(gains.argmax()))
        front = np.vstack([front, points[chosen[-1]]])
        # A gain only becomes less, so that those without need no second look.
        for at in np.flatnonzero(gains > _LEAST_GAIN):
            gains[at] = _gain(points[at], front)
    return rows[chosen]


def _gain(point: Floats, front: Floats) -> float:
    """Hypervolume below `_BEYOND` that a point [K] adds to a front [M, K], which may be empty."""
    own = float(np.prod(_BEYOND - point))
    if not len(front):
        return own
    volume = HV(ref_point=np.full(len(point), _BEYOND))
    return own - float(volume(np.maximum(front, point)))


def _scaled(losses: Floats, low: Floats, high: Floats) -> Floats:
    """Losses [N, K] with `low` at 0 and `high` at 1; sides without length: 0, above them 1."""
    length = high - low
    flat = length <= 0
    scaled: Floats = (losses - low) / np.where(flat, 1.0, length)
    return np.where(flat, (losses > low).astype(np.float64), scaled)


def _distances(points: Floats, at: int) -> Floats:
    distances: Floats = np.linalg.norm(points - points[at], axis=1)
    return distances
