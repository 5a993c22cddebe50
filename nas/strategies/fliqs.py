"""`fliqs`: what is drawn is learned with the weights.

A policy for each of a few sizes draws sub-networks together with their formats, and is rewarded for
those that come close to the largest one at that size. So training dwells on what a search would
choose, and the policies' favourites are where the search begins.

Source: Dotzel et al., "FLIQS: One-Shot Mixed-Precision Floating-Point and Integer Quantization
Search", arXiv:2308.03290, whose absolute reward for size is that of TuNAS. Learning is faster here,
and advantages are in units of their spread: a training is a few thousand steps, not a hundred
thousand, and losses are of any model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgesmith.nas.controller import Controller
from edgesmith.nas.space import Candidate, Floats
from edgesmith.nas.strategies.base import Draw, Learner, Strategy
from edgesmith.quantize.allocation.costs import BIT_OPERATIONS

if TYPE_CHECKING:
    from edgesmith.nas.joint import Joint

TARGETS = (0.1, 0.25, 0.5)
"""Shares of the trained model's bit operations in its widest formats."""
_BETA = 1.0
_RATE = 0.05
_ENTROPY = 0.2
"""Of a policy that is certain at the end, in those units; rises by half a cosine."""
_AVERAGE = 0.95
_WARM = 0.25
"""Share of the training in which nothing is learned yet: weights that are new rank nothing."""
_TINY = 1e-8


@dataclass(frozen=True)
class Fliqs(Strategy):
    """Policies that are learned with the weights; the formats are theirs, too."""

    name: ClassVar[str] = "fliqs"

    def architecture(self, draw: Draw) -> dict[str, int]:
        return draw.any()

    def learner(self, joint: Joint) -> Learner:
        return Policies(joint)


class Policies(Learner):
    """One for each of `TARGETS`; draws go round.

    Args:
        joint: of which candidates are drawn.
    """

    def __init__(self, joint: Joint) -> None:
        space = joint.genes.space
        self._counts = joint.counts
        self._whole = joint.counts((0,) * len(space.genes))[BIT_OPERATIONS]
        self._controllers = [Controller(space, _RATE) for _ in TARGETS]
        # Number of draws, and per target the moving mean and spread of rewards.
        self._drawn = 0
        self._moved = np.zeros((len(TARGETS), 3))

    def candidate(self, generator: np.random.Generator) -> Candidate:
        return self._controllers[self._drawn % len(TARGETS)].sample(generator)

    def learn(self, candidate: Candidate, loss: float, done: float) -> None:
        at = self._drawn % len(TARGETS)
        self._drawn += 1
        if done < _WARM:
            return
        share = self._counts(candidate)[BIT_OPERATIONS] / self._whole
        reward = -loss - _BETA * abs(1 - share / TARGETS[at])
        known, mean, spread = self._moved[at]
        mean = _AVERAGE * mean + (1 - _AVERAGE) * reward if known else reward
        spread = _AVERAGE * spread + (1 - _AVERAGE) * abs(reward - mean) if known else abs(reward)
        self._moved[at] = 1.0, mean, spread
        advantage = (reward - mean) / max(spread, _TINY)
        learned = (done - _WARM) / (1 - _WARM)
        weight = _ENTROPY * (1 - math.cos(math.pi * learned)) / 2
        self._controllers[at].step([candidate], np.array([advantage]), weight)

    def favourites(self) -> dict[str, Candidate]:
        named = zip(TARGETS, self._controllers, strict=True)
        return {f"policy for {target:g}": each.argmax() for target, each in named}

    def state(self) -> dict[str, Floats]:
        found = {"drawn": np.array([self._drawn], dtype=np.float64), "moved": self._moved.copy()}
        for at, each in enumerate(self._controllers):
            found |= {f"{at}.{name}": value for name, value in each.state().items()}
        return found

    def restore(self, state: dict[str, Floats]) -> None:
        self._drawn, self._moved = int(state["drawn"][0]), state["moved"].copy()
        for at, each in enumerate(self._controllers):
            start = f"{at}."
            each.restore(
                {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            )
