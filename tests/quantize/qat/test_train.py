"""Training itself: better than its start, judged by its integers, resumed, stopped."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgesmith.pipeline.errors import CacheError, DivergedTrainingError, QuantizationError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.training.trainer import accuracy
from edgesmith.quantize.integers import assemble
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import load
from edgesmith.quantize.qat.options import QAT
from edgesmith.quantize.qat.train import Learning, Trained, quantize_and_train, train_quantized
from edgesmith.quantize.qat.values import QATResult, load_result
from tests.quantize.qat.bars import DATA, TEST, model, start

OPTIONS = QAT(epochs=3, learning_rate=3e-3)
NARROW = PTQOptions(weights="int2-per-tensor", activations="int4")


def train(
    options: PTQOptions = NARROW, qat: QAT = OPTIONS, checkpoints: Path | None = None
) -> Trained:
    return train_quantized(start(options), DATA, qat, seed=3, checkpoints=checkpoints)


class Stopped(Exception):
    """What a test raises to interrupt."""


class StopBefore(SilentProgress):
    """Raises before an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def report(self, label: str, done: int, total: int | None) -> None:
        if label == "quantization-aware training" and done == self.epoch:
            raise Stopped


@pytest.mark.parametrize(
    ("weights", "activations", "gain"),
    [
        ("int2-per-tensor", "int4", 5.0),
        ("int3-per-tensor", "int4", 0.5),
        ("int2-per-tensor", "int8", 3.0),
        ("int1", "int8", 2.0),
    ],
)
def test_narrow_formats_get_better(weights: str, activations: str, gain: float) -> None:
    before = start(PTQOptions(weights=weights, activations=activations))
    found = train_quantized(before, DATA, OPTIONS, seed=3)
    assert found.result.improved
    assert accuracy(found.quantized.module, TEST) >= accuracy(before.module, TEST) + gain


@pytest.mark.parametrize("quantizer", ["lsq", "dorefa", "xnor"])
@pytest.mark.parametrize("weights", ["int1-per-tensor", "int2-per-tensor"])
def test_every_weight_quantizer_learns(quantizer: str, weights: str) -> None:
    options = replace(OPTIONS, epochs=4, weight_quantizer=quantizer)  # type: ignore[arg-type]
    found = train(PTQOptions(weights=weights), options)
    assert found.result.improved
    assert found.result.after > found.result.before + 2


def test_the_accuracy_of_an_epoch_is_that_of_the_integers_that_ship() -> None:
    found = train()
    quantized = found.quantized
    again = assemble(quantized.floating, quantized.placement, quantized.searched())
    assert accuracy(again, DATA.selection) == found.result.after
    hits = quantized.predict(DATA.selection.inputs).argmax(1) == DATA.selection.labels
    assert 100 * float(np.mean(hits)) == found.result.after


def test_the_start_is_kept_where_no_epoch_is_better() -> None:
    made = start(PTQOptions())
    # Steps so short that no code changes.
    found = train_quantized(made, DATA, replace(OPTIONS, learning_rate=1e-12), seed=0)
    assert not found.result.improved
    assert found.quantized is made
    assert found.result.before == found.result.after
    assert "whose integers were kept" in found.result.summary()[-1]


def test_the_last_epoch_is_kept_where_that_is_asked_for() -> None:
    """Though the start has more of the selection split right."""
    made = start(PTQOptions())
    options = replace(OPTIONS, epochs=1, learning_rate=0.02)
    best = train_quantized(made, DATA, options, seed=0)
    last = train_quantized(made, DATA, replace(options, keep="last"), seed=0)
    assert not best.result.improved
    assert last.result.improved
    assert not last.result.diverged
    assert 50 < last.result.after < last.result.before == best.result.after
    assert accuracy(last.quantized.module, DATA.selection) == last.result.after


def test_the_start_and_the_float_model_are_not_changed() -> None:
    made = start(NARROW)
    weights = {name: value.clone() for name, value in model().state_dict().items()}
    floating = {name: value.clone() for name, value in made.floating.state_dict().items()}
    predicted = made.predict(TEST.inputs)
    assert train_quantized(made, DATA, OPTIONS, seed=3).result.improved
    assert np.array_equal(made.predict(TEST.inputs), predicted)
    assert all(
        torch.equal(value, floating[name]) for name, value in made.floating.state_dict().items()
    )
    assert all(torch.equal(value, weights[name]) for name, value in model().state_dict().items())


def test_the_same_seed_gives_the_same_integers() -> None:
    torch.manual_seed(0)
    one = train()
    torch.manual_seed(1)
    assert train().quantized.searched().same_as(one.quantized.searched())
    other = train_quantized(start(NARROW), DATA, OPTIONS, seed=4)
    assert not other.quantized.searched().same_as(one.quantized.searched())


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_resumed_training_equals_an_uninterrupted_one(epoch: int, tmp_path: Path) -> None:
    whole = train()
    with pytest.raises(Stopped):
        train_quantized(
            start(NARROW), DATA, OPTIONS, seed=3, progress=StopBefore(epoch), checkpoints=tmp_path
        )
    assert len([*tmp_path.iterdir()]) == (epoch > 0)
    resumed = train(checkpoints=tmp_path)
    assert [*tmp_path.iterdir()] == [resumed.checkpoint]
    assert resumed.result == whole.result
    assert resumed.quantized.searched().same_as(whole.quantized.searched())


def test_a_training_is_not_done_twice(tmp_path: Path) -> None:
    once = train(checkpoints=tmp_path)
    again = train_quantized(
        start(NARROW), DATA, OPTIONS, seed=3, progress=StopBefore(0), checkpoints=tmp_path
    )
    assert again.result == once.result
    assert again.quantized.searched().same_as(once.quantized.searched())


def test_another_training_has_another_checkpoint(tmp_path: Path) -> None:
    taught = replace(DATA, teacher=model().eval())
    found = [
        train(checkpoints=tmp_path),
        train(PTQOptions(weights="int4"), checkpoints=tmp_path),
        train(qat=replace(OPTIONS, epochs=2), checkpoints=tmp_path),
        train_quantized(start(NARROW), DATA, OPTIONS, seed=4, checkpoints=tmp_path),
        train_quantized(start(NARROW), taught, OPTIONS, seed=3, checkpoints=tmp_path),
    ]
    assert len({each.checkpoint for each in found}) == len(found)


def test_a_damaged_checkpoint_says_what_to_delete(tmp_path: Path) -> None:
    path = train(checkpoints=tmp_path).checkpoint
    assert path is not None
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CacheError, match="delete it"):
        train(checkpoints=tmp_path)


def test_divergence_keeps_the_best_and_says_so() -> None:
    found = train(PTQOptions(), replace(OPTIONS, learning_rate=1e20))
    assert found.result.diverged
    assert found.result.epochs < OPTIONS.epochs
    assert found.result.after == found.result.before > 90
    assert "diverged" in "\n".join(found.result.summary())
    assert np.isfinite(found.quantized.predict(TEST.inputs)).all()


def test_collapsed_accuracy_is_divergence_too() -> None:
    found = train(PTQOptions(), replace(OPTIONS, epochs=4, learning_rate=2.0))
    assert found.result.diverged
    assert found.result.epochs < 4
    assert found.result.after == found.result.before > 90


def test_divergence_with_nothing_usable_is_an_error() -> None:
    wrong = Split(DATA.selection.inputs, np.zeros(len(DATA.selection), np.int64))
    learning = Learning(DATA.train, wrong)  # nothing beats the one class that there is
    with pytest.raises(DivergedTrainingError, match="diverged in epoch 1") as caught:
        train_quantized(start(NARROW), learning, replace(OPTIONS, learning_rate=1e20), seed=0)
    assert caught.value.code == "ES320"
    assert "learning_rate" in caught.value.fix


def test_distillation_has_the_float_model_as_teacher() -> None:
    """With labels that say nothing, only the teacher's outputs can teach."""
    shuffled = Split(DATA.train.inputs, np.random.default_rng(0).permutation(DATA.train.labels))
    learning = Learning(shuffled, DATA.selection)
    options = replace(OPTIONS, distillation=1.0)
    taught = train_quantized(start(NARROW), learning, options, seed=3)
    alone = train_quantized(start(NARROW), learning, replace(options, distillation=0.0), seed=3)
    assert taught.result.after > alone.result.after + 3


def test_another_teacher_may_know_more() -> None:
    """The scrambled network teaches nothing of use; a model that knows does."""
    scrambled = copy.deepcopy(model())
    with torch.no_grad():
        for each in scrambled.parameters():
            each.copy_(torch.randn_like(each) * each.std())
    options = replace(OPTIONS, distillation=1.0, patience=1, epochs=1)
    fooled = Learning(DATA.train, DATA.selection, scrambled.eval())
    taught = Learning(DATA.train, DATA.selection, model().eval())
    worse, better, own = (
        train_quantized(start(NARROW), each, options, seed=3).result.after
        for each in (fooled, taught, DATA)
    )
    assert worse < better
    assert better == own, "the float model itself is the default"


def test_bfloat16_changes_the_training_and_not_the_judge() -> None:
    found = train(NARROW, replace(OPTIONS, precision="bfloat16"))
    assert found.result.improved
    assert accuracy(found.quantized.module, DATA.selection) == found.result.after


def test_from_a_model_in_one_call(tmp_path: Path) -> None:
    options = replace(NARROW, qat=OPTIONS)
    found = quantize_and_train(model(), DATA.train.inputs[:96], DATA, options, seed=3)
    assert found.quantized.searched().same_as(train().quantized.searched())
    found.quantized.save(tmp_path)
    found.result.save(tmp_path)
    assert load(tmp_path, model()).searched().same_as(found.quantized.searched())
    assert load_result(tmp_path) == found.result
    assert from_json(QATResult, to_json(found.result)) == found.result
    with pytest.raises(QuantizationError, match="`qat` is not set"):
        quantize_and_train(model(), DATA.train.inputs[:96], DATA, NARROW, seed=3)


def test_results_of_nothing_and_damaged_ones(tmp_path: Path) -> None:
    assert load_result(tmp_path) is None
    (tmp_path / "qat.json").write_text("{")
    with pytest.raises(CacheError, match="--force quantize"):
        load_result(tmp_path)
