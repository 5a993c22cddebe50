"""Which predictor to believe: the one that ranks unseen candidates best."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from edgesmith.nas.predictors.base import Fitted, Predictor, predictors
from edgesmith.nas.space import Floats

PROXY = "proxy"
Folds = npt.NDArray[np.int64]


def chosen(
    features: Floats, values: Floats, proxy: Floats | None, folds: int, seed: int
) -> tuple[Fitted, str, dict[str, float]]:
    """The predictor with the best rank correlation in cross-validation, fitted to everything.

    The proxy is reported and never chosen: it predicts that more operations are always better, so
    that no candidate would dominate another. What it knows, predictors are given as a feature.

    Args:
        features: [N, F], N at least 3.
        values: [N], the metric.
        proxy: [N], multiply-accumulates times bits; None where they are unknown.
        folds: of the cross-validation, at most N.
        seed: shuffles the folds.

    Returns:
        What it learned, its name, and Kendall's tau of each by name: between all values and what
        was predicted for them while they were left out.
    """
    fold = np.random.default_rng(seed).permutation(len(values)) % min(folds, len(values))
    known = _known()
    taus = {
        name: rank_correlation(_left_out(predictor, features, values, fold), values)
        for name, predictor in known.items()
    }
    best = max(taus, key=lambda name: taus[name])
    if proxy is not None:
        taus[PROXY] = rank_correlation(proxy, values)
    return known[best].fit(features, values), best, taus


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
