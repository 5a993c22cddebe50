"""What a sampling strategy is: which sub-network the next pass of training looks at.

Strategies keep no state, so that training resumes exactly: what they know comes with each draw.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgesmith.nas.elastic import Architecture, Elastic

if TYPE_CHECKING:
    from edgesmith.pipeline.registry import Registry


@dataclass(frozen=True, eq=False)
class Draw:
    """What one draw may go by.

    Args:
        done: share of the training that is over, in [0, 1).
        macs: multiply-accumulates of a sub-network.
        loss: of a sub-network on samples of the present batch; costs a pass without gradient.
    """

    elastic: Elastic
    generator: np.random.Generator
    done: float
    macs: Callable[[Architecture], int]
    loss: Callable[[Architecture], float]

    def any(self) -> dict[str, int]:
        """Every choice equally likely."""
        return self.elastic.drawn(self.generator)


@dataclass(frozen=True)
class Strategy(ABC):
    """One way to draw sub-networks."""

    name: ClassVar[str]

    @abstractmethod
    def architecture(self, draw: Draw) -> dict[str, int]:
        """The sub-network of the next pass, canonical."""


def strategies() -> Registry[Strategy]:
    """All strategies, by name."""
    from edgesmith.pipeline.registry import Registry

    package, group = "edgesmith.nas.strategies", "edgesmith.strategies"
    return Registry("strategy", package, group, Strategy)  # type: ignore[type-abstract]
