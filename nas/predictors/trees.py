"""Boosted trees: thresholds and combinations, for a few hundred measurements and more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sklearn.ensemble import GradientBoostingRegressor

from edgesmith.nas.predictors.base import Predictor, Regressor
from edgesmith.nas.space import Floats


@dataclass(frozen=True)
class Trees(Predictor):
    """Gradient boosting (Friedman, 2001) on random halves of samples and thirds of features."""

    name: ClassVar[str] = "trees"
    count: int = 120
    rate: float = 0.1

    def regressor(self, features: Floats, targets: Floats) -> Regressor:
        boosted = GradientBoostingRegressor(
            n_estimators=self.count,
            learning_rate=self.rate,
            subsample=0.5,
            max_features=1 / 3,
            random_state=0,
        )
        fitted: Regressor = boosted.fit(features, targets)
        return fitted
