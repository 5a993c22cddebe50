"""`uniform`: every choice of every dimension equally likely (Yu et al., BigNAS, 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgesmith.nas.strategies.base import Draw, Strategy


@dataclass(frozen=True)
class Uniform(Strategy):
    """Choices drawn independently."""

    name: ClassVar[str] = "uniform"

    def architecture(self, draw: Draw) -> dict[str, int]:
        return draw.any()
