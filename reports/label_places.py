"""Where labels of points in a plot go so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

_WIDTH, _HEIGHT = 1000.0, 400.0  # pixels of a plot on a wide screen
_LETTER, _LINE, _MARKER = 6.2, 14.0, 9.0
_PLACES = {
    "bottom center": (-0.5, -1.0),
    "top center": (-0.5, 1.0),
    "middle right": (0.0, 0.0),
    "middle left": (-1.0, 0.0),
}
"""Plotly's `textposition` -> where the text begins, in its widths, and lies, in its heights."""


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: _Box) -> bool:
        beside = self.right <= other.left or other.right <= self.left
        apart = self.top <= other.bottom or other.top <= self.bottom
        return not (beside or apart)


def label_places(
    points: Sequence[Point], labels: Sequence[str], others: Sequence[Point] = ()
) -> list[str]:
    """A `textposition` for every label in turn; empty where every place is taken.

    Args:
        points: of the labels, in 0..1 of the plot's width and height.
        others: markers that no label may cover either.
    """
    taken = [_marker(point) for point in (*points, *others)]
    found = []
    for point, label in zip(points, labels, strict=True):
        boxes = {place: _box(point, len(label) * _LETTER, place) for place in _PLACES}
        free = (p for p, box in boxes.items() if not any(box.meets(each) for each in taken))
        place = next(free, "")
        if place:
            taken.append(boxes[place])
        found.append(place)
    return found


def _marker(point: Point) -> _Box:
    x, y, half = point[0] * _WIDTH, point[1] * _HEIGHT, _MARKER / 2
    return _Box(x - half, y - half, x + half, y + half)


def _box(point: Point, width: float, place: str) -> _Box:
    across, up = _PLACES[place]
    aside = 0.0 if up else _MARKER * (1 if across == 0 else -1)
    left = point[0] * _WIDTH + across * width + aside
    bottom = point[1] * _HEIGHT - _LINE / 2 + up * (_LINE / 2 + _MARKER)
    return _Box(left, bottom, left + width, bottom + _LINE)
