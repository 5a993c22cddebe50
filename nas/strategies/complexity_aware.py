"""`complexity-aware`: sizes equally likely, not choices.

Choices drawn independently give sub-networks of nearly one size: a sum of many. Here a size is
drawn first, uniformly between the smallest and the largest sub-network, and of a few draws the one
that lies closest to it is taken.

Source of sampling by a target complexity: Wang et al., "AttentiveNAS", CVPR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgesmith.nas.strategies.base import Draw, Strategy

CANDIDATES = 8


@dataclass(frozen=True)
class ComplexityAware(Strategy):
    """The draw closest to a uniformly drawn number of multiply-accumulates."""

    name: ClassVar[str] = "complexity-aware"

    def architecture(self, draw: Draw) -> dict[str, int]:
        return nearest(draw, 1)[0]


def nearest(draw: Draw, count: int) -> list[dict[str, int]]:
    """So many draws closest to a uniformly drawn size, closest first."""
    small, large = (draw.macs(a) for a in (draw.elastic.smallest(), draw.elastic.whole()))
    wanted = draw.generator.uniform(small, large)
    found = [_scaled(draw, (wanted - small) / max(large - small, 1)) for _ in range(CANDIDATES)]
    return sorted(found, key=lambda each: abs(draw.macs(each) - wanted))[:count]


def _scaled(draw: Draw, size: float) -> dict[str, int]:
    """Choices drawn around a share of each dimension, 0 its least and 1 its largest.

    Independent choices alone would hardly ever reach the ends.
    """
    chosen = {}
    for each in draw.elastic.dimensions:
        last = len(each.choices) - 1
        place = (1 - size) * last + draw.generator.normal(0, 0.5 + last / 4)
        chosen[each.name] = each.choices[min(max(round(place), 0), last)]
    return draw.elastic.canonical(chosen)
