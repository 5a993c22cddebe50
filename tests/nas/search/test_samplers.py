"""What every sampler promises, and what sets them apart."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from edgesmith.nas.front import hypervolume, nondominated
from edgesmith.nas.predictors._choose import chosen, rank_correlation
from edgesmith.nas.samplers._record import Record
from edgesmith.nas.samplers.base import Log, Sampler, samplers
from edgesmith.nas.samplers.fliqs import Fliqs
from edgesmith.nas.samplers.linas import Features, Linas
from edgesmith.nas.space import Candidate, Floats, Gene, Space
from edgesmith.nas.values import ACCURACY, Constraint, Objective, Proposal, Task
from tests.nas.search.problems import (
    BYTES,
    COST,
    Network,
    everything,
    searched,
    trial,
    true_front,
)

NAMES = samplers().names()
EVERYWHERE = ("linas", "linas-plain", "nsga2", "random")
"""Samplers that may ask for every candidate there is."""
NETWORK = Network(blocks=6)
TINY = Network(blocks=2, widths=(64, 32), formats=("int8", "int4"))


def sampler(name: str) -> Sampler:
    """With little inner search: tests have to be quick."""
    member = samplers().get(name)
    known = {each.name for each in fields(member)}
    options: dict[str, Any] = {"predicted_evaluations": 600, "population": 20, "batch": 10}
    if name == "sequential":
        return member(**{"search": quick()})
    return member(**{key: value for key, value in options.items() if key in known})


def quick() -> Linas:
    return Linas(first=16, batch=10, population=30, predicted_evaluations=900, folds=3)


def asked(batches: Sequence[Sequence[Proposal]]) -> list[Candidate]:
    return [each.candidate for batch in batches for each in batch]


def test_all_samplers_are_registered() -> None:
    assert NAMES == (
        "bits-only", "fliqs", "linas", "linas-plain", "nsga2", "random", "sequential",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_it_asks_for_new_canonical_candidates_within_its_evaluations(name: str) -> None:
    log = Log()
    batches, _ = searched(sampler(name), NETWORK.task(60, seed=3), NETWORK.measure, log)
    candidates = asked(batches)
    assert all(batches)
    assert all(each.origin for batch in batches for each in batch)
    assert len(set(candidates)) == len(candidates) <= 60
    assert len(candidates) == 60 or name == "fliqs"
    assert all(NETWORK.space.canonical(each) == each for each in candidates)
    assert all(type(index) is int for each in candidates for index in each)
    assert bool(log.predictors) == (name in {"linas", "linas-plain", "sequential"})
    assert all(each.metric == ACCURACY for each in log.predictors)
    json.dumps([each.tau for each in log.predictors])


@pytest.mark.parametrize("name", NAMES)
def test_it_depends_on_seed_and_trials_only(name: str) -> None:
    """A second one, sent the trials of the first, asks for the same: a killed search goes on."""
    np.random.seed(1)
    first, trials = searched(sampler(name), NETWORK.task(50, seed=1), NETWORK.measure)
    np.random.seed(2)
    asking = sampler(name).run(NETWORK.task(50, seed=1), Log())
    again, sent = [next(asking)], 0
    while sent + len(again[-1]) < len(trials):
        batch = trials[sent : sent + len(again[-1])]
        sent += len(batch)
        again.append(asking.send(batch))
    assert [list(each) for each in again] == first
    other, _ = searched(sampler(name), NETWORK.task(50, seed=2), NETWORK.measure)
    assert name == "bits-only" or other != first


@pytest.mark.parametrize("name", NAMES)
def test_failed_trials_are_lived_with(name: str) -> None:
    def measure(candidate: Candidate) -> dict[str, float]:
        if sum(candidate) % 3 == 0:
            raise ArithmeticError("does not fit")
        return NETWORK.measure(candidate)

    batches, trials = searched(sampler(name), NETWORK.task(50), measure)
    assert any(each.failed for each in trials)
    assert len(set(asked(batches))) == len(trials)
    assert len(trials) == 50 or name == "fliqs"


@pytest.mark.parametrize("name", NAMES)
def test_it_ends_where_everything_fails(name: str) -> None:
    def measure(candidate: Candidate) -> dict[str, float]:
        raise ArithmeticError("nothing works")

    batches, _ = searched(sampler(name), NETWORK.task(40), measure)
    assert 0 < len(asked(batches)) <= 40


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [2_000.0, -1.0])
def test_limits_that_little_or_nothing_keeps(name: str, limit: float) -> None:
    tight = (Constraint(BYTES, "most", limit), Constraint(ACCURACY, "least", 30))
    batches, _ = searched(sampler(name), NETWORK.task(50, constraints=tight), NETWORK.measure)
    assert 0 < len(set(asked(batches))) == len(asked(batches)) <= 50


@pytest.mark.parametrize("name", ["linas", "nsga2", "random"])
def test_what_is_known_to_exceed_a_limit_is_hardly_asked_for(name: str) -> None:
    light = Constraint(BYTES, "most", 0.2 * NETWORK.cost((0,) * len(NETWORK.space.genes))[BYTES])
    task = replace(NETWORK.task(60, constraints=(light,)), seeds=())
    batches, _ = searched(sampler(name), task, NETWORK.measure)
    beyond = [each for each in asked(batches) if task.violation(NETWORK.cost(each)) > 0]
    assert len(beyond) <= 3


@pytest.mark.parametrize("name", NAMES)
def test_it_stops_when_nothing_is_left(name: str) -> None:
    batches, _ = searched(sampler(name), TINY.task(500), TINY.measure)
    candidates = set(asked(batches))
    assert len(candidates) == len(asked(batches)) <= len(everything(TINY.space))
    if name in EVERYWHERE:
        assert candidates == set(everything(TINY.space))
    if name == "bits-only":
        assert len(candidates) == 2**4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("evaluations", [1, 3])
def test_very_few_evaluations(name: str, evaluations: int) -> None:
    batches, _ = searched(sampler(name), NETWORK.task(evaluations), NETWORK.measure)
    assert 0 < len(asked(batches)) <= evaluations


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["width:", "weights:"])
def test_spaces_of_architecture_or_of_formats_only(name: str, kind: str) -> None:
    part = Space(tuple(each for each in NETWORK.space.genes if each.name.startswith(kind)))

    def measure(candidate: Candidate) -> dict[str, float]:
        return NETWORK.measure(NETWORK.space.of(part.choices(candidate)))

    task = replace(
        NETWORK.task(40), space=part, seeds=(), computed=lambda c: {COST: measure(c)[COST]}
    )
    _, trials = searched(sampler(name), task, measure)
    assert len(trials) == 40 or name == "fliqs" or (name, kind) == ("bits-only", "width:")


@pytest.mark.parametrize("name", NAMES)
def test_one_objective_and_three(name: str) -> None:
    accuracy, cost = NETWORK.task(1).objectives
    for objectives in ((accuracy,), (accuracy, cost, Objective(BYTES, "lower"))):
        task = NETWORK.task(40, objectives=objectives)
        batches, _ = searched(sampler(name), task, NETWORK.measure)
        assert 0 < len(asked(batches)) <= 40


@pytest.mark.parametrize("name", NAMES)
def test_metrics_that_are_not_computed_are_predicted(name: str) -> None:
    """Both objectives have to be measured."""
    task = replace(NETWORK.task(40), computed=lambda _: {})
    log = Log()
    batches, _ = searched(sampler(name), task, NETWORK.measure, log)
    assert 0 < len(set(asked(batches))) <= 40
    assert {each.metric for each in log.predictors} <= {ACCURACY, COST}


def test_formats_of_a_fixed_architecture_only() -> None:
    batches, _ = searched(sampler("bits-only"), NETWORK.task(60), NETWORK.measure)
    for candidate in asked(batches):
        choices = NETWORK.space.choices(candidate)
        assert all(choices[g.name] == g.choices[0] for g in NETWORK.space.genes[:9])


def test_integer_programs_find_the_front_where_effects_add_up() -> None:
    """Accuracy is a sum over genes: after single changes, every program is exact."""
    worth = np.random.default_rng(0).uniform(1.0, 9.0, 6).round(1)
    space = Space(tuple(Gene(f"weights:{at}", ("int8", "int4")) for at in range(6)))

    def measure(candidate: Candidate) -> dict[str, float]:
        cost = float(sum((2.0 - i) * (at + 1) for at, i in enumerate(candidate)))
        return {ACCURACY: 100 - float(np.dot(worth, candidate)), COST: cost}

    task = replace(
        NETWORK.task(40), space=space, seeds=(), computed=lambda c: {COST: measure(c)[COST]}
    )
    _, trials = searched(sampler("bits-only"), task, measure)
    losses = np.array([task.losses(measure(each)) for each in everything(space)])
    found = np.array([task.losses(each.metrics) for each in trials])
    ideal, nadir = losses.min(axis=0).tolist(), losses.max(axis=0).tolist()
    assert hypervolume(found, ideal, nadir) > 0.97 * hypervolume(losses, ideal, nadir)


def test_candidates_of_all_sizes_are_so_in_every_kind_of_choice() -> None:
    """Narrow ones in wide formats and the other way round: what a kind does is seen apart."""
    space = NETWORK.space
    known = np.array(Record(NETWORK.task(200)).of_all_sizes(64, np.random.default_rng(0)))
    shares = known / (np.array(space.sizes) - 1)
    kinds = {gene.kind for gene in space.genes}
    assert kinds == {"width", "depth", "weights", "activations"}
    levels = {
        kind: shares[:, [gene.kind == kind for gene in space.genes]].mean(axis=1) for kind in kinds
    }
    for kind, level in levels.items():
        assert np.ptp(level) > 0.8, kind
    together = np.corrcoef([levels[kind] for kind in ("width", "weights", "activations")])
    assert np.abs(together[np.triu_indices(3, 1)]).max() < 0.5


def test_a_cost_that_adds_up_is_learned_from_few() -> None:
    """Time or instructions are close to a sum of what is computed, and span orders of magnitude."""

    def cost(candidate: Candidate) -> float:
        computed = NETWORK.cost(candidate)
        return 3 * computed[COST] + 40 * computed[BYTES]

    record = Record(NETWORK.task(200))
    known = record.of_all_sizes(16, np.random.default_rng(0))
    others = record.of_all_sizes(150, np.random.default_rng(1))
    features = Features(record, known)
    fitted = chosen(features(known), np.array([cost(each) for each in known]), None, 5, 0)
    predicted = fitted.predict(features(others))
    actual = np.array([cost(each) for each in others])
    assert rank_correlation(predicted, actual) > 0.97
    assert np.median(np.abs(predicted / actual - 1)) < 0.05


@pytest.mark.parametrize("target", [0.15, 0.3, 0.6])
def test_a_policy_closes_in_on_its_cost(target: float) -> None:
    """Accuracy weighs as a share, whatever its unit: in percent it would drown the cost."""
    _, trials = searched(Fliqs(targets=(target,)), NETWORK.task(200), NETWORK.measure)
    whole = NETWORK.measure((0,) * len(NETWORK.space.genes))[COST]
    away = [abs(each.metrics[COST] / whole - target) for each in trials]
    assert min(away[-30:]) < 0.02
    assert np.mean(away[-30:]) < np.mean(away[1:31]) / 2


def test_sequential_takes_the_widest_formats_first() -> None:
    batches, _ = searched(sampler("sequential"), NETWORK.task(60), NETWORK.measure)
    first, second = asked(batches)[:30], asked(batches)[30:]
    assert all(not any(each[9:]) for each in first)
    assert all(any(each[9:]) for each in second)
    assert len({each[:9] for each in second}) <= 4


def found_by(searcher: Sampler, network: Network, task: Task) -> Floats:
    """Losses of what it evaluates."""
    _, trials = searched(searcher, task, network.measure)
    return np.array([task.losses(each.metrics) for each in trials])


@cache
def volume(name: str, evaluations: int, seed: int) -> float:
    """Share of the box of everything that was found by any sampler in 5 seeds."""
    network = Network(blocks=8, seed=seed)
    searcher = quick() if name == "linas" else sampler(name)
    task = network.task(evaluations, seed=seed)
    losses = found_by(searcher, network, task)
    largest, smallest = task.seeds[0].candidate, task.seeds[1].candidate
    ends = np.array([task.losses(network.measure(each)) for each in (largest, smallest)])
    return hypervolume(losses, ends.min(axis=0).tolist(), ends.max(axis=0).tolist())


@pytest.mark.parametrize("baseline", ["random", "nsga2", "linas-plain"])
def test_linas_finds_more_than_the_baselines(baseline: str) -> None:
    gains = [volume("linas", 60, seed) - volume(baseline, 60, seed) for seed in range(5)]
    assert min(gains) > 0
    assert np.mean(gains) > 0.05


@cache
def jointly(seed: int) -> Floats:
    """Losses of what a joint search evaluates."""
    network = Network(blocks=4, seed=seed)
    return found_by(quick(), network, network.task(100, seed=seed))


@pytest.mark.parametrize("weights", ["int8", "int4", "int2"])
def test_a_joint_search_finds_more_than_all_architectures_in_one_format(weights: str) -> None:
    for seed in range(3):
        network = Network(blocks=4, seed=seed)
        space, task = network.space, network.task(1)
        fixed = {g.name: weights for g in space.genes if weights in g.choices}
        every = itertools.product(*(range(size) for size in space.sizes[: -len(fixed)]))
        narrow = {space.canonical((*row, *space.of(fixed)[-len(fixed) :])) for row in every}
        alone = np.array([task.losses(network.measure(each)) for each in narrow])
        both = np.vstack([jointly(seed), alone])
        box = both.min(axis=0).tolist(), both.max(axis=0).tolist()
        assert hypervolume(jointly(seed), *box) > hypervolume(alone, *box)


@pytest.mark.parametrize("name", ["linas", "sequential"])
def test_the_trained_model_is_asked_for_first(name: str) -> None:
    """Of linas' task all seeds are."""
    task = NETWORK.task(60)
    batches, _ = searched(sampler(name), task, NETWORK.measure)
    first = [each.origin for batch in batches for each in batch][: len(task.seeds)]
    assert "seed: largest" in first
    if name == "linas":
        assert sorted(first) == sorted(each.origin for each in task.seeds)


def test_linas_finds_a_known_front() -> None:
    """A third of a small space is measured."""
    network = Network(blocks=3, widths=(64, 32), formats=("int8", "int4"), noise=0.0)
    front, size = true_front(network), len(everything(network.space))
    task = network.task(size // 3)
    losses = found_by(quick(), network, task)
    found = {tuple(row) for row in losses[nondominated(losses)].round(9)}
    assert len(found & {tuple(row) for row in front.round(9)}) >= 0.8 * len(front)


def test_a_trial_is_as_the_driver_makes_it() -> None:
    proposal = Proposal(NETWORK.space.canonical([0] * len(NETWORK.space.genes)), "seed: largest")
    made = trial(NETWORK.space, 7, proposal, NETWORK.measure)
    assert (made.number, made.origin, made.failed) == (7, "seed: largest", False)
