"""What batch norms know about their outputs: mean and standard deviation of every channel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Statistics:
    """Per channel [C], float64, of a layer's output before its activation function."""

    mean: Tensor
    deviation: Tensor

    def scaled(self, factor: Tensor) -> Statistics:
        """Of the channels times positive factors [C]."""
        return Statistics(self.mean * factor, self.deviation * factor)
