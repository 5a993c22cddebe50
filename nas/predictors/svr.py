"""Support vector regression with radial basis functions: choices act together, smoothly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sklearn.svm import SVR

from edgesmith.nas.predictors.base import Predictor, Regressor
from edgesmith.nas.space import Floats


@dataclass(frozen=True)
class SupportVectors(Predictor):
    """Wide kernels and a mild penalty: almost linear, with pairs of choices beside.

    Args:
        penalty: of a deviation beyond `tolerance`, both in deviations of the target.
        width: exponent of the kernel, times the number of features.
    """

    name: ClassVar[str] = "svr"
    penalty: float = 100.0
    tolerance: float = 0.05
    width: float = 0.25

    def regressor(self, features: Floats, targets: Floats) -> Regressor:
        gamma = self.width / features.shape[1]
        machine = SVR(C=self.penalty, epsilon=self.tolerance, gamma=gamma)
        fitted: Regressor = machine.fit(features, targets)
        return fitted
