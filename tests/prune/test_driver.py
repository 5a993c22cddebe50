"""Iterative pruning: goals, rollback, resume, and that the result is faster or an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgesmith.pipeline.errors import (
    CacheError,
    NotFasterError,
    PruningError,
    UnreachableCostError,
)
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.training.options import Training
from edgesmith.pipeline.training.trainer import Trainer, accuracy
from edgesmith.prune.costs import MacCosts, macs
from edgesmith.prune.driver import Pruned, Pruner, Task
from edgesmith.prune.options import PruneOptions, Sparsity, Trials
from edgesmith.prune.stored import load_pruned, load_result, save_pruned
from edgesmith.prune.values import CostFigure, PruneResult
from tests.prune.nets import Classifier, blobs, trained

SHAPE = (3, 8, 8)
TUNE = Training(epochs=2, batch_size=64, learning_rate=3e-3)
OPTIONS = PruneOptions(rounds=2, samples=64, finetune=TUNE, tolerance_points=8.0)


class Stopped(Exception):
    """What a test raises to interrupt."""


class StopAt(SilentProgress):
    """Raises at the n-th report about fine-tuning."""

    def __init__(self, count: int) -> None:
        self.left = count

    def report(self, label: str, done: int, total: int | None) -> None:
        if label.startswith("fine-tuning"):
            self.left -= 1
            if self.left == 0:
                raise Stopped


def task(model: nn.Module | None = None) -> Task:
    costs = MacCosts(SHAPE, "test")
    return Task(model or trained(), blobs(256, 0), blobs(128, 1), costs, "test", 4)


def run(options: PruneOptions = OPTIONS, checkpoint: Path | None = None) -> Pruned:
    return Pruner(task(), options, seed=3, checkpoint=checkpoint).run()


def same(one: Pruned, other: Pruned) -> bool:
    states = one.module.state_dict(), other.module.state_dict()
    return (
        one.plan == other.plan
        and one.result == other.result
        and all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    )


@pytest.fixture(scope="module")
def pruned() -> Pruned:
    torch.set_num_threads(1)
    return run()


def test_the_goal_is_reached_and_the_accuracy_kept(pruned: Pruned) -> None:
    result = pruned.result
    assert result.reached
    assert result.after.value <= 0.5 * result.before.value
    assert result.after.value == macs(pruned.module, SHAPE)
    assert len(result.rounds) == 2
    assert all(each.accepted for each in result.rounds)
    assert result.accuracy_after >= result.accuracy_before - 8
    assert result.accuracy_after == accuracy(pruned.module, blobs(128, 1))
    assert "no cost model" in result.notes[0]
    assert all(w.after % 4 == 0 for w in result.widths)
    assert any(w.after < w.before for w in result.widths)


def test_the_pruned_model_is_of_the_same_class_and_the_original_is_untouched() -> None:
    original = trained()
    before = {name: value.clone() for name, value in original.state_dict().items()}
    found = Pruner(task(original), OPTIONS, seed=3).run()
    assert type(found.module) is Classifier
    assert not found.module.training
    assert all(torch.equal(before[n], v) for n, v in original.state_dict().items())


def test_the_same_seed_gives_the_same_model(pruned: Pruned) -> None:
    assert same(pruned, run())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_resumed_run_equals_an_uninterrupted_one(
    pruned: Pruned, count: int, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        Pruner(task(), OPTIONS, seed=3, progress=StopAt(count), checkpoint=tmp_path).run()
    assert same(pruned, run(checkpoint=tmp_path))


class StopInTrials(SilentProgress):
    """Raises after the second trial."""

    def report(self, label: str, done: int, total: int | None) -> None:
        if label == "trying allocations" and done == 2:
            raise Stopped


def test_trials_are_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(OPTIONS, rounds=1, trials=Trials(candidates=3, epochs=1, samples=128))
    expected = run(options)
    with pytest.raises(Stopped):
        Pruner(task(), options, seed=3, progress=StopInTrials(), checkpoint=tmp_path).run()
    trained_models = []

    class Counted(Trainer):
        def run(self, *arguments: Any) -> Any:
            trained_models.append(arguments[-1])
            return super().run(*arguments)

    monkeypatch.setattr("edgesmith.prune.driver.Trainer", Counted)
    assert same(expected, run(options, checkpoint=tmp_path))
    assert trained_models == ["trial"] * (len(expected.result.rounds[0].tried) - 2) + [
        "fine-tuning, round 1"
    ]


def test_damaged_trials_say_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / "trials-1.json").write_text("{")
    with pytest.raises(CacheError, match="delete the folder"):
        run(replace(OPTIONS, trials=Trials(candidates=2, epochs=1)), checkpoint=tmp_path)


def test_a_damaged_checkpoint_says_what_to_delete(tmp_path: Path) -> None:
    run(checkpoint=tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(CacheError, match="delete the folder"):
        run(checkpoint=tmp_path)


def test_rounds_that_lose_too_much_are_rolled_back() -> None:
    options = replace(
        OPTIONS,
        importance="fisher",
        reconstruct=False,
        finetune=None,
        rounds=1,
        cost=0.15,
        tolerance_points=25.0,
    )
    found = run(options)
    rejected = [each for each in found.result.rounds if not each.accepted]
    assert rejected
    assert not found.result.reached
    assert found.result.after.value < found.result.before.value
    assert found.result.accuracy_after >= found.result.accuracy_before - 25
    assert "was not reached" in "; ".join(found.result.summary())
    goals = [each.goal for each in found.result.rounds]
    assert goals[1] > goals[0]


def test_reconstruction_keeps_accuracy_without_training() -> None:
    options = replace(OPTIONS, finetune=None, rounds=1, cost=0.15, tolerance_points=100.0)
    with_it, without = (run(replace(options, reconstruct=each)) for each in (True, False))
    assert with_it.plan == without.plan
    assert with_it.result.accuracy_after > without.result.accuracy_after + 20


def test_nothing_accepted_is_an_error() -> None:
    options = replace(
        OPTIONS, reconstruct=False, finetune=None, rounds=1, cost=0.13, tolerance_points=0.0
    )
    with pytest.raises(NotFasterError, match="must be faster on the target") as caught:
        run(options)
    assert caught.value.code == "ES353"


def test_a_pruned_model_that_is_no_faster_is_an_error() -> None:
    class Flat(MacCosts):
        """A device on which fewer channels save nothing."""

        def measure(self, models: Sequence[nn.Module]) -> list[CostFigure]:
            return [replace(each, value=100.0) for each in super().measure(models)]

    flat = replace(task(), costs=Flat(SHAPE, "test"))
    with pytest.raises(UnreachableCostError, match="cannot be reached; the nearest is 100"):
        Pruner(flat, OPTIONS, seed=0).run()


def test_a_goal_that_no_round_can_reach_fails_before_training() -> None:
    with pytest.raises(UnreachableCostError, match="the nearest is"):
        Pruner(task(), replace(OPTIONS, cost=0.05), seed=0, progress=StopAt(1)).run()


def test_trials_choose_the_allocation_that_trains_best() -> None:
    options = replace(OPTIONS, rounds=1, trials=Trials(candidates=5, epochs=1, samples=128))
    found = run(options)
    (only,) = found.result.rounds
    assert 2 <= len(only.tried) <= 5  # few allocations of two groups cost half
    assert found.result.after.value <= 0.5 * found.result.before.value
    assert f"of {len(only.tried)} allocations" in found.result.notes[-1]
    assert same(found, run(options))
    saliency = run(replace(options, trials=None))
    if only.tried[0] == max(only.tried):
        assert found.plan == saliency.plan
    else:
        assert found.plan != saliency.plan


def test_trials_need_fine_tuning_and_a_cost() -> None:
    options = replace(OPTIONS, trials=Trials(), sparsity=Sparsity())
    with pytest.raises(PruningError, match="needs `finetune`"):
        run(replace(options, finetune=None))
    with pytest.raises(PruningError, match="needs `cost`"):
        run(replace(options, cost=None))


def test_zeros_come_after_channels() -> None:
    found = run(replace(OPTIONS, sparsity=Sparsity(exclude=("fc",)), tolerance_points=30.0))
    shares = {each.layer: each.zeros for each in found.result.widths}
    assert shares["conv1"] == pytest.approx(0.5)
    assert shares["fc"] == 0.0
    assert set(found.masks) == {"stem.0.weight", "conv1.weight", "conv2.weight"}
    only = run(PruneOptions(cost=None, sparsity=Sparsity(), finetune=TUNE, tolerance_points=30.0))
    assert only.plan.layers == {}
    assert only.result.after == only.result.before


def test_a_result_round_trips_and_a_saved_model_loads(pruned: Pruned, tmp_path: Path) -> None:
    assert from_json(PruneResult, to_json(pruned.result)) == pruned.result
    save_pruned(pruned, tmp_path)
    loaded = load_pruned(tmp_path, Classifier())
    x = torch.from_numpy(blobs(16, 5).inputs)
    with torch.no_grad():
        assert torch.equal(loaded(x), pruned.module(x))
    assert load_result(tmp_path) == pruned.result
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "plan.json",
        "prune.json",
        "weights.safetensors",
    ]
    (tmp_path / "plan.json").unlink()
    with pytest.raises(CacheError, match=r"plan\.json"):
        load_pruned(tmp_path, Classifier())
