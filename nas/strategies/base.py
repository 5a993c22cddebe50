"""What a sampling strategy is: which sub-network the next pass of training looks at.

Strategies keep no state, so that training resumes exactly: what they know comes with each draw. One
that learns as training goes on makes a `Learner`, whose state is in every checkpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgesmith.nas.elastic import Architecture, Elastic
from edgesmith.nas.space import Candidate, Floats

if TYPE_CHECKING:
    from edgesmith.nas.joint import Joint
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

    def smallest(self, draw: Draw) -> dict[str, int]:
        """The smallest sub-network that is trained by now: every step ends with it."""
        return draw.elastic.smallest()

    def learner(self, joint: Joint) -> Learner | None:
        """What draws in place of `architecture`, if the strategy learns."""
        return None


class Learner(ABC):
    """Draws sub-networks with their formats, and is told how well they did."""

    @abstractmethod
    def candidate(self, generator: np.random.Generator) -> Candidate:
        """Of the next pass."""

    @abstractmethod
    def learn(self, candidate: Candidate, loss: float, done: float) -> None:
        """Take note of the pass of what was drawn last.

        Args:
            loss: how far it was from the largest sub-network.
            done: share of the training that is over, in [0, 1).
        """

    @abstractmethod
    def favourites(self) -> dict[str, Candidate]:
        """What it thinks most of, by what for: the search begins with them."""

    @abstractmethod
    def state(self) -> dict[str, Floats]:
        """Everything it has learned."""

    @abstractmethod
    def restore(self, state: dict[str, Floats]) -> None:
        """Go on from there."""


def strategies() -> Registry[Strategy]:
    """All strategies, by name."""
    from edgesmith.pipeline.registry import Registry

    package, group = "edgesmith.nas.strategies", "edgesmith.strategies"
    return Registry("strategy", package, group, Strategy)  # type: ignore[type-abstract]
