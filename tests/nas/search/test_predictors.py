"""Predictors rank candidates that they have not seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from edgesmith.nas.predictors._choose import PROXY, chosen
from edgesmith.nas.predictors._features import at_least, logarithms
from edgesmith.nas.predictors.base import predictors
from edgesmith.nas.predictors.gaussian import Gaussian
from edgesmith.nas.predictors.svr import SupportVectors
from edgesmith.nas.space import Floats
from tests.nas.search.problems import COST, Network

NAMES = predictors().names()
MEASURED, UNSEEN = 100, 300


def table(network: Network) -> tuple[Floats, Floats, Floats]:
    """Features, accuracy and cost of random candidates."""
    generator = np.random.default_rng(network.seed)
    count = MEASURED + UNSEEN
    candidates = [network.space.drawn(generator) for _ in range(count)]
    costs = np.array([network.cost(each)[COST] for each in candidates])
    accuracies = np.array([network.accuracy(each) for each in candidates])
    features = np.hstack([at_least(network.space, candidates), logarithms(costs)[:, None]])
    return features, accuracies, costs


def test_all_predictors_are_registered() -> None:
    assert NAMES == ("gaussian", "ridge", "svr", "trees")


@pytest.mark.parametrize("name", NAMES)
def test_a_predictor_knows_more_than_cost(name: str) -> None:
    features, values, costs = table(Network(blocks=8))
    fitted = predictors().get(name)().fit(features[:MEASURED], values[:MEASURED])
    again = predictors().get(name)().fit(features[:MEASURED], values[:MEASURED])
    unseen = fitted.predict(features[MEASURED:])
    assert np.array_equal(unseen, again.predict(features[MEASURED:]))
    tau = kendalltau(unseen, values[MEASURED:]).statistic
    assert tau > kendalltau(costs[MEASURED:], values[MEASURED:]).statistic + 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unit", [2.0**-20, 2.0**30])
def test_units_do_not_matter(name: str, unit: float) -> None:
    features, values, _ = table(Network(blocks=4))
    fitted = predictors().get(name)().fit(features[:40], values[:40])
    scaled = predictors().get(name)().fit(features[:40], values[:40] * unit)
    assert scaled.predict(features) == pytest.approx(fitted.predict(features) * unit)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_vary_is_predicted(name: str) -> None:
    features, _, _ = table(Network(blocks=4))
    fitted = predictors().get(name)().fit(features[:10], np.full(10, 0.7))
    assert fitted.predict(features) == pytest.approx(np.full(len(features), 0.7))


def test_a_gaussian_process_finds_what_matters() -> None:
    """Of forty features three matter: few measurements suffice, and more than lengths are learned
    from are used.
    """
    generator = np.random.default_rng(0)
    features = generator.random((600, 40))
    values = np.sin(3 * features[:, 0]) * features[:, 1] + features[:, 2] ** 2
    shared = Gaussian(iterations=60)
    for count, least in ((80, 0.8), (300, 0.9)):
        fitted = shared.fit(features[:count], values[:count])
        found = kendalltau(fitted.predict(features[300:]), values[300:]).statistic
        assert found > least
    alike = SupportVectors().fit(features[:80], values[:80]).predict(features[300:])
    assert kendalltau(alike, values[300:]).statistic < 0.8


def test_the_best_in_cross_validation_are_chosen_and_the_proxy_only_reported() -> None:
    features, values, costs = table(Network(blocks=8))
    found = chosen(features[:MEASURED], values[:MEASURED], costs[:MEASURED], 5, 0)
    assert set(found.taus) == {*NAMES, PROXY}
    ranked = sorted(NAMES, key=lambda name: -found.taus[name])
    assert list(found.fitted) == ranked[:2]
    tau = kendalltau(found.predict(features[MEASURED:]), values[MEASURED:]).statistic
    assert tau == pytest.approx(found.taus[ranked[0]], abs=0.1)
    assert tau > 0.7
    found = chosen(features[:MEASURED], costs[:MEASURED], costs[:MEASURED], 5, 0)
    assert found.taus[PROXY] == 1
    assert set(found.fitted) < set(NAMES)


def test_what_is_predicted_lies_between_what_the_chosen_say() -> None:
    features, values, _ = table(Network(blocks=4))
    found = chosen(features[:MEASURED], values[:MEASURED], None, 5, 0)
    one, other = (each.predict(features) for each in found.fitted.values())
    share = found.weights[0]
    assert 0.2 < share < 0.8
    assert found.predict(features) == pytest.approx(share * one + (1 - share) * other)


def test_what_is_exact_is_not_averaged_away() -> None:
    features = np.random.default_rng(0).random((60, 3))
    values = features @ np.array([5.0, -2.0, 1.0])
    found = chosen(features[:40], values[:40], None, 5, 0)
    assert found.predict(features[40:]) == pytest.approx(values[40:], abs=1e-2)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_few_or_constant_values_are_no_trouble(count: int) -> None:
    features, values, _ = table(Network(blocks=4))
    found = chosen(features[:count], values[:count], None, 5, 0)
    assert set(found.fitted) < set(NAMES)
    assert set(found.taus) == set(NAMES)
    found = chosen(features[:count], np.ones(count), features[:count, 0], 5, 0)
    assert set(found.taus.values()) == {0.0}
