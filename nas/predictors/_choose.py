"""Which predictors to believe: those that rank unseen candidates best, together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from edgesmith.nas.predictors.base import Fitted, Predictor, predictors
from edgesmith.nas.space import Floats

PROXY = "proxy"
Folds = npt.NDArray[np.int64]
_TOGETHER = 2
_NO_ERROR = 1e-9  # of the variance: what errs less is exact
_LEAST_ERROR = 1e-300


@dataclass(frozen=True, eq=False)
class Chosen:
    """What the best predictors say, on average.

    Args:
        fitted: by name, the best first.
        weights: [predictors], that add up to 1.
        taus: Kendall's tau of all predictors and the proxy, between all values and what was
            predicted for them while they were left out.
    """

    fitted: dict[str, Fitted]
    weights: Floats
    taus: dict[str, float]

    def predict(self, features: Floats) -> Floats:
        """Features [N, F] -> the metric [N]."""
        said = np.array([each.predict(features) for each in self.fitted.values()])
        averaged: Floats = self.weights @ said
        return averaged


def chosen(features: Floats, values: Floats, proxy: Floats | None, folds: int, seed: int) -> Chosen:
    """The predictors with the best rank correlations in cross-validation, fitted to everything.

    Two of them: on few measurements which one is better is much of it chance, and they err
    differently, so that their average errs less than either. Each has the weight of one over its
    mean squared error (Bates and Granger, "The Combination of Forecasts", 1969).

    The proxy is reported and never chosen: it predicts that more operations are always better, so
    that no candidate would dominate another. What it knows, predictors are given as a feature.

    Args:
        features: [N, F], N at least 3.
        values: [N], the metric.
        proxy: [N], multiply-accumulates times bits; None where they are unknown.
        folds: of the cross-validation, at most N.
        seed: shuffles the folds.
    """
    fold = np.random.default_rng(seed).permutation(len(values)) % min(folds, len(values))
    known = _known()
    said = {name: _left_out(each, features, values, fold) for name, each in known.items()}
    taus = {name: rank_correlation(each, values) for name, each in said.items()}
    best = sorted(taus, key=lambda name: -taus[name])[:_TOGETHER]
    errors = np.array([np.mean((said[name] - values) ** 2) for name in best])
    weights = 1 / errors.clip(max(_NO_ERROR * float(values.var()), _LEAST_ERROR))
    if proxy is not None:
        taus[PROXY] = rank_correlation(proxy, values)
    fitted = {name: known[name].fit(features, values) for name in best}
    return Chosen(fitted, weights / weights.sum(), taus)


def _left_out(predictor: Predictor, features: Floats, values: Floats, fold: Folds) -> Floats:
    """[N] values as predicted from the other folds."""
    predicted = np.empty(len(values))
    for each in np.unique(fold):
        out = fold == each
        predicted[out] = predictor.fit(features[~out], values[~out]).predict(features[out])
    return predicted


def rank_correlation(predicted: Floats, values: Floats) -> float:
    """Kendall's tau-b; 0 where either does not vary."""
    tau = float(kendalltau(predicted, values).statistic)
    return 0.0 if np.isnan(tau) else tau


@cache
def _known() -> dict[str, Predictor]:
    registry = predictors()
    return {name: registry.get(name)() for name in registry.names()}
