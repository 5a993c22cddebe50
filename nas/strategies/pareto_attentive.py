"""`pareto-attentive`: of sub-networks of about one size, the worst on the present batch.

What lies furthest below the front is trained most. Source: WorstUp with the loss of the mini-batch
as performance estimator, Wang et al., "AttentiveNAS", CVPR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgesmith.nas.strategies.base import Draw, Strategy
from edgesmith.nas.strategies.complexity_aware import nearest

COMPARED = 3


@dataclass(frozen=True)
class ParetoAttentive(Strategy):
    """The largest loss among equally large sub-networks."""

    name: ClassVar[str] = "pareto-attentive"

    def architecture(self, draw: Draw) -> dict[str, int]:
        return max(nearest(draw, COMPARED), key=draw.loss)
