"""A Gaussian process that learns how much each feature matters: a few measurements go far."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from edgesmith.nas.predictors.base import Predictor, Regressor
from edgesmith.nas.space import Floats

Objective = Callable[[Floats], tuple[float, Floats]]
_LENGTHS = (0.5, 1e3)
_NOISE = (1e-3, 1.0)  # of targets of deviation 1


@dataclass(frozen=True)
class Gaussian(Predictor):
    """Radial basis functions with a length for every feature, and noise (Rasmussen and Williams,
    2006, chapter 5): choices of no influence get long lengths, and stand in nobody's way.

    Args:
        learned_from: measurements that lengths are learned from, at most; all are predicted from.
        iterations: of learning; after a few, ranks hardly change.
        length: to begin with.
        noise: to begin with.
    """

    name: ClassVar[str] = "gaussian"
    learned_from: Annotated[int, Field(ge=2)] = 128
    iterations: Annotated[int, Field(ge=1)] = 15
    length: float = 5.0
    noise: float = 0.05

    def regressor(self, features: Floats, targets: Floats) -> Regressor:
        lengths = np.full(features.shape[1], self.length)
        kernel = ConstantKernel(1.0) * RBF(lengths, _LENGTHS) + WhiteKernel(self.noise, _NOISE)
        order = np.random.default_rng(0).permutation(len(features))[: self.learned_from]
        with warnings.catch_warnings():
            # A length at its bound is one of a feature without influence, as intended.
            warnings.simplefilter("ignore")
            learned = GaussianProcessRegressor(kernel, optimizer=self._climbed)
            learned.fit(features[order], targets[order])
        fitted: Regressor = learned
        if len(order) < len(features):
            known = GaussianProcessRegressor(learned.kernel_, optimizer=None)
            fitted = known.fit(features, targets)
        return fitted

    def _climbed(self, objective: Objective, start: Floats, bounds: Floats) -> tuple[Floats, float]:
        found = minimize(
            objective,
            start,
            method="L-BFGS-B",
            jac=True,
            bounds=bounds,
            options={"maxiter": self.iterations},
        )
        return found.x, float(found.fun)
