"""Histograms of activations, from which ranges are chosen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BINS = 4096


@dataclass
class Histogram:
    """Counts of the values of one tied set, in `BINS` equal bins of [low, high].

    `zeros` of them are exactly 0 and cost no error whatever the scale.
    """

    low: float
    high: float
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    zeros: int = 0

    def add(self, values: Tensor) -> None:
        counted = torch.histc(values.flatten(), BINS, self.low, self.high)
        self.counts += counted.numpy().astype(np.int64)
        self.zeros += int((values == 0).sum())

    @property
    def width(self) -> float:
        return (self.high - self.low) / BINS

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        return np.asarray(self.low + (np.arange(BINS) + 0.5) * self.width, np.float64)

    def counts_without_zeros(self) -> npt.NDArray[np.float64]:
        """Counts of all values but those that are exactly 0."""
        counts = self.counts.astype(np.float64)
        zero_bin = int(np.clip((0.0 - self.low) / self.width, 0, BINS - 1))
        counts[zero_bin] = max(counts[zero_bin] - self.zeros, 0.0)
        return counts
