"""What a predictor is: it learns a metric from features of measured candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from edgesmith.nas.space import Floats

if TYPE_CHECKING:
    from edgesmith.pipeline.registry import Registry


class Regressor(Protocol):
    """What scikit-learn's fitted models can do."""

    def predict(self, features: Floats, /) -> Floats:
        """Features [N, F] -> targets [N]."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A regressor of standardized targets, and what brings them back to the metric's unit."""

    regressor: Regressor
    mean: float
    scale: float

    def predict(self, features: Floats) -> Floats:
        """Features [N, F] -> the metric [N]."""
        return self.regressor.predict(features) * self.scale + self.mean


@dataclass(frozen=True)
class Predictor(ABC):
    """One way to learn a metric."""

    name: ClassVar[str]

    def fit(self, features: Floats, values: Floats) -> Fitted:
        """Learn values [N] from features [N, F]; N is at least 2."""
        mean, scale = float(values.mean()), float(values.std())
        # Values that are all the same leave nothing to learn, only rounding errors to blow up.
        scale = scale if scale > 1e-12 * max(abs(mean), 1e-300) else 1.0
        return Fitted(self.regressor(features, (values - mean) / scale), mean, scale)

    @abstractmethod
    def regressor(self, features: Floats, targets: Floats) -> Regressor:
        """Fitted to features [N, F] and targets [N] of mean 0 and deviation 1, or all 0.

        The same for the same inputs: what is random in it has a fixed seed.
        """


def predictors() -> Registry[Predictor]:
    """All predictors, by name."""
    from edgesmith.pipeline.registry import Registry

    package, group = "edgesmith.nas.predictors", "edgesmith.predictors"
    return Registry("predictor", package, group, Predictor)  # type: ignore[type-abstract]
