"""A policy of independent choices, learned from rewards by policy gradient.

Source: Dotzel et al., "FLIQS: One-Shot Mixed-Precision Floating-Point and Integer Quantization
Search", arXiv:2308.03290.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgesmith.nas.space import Candidate, Floats, Space

_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8  # Adam's usual constants


class Controller:
    """A logit per choice of every gene, all 0 at first, climbed by Adam (Kingma and Ba, 2015).

    Args:
        rate: of Adam.
    """

    def __init__(self, space: Space, rate: float) -> None:
        self._space = space
        self._rate = rate
        self._logits = np.zeros(sum(space.sizes))
        self._momentum, self._energy = np.zeros_like(self._logits), np.zeros_like(self._logits)
        self._steps = 0
        self._starts = np.cumsum([0, *space.sizes[:-1]])

    def sample(self, generator: np.random.Generator) -> Candidate:
        """Each gene by its own probabilities."""
        noise = generator.gumbel(size=len(self._logits))
        return self._largest(self._logits + noise)

    def argmax(self) -> Candidate:
        """The most probable choice of every gene."""
        return self._largest(self._logits)

    def step(self, samples: Sequence[Candidate], advantages: Floats, entropy: float) -> None:
        """Climb the mean of advantages [samples] times log-probability, less weighted entropy.

        Inactive genes had no part in a sample, so that it tells nothing about them.
        """
        chances = self._chances()
        taken = self._space.one_hot(samples)
        active = np.repeat(np.add.reduceat(taken, self._starts, axis=1), self._space.sizes, axis=1)
        climb = (advantages[:, None] * (taken - active * chances)).mean(axis=0)
        surprise = -np.log(np.maximum(chances, _TINY))
        of_gene = np.add.reduceat(chances * surprise, self._starts)
        climb -= entropy * chances * (surprise - np.repeat(of_gene, self._space.sizes))
        self._climb(climb)

    def state(self) -> dict[str, Floats]:
        """Everything it has learned, to go on from."""
        steps = np.array([self._steps], dtype=np.float64)
        return {
            "logits": self._logits.copy(),
            "momentum": self._momentum.copy(),
            "energy": self._energy.copy(),
            "steps": steps,
        }

    def restore(self, state: Mapping[str, Floats]) -> None:
        """Go on from there."""
        self._logits, self._momentum = state["logits"].copy(), state["momentum"].copy()
        self._energy, self._steps = state["energy"].copy(), int(state["steps"][0])

    def _climb(self, gradient: Floats) -> None:
        self._steps += 1
        self._momentum += (1 - _FIRST) * (gradient - self._momentum)
        self._energy += (1 - _SECOND) * (gradient**2 - self._energy)
        momentum = self._momentum / (1 - _FIRST**self._steps)
        energy = self._energy / (1 - _SECOND**self._steps)
        self._logits += self._rate * momentum / (np.sqrt(energy) + _TINY)

    def _chances(self) -> Floats:
        """Softmax in each gene."""
        top = np.repeat(np.maximum.reduceat(self._logits, self._starts), self._space.sizes)
        powers = np.exp(self._logits - top)
        total: Floats = np.repeat(np.add.reduceat(powers, self._starts), self._space.sizes)
        chances: Floats = powers / total
        return chances

    def _largest(self, values: Floats) -> Candidate:
        genes = np.split(values, self._starts[1:])
        return self._space.canonical([int(each.argmax()) for each in genes])
