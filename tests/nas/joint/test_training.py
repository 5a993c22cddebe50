"""Training of all sub-networks at once: it helps, resumes exactly, and stops when it diverges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgesmith.nas.elastic import Architecture
from edgesmith.nas.joint import Joint
from edgesmith.nas.options import SuperTraining
from edgesmith.nas.rounding import Policy
from edgesmith.nas.space import Candidate
from edgesmith.nas.strategies.base import Draw, strategies
from edgesmith.nas.strategies.fliqs import TARGETS, Policies
from edgesmith.nas.training import SuperTrainer
from edgesmith.pipeline.errors import DivergedTrainingError, SpecError
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.stage import SilentProgress
from tests.nas.joint.worlds import classifier, joint
from tests.prune.nets import blobs

OPTIONS = SuperTraining(epochs=3, batch_size=32, learning_rate=3e-3, drawn=1)
TRAIN, SELECTION = blobs(192, 0), blobs(96, 2)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize(
    "how", [{"divergence": "kl"}, {"divergence": "alpha"}, {"precision": "bfloat16"}]
)
def test_small_sub_networks_learn_and_the_largest_keeps_its_accuracy(how: dict[str, Any]) -> None:
    model, found = classifier()
    options = replace(OPTIONS, **how)
    tuned = SuperTrainer(found, model, options, seed=0).run(TRAIN, SELECTION)
    assert tuned.accuracy >= tuned.before + 5
    assert tuned.epochs == 3
    assert not found.network.training


Ran = tuple[Architecture, Policy | None, bool]
"""A pass: of what, in which formats, and whether it was judged by what the largest gave."""


def passes(options: SuperTraining, monkeypatch: pytest.MonkeyPatch) -> tuple[Joint, list[Ran]]:
    """Those of one step."""
    model, found = classifier()
    trainer = SuperTrainer(found, model, options, seed=0)
    ran: list[Ran] = []
    outputs: list[torch.Tensor] = []
    run, divergence = trainer._run, trainer._divergence

    def noted(x: Tensor, architecture: Architecture, policy: Policy | None) -> Tensor:
        out = run(x, architecture, policy)
        outputs.append(out)
        ran.append((architecture, policy, False))
        return out

    def compared(student: Tensor, teacher: Tensor) -> Tensor:
        assert student is outputs[-1]
        assert torch.equal(teacher, outputs[0])
        assert not teacher.requires_grad
        ran[-1] = (*ran[-1][:2], True)
        return divergence(student, teacher)

    monkeypatch.setattr(trainer, "_run", noted)
    monkeypatch.setattr(trainer, "_divergence", compared)
    losses = [
        *trainer._losses(torch.from_numpy(TRAIN.inputs[:32]), torch.tensor(TRAIN.labels[:32]))
    ]
    assert len(losses) == len(ran)
    return found, ran


@pytest.mark.parametrize("rounded", [1.0, 0.0])
@pytest.mark.parametrize("drawn", [1, 3])
def test_a_step_is_a_sandwich_in_formats_of_its_own(
    drawn: int, rounded: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest learns from the labels, in floats; the drawn ones and the smallest from it."""
    found, ran = passes(replace(OPTIONS, drawn=drawn, rounded=rounded), monkeypatch)
    largest, *others = ran
    assert largest == (found.elastic.whole(), None, False)
    assert len(others) == drawn + 1
    assert others[-1][0] == found.elastic.smallest()
    assert all(taught for _, _, taught in others)
    assert all((policy is None) == (rounded == 0) for _, policy, _ in others)


def test_formats_are_drawn_for_each_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (_, *others) = passes(replace(OPTIONS, drawn=8), monkeypatch)
    assert len({repr(policy) for _, policy, _ in others}) > 1
    assert len({tuple(each.items()) for each, _, _ in others}) > 1


@pytest.mark.parametrize(("rounded", "told"), [(1.0, 6), (0.0, 0)])
def test_policies_learn_from_passes_in_their_formats_alone(
    rounded: float, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass in floats says nothing of the formats that were drawn for it."""
    losses: list[float] = []
    monkeypatch.setattr(Policies, "learn", lambda _, __, loss, ___: losses.append(loss))
    model, found = classifier()
    options = replace(OPTIONS, strategy="fliqs", epochs=1, rounded=rounded)
    SuperTrainer(found, model, options, seed=0).run(TRAIN, SELECTION)
    assert len(losses) == told


def test_training_is_judged_whatever_order_the_samples_are_in() -> None:
    """Batch norms would see the first classes alone where samples are sorted."""
    many, selection = blobs(700, 0), blobs(96, 2)
    order = np.argsort(many.labels, kind="stable")
    sorted_by_class = Split(many.inputs[order], many.labels[order])
    model, found = classifier()
    trainer = SuperTrainer(found, model, OPTIONS, seed=0)
    judged = []
    for train in (many, sorted_by_class):
        trainer._train = train
        judged.append(trainer._judged(selection))
    assert judged[1] == pytest.approx(judged[0], abs=5.0)


class Stopped(Exception):
    """As if the process had been killed."""


class StopsIn(SilentProgress):
    """Stops when an epoch begins."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def report(self, label: str, done: int, total: int | None) -> None:
        if done == self.epoch:
            raise Stopped


@pytest.mark.parametrize("name", strategies().names())
def test_training_that_was_killed_goes_on_exactly(name: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, strategy=name, epochs=2)
    model, whole = classifier()
    SuperTrainer(whole, model, options, seed=3).run(TRAIN, SELECTION)
    file = tmp_path / "training.pt"
    _, first = classifier()
    with pytest.raises(Stopped):
        SuperTrainer(first, model, options, seed=3, checkpoint=file).run(
            TRAIN, SELECTION, StopsIn(1)
        )
    _, second = classifier()
    SuperTrainer(second, model, options, seed=3, checkpoint=file).run(TRAIN, SELECTION)
    expected = weights(whole.network)
    assert all(torch.equal(each, expected[key]) for key, each in weights(second.network).items())


def test_a_loss_that_is_no_number_ends_training() -> None:
    model, found = classifier()
    with torch.no_grad():
        next(iter(found.network.model.parameters())).fill_(float("nan"))
    with pytest.raises(
        DivergedTrainingError, match="the first epoch of the super-network diverged"
    ):
        SuperTrainer(found, model, OPTIONS, seed=0).run(TRAIN, SELECTION)


def test_an_unknown_strategy_is_named() -> None:
    model, found = classifier()
    with pytest.raises(SpecError, match="strategy"):
        SuperTrainer(found, model, replace(OPTIONS, strategy="unifrom"), seed=0)


def draw(done: float = 0.5, seed: int = 0) -> Draw:
    found = joint("resnet8")
    sizes = found.counts.macs
    return Draw(found.elastic, np.random.default_rng(seed), done, sizes, lambda a: float(sizes(a)))


@pytest.mark.parametrize("name", strategies().names())
def test_strategies_draw_canonical_sub_networks(name: str) -> None:
    given = draw()
    strategy = strategies().get(name)()
    drawn = [strategy.architecture(given) for _ in range(40)]
    assert all(given.elastic.canonical(each) == each for each in drawn)
    assert len({tuple(each.items()) for each in drawn}) > 10
    again = draw()
    assert drawn[0] == strategy.architecture(again), "it depends on nothing but the draw"


def test_complexity_aware_draws_cover_all_sizes() -> None:
    def spread(name: str) -> float:
        given = draw()
        strategy = strategies().get(name)()
        sizes = [given.macs(strategy.architecture(given)) for _ in range(200)]
        whole, least = (given.macs(a) for a in (given.elastic.whole(), given.elastic.smallest()))
        return float(np.std(sizes)) / (whole - least)

    even = 12**-0.5  # of a uniform distribution
    assert spread("uniform") < 0.7 * even
    assert spread("complexity-aware") > 0.7 * even


def test_attentive_draws_are_the_worst_of_their_size() -> None:
    def size(name: str) -> float:
        strategy = strategies().get(name)()
        draws = [draw(seed=seed) for seed in range(40)]
        return float(np.mean([each.macs(strategy.architecture(each)) for each in draws]))

    assert size("pareto-attentive") > size("complexity-aware"), "here large ones have more loss"


def test_shrinking_opens_one_choice_after_the_other() -> None:
    strategy = strategies().get("delayed-shrinking")()
    first = draw(done=0.0)
    assert strategy.architecture(first) == first.elastic.whole()

    def deepest(done: float) -> int:
        given = draw(done)
        drawn = [strategy.architecture(given) for _ in range(60)]
        return max(
            each.choices.index(a[each.name]) for a in drawn for each in given.elastic.dimensions
        )

    depths = [deepest(done) for done in (0.05, 0.2, 0.6)]
    assert depths == sorted(depths)
    assert depths[0] < depths[2] == 7
    assert strategy.smallest(first) == first.elastic.whole()
    sizes = [given.macs(strategy.smallest(given)) for given in map(draw, (0.0, 0.2, 0.4))]
    assert sizes == sorted(sizes, reverse=True)
    assert strategy.smallest(draw(0.6)) == first.elastic.smallest()


def test_a_strategy_that_learns_draws_what_costs_what_it_is_asked_for() -> None:
    """Its favourites come closer to the wanted sizes than chance does, and are what it drew."""
    model, found = classifier()
    options = replace(OPTIONS, strategy="fliqs", epochs=12, drawn=3, batch_size=16)
    trainer = SuperTrainer(found, model, options, seed=0)
    trainer.run(TRAIN, SELECTION)
    favourites = trainer.favourites()
    assert list(favourites) == [f"policy for {target:g}" for target in TARGETS]
    space = found.genes.space
    whole = found.counts((0,) * len(space.genes))["bit-operations"]

    def misses(candidates: Sequence[Candidate]) -> float:
        shares = [found.counts(each)["bit-operations"] / whole for each in candidates]
        pairs = zip(shares, TARGETS, strict=True)
        return sum(abs(1 - share / target) for share, target in pairs)

    generator = np.random.default_rng(0)
    chance = [misses([space.drawn(generator) for _ in TARGETS]) for _ in range(50)]
    assert misses(list(favourites.values())) < 0.5 * float(np.median(chance))


def test_other_strategies_have_no_favourites() -> None:
    model, found = classifier()
    assert SuperTrainer(found, model, OPTIONS, seed=0).favourites() == {}
