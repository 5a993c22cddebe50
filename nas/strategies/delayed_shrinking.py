"""`delayed-shrinking`: large sub-networks first, smaller ones as training goes on.

Choices beyond the first open one after the other; by half of the training all are open. Source:
Annavajjala et al., "DepS: Delayed epsilon-Shrinking for Faster Once-For-All Training", ECCV 2024,
and the progressive shrinking of Cai et al., "Once-for-All", ICLR 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from edgesmith.nas.elastic import Dimension
from edgesmith.nas.strategies.base import Draw, Strategy

_ALL_OPEN = 0.5  # share of the training


@dataclass(frozen=True)
class DelayedShrinking(Strategy):
    """Every choice that is open equally likely."""

    name: ClassVar[str] = "delayed-shrinking"

    def architecture(self, draw: Draw) -> dict[str, int]:
        chosen = {
            each.name: each.choices[int(draw.generator.integers(_open(each, draw.done)))]
            for each in draw.elastic.dimensions
        }
        return draw.elastic.canonical(chosen)

    def smallest(self, draw: Draw) -> dict[str, int]:
        last = {e.name: e.choices[_open(e, draw.done) - 1] for e in draw.elastic.dimensions}
        return draw.elastic.canonical(last)


def _open(dimension: Dimension, done: float) -> int:
    """How many of its choices may be drawn."""
    closed = len(dimension.choices) - 1
    return 1 + min(closed, math.ceil(closed * done / _ALL_OPEN))
