"""The shared trainer: what is kept, when it stops, that resuming is the same run, and its data."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.training.augment import augmented
from edgesmith.pipeline.training.loss import seen_loss
from edgesmith.pipeline.training.options import Training
from edgesmith.pipeline.training.trainer import (
    Judged,
    ParameterGroup,
    Trainer,
    Tuned,
    accuracy,
    judged,
)
from tests.prune.nets import Classifier, blobs, trained

OPTIONS = Training(epochs=3, learning_rate=1e-3)


class Stopped(Exception):
    """What a test raises to interrupt."""


class StopAt(SilentProgress):
    """Raises at the n-th report."""

    def __init__(self, count: int) -> None:
        self.left = count

    def report(self, label: str, done: int, total: int | None) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped


def fitted(options: Training, checkpoint: Path | None = None) -> tuple[Classifier, Tuned]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Classifier()
    trainer = Trainer(model, trained(), options, seed=1, checkpoint=checkpoint)
    return model, trainer.run(blobs(256, 0), blobs(128, 1))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_learns_and_ends_with_its_best_epoch(precision: str, optimizer: str) -> None:
    rate = {"adam": 3e-3, "sgd": 5e-2}[optimizer]
    options = Training(
        epochs=6,
        learning_rate=rate,
        optimizer=optimizer,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
    )
    model, found = fitted(options)
    assert found.accuracy > found.before + 10
    assert found.accuracy == accuracy(model, blobs(128, 1))
    assert not model.training
    assert all(value.is_contiguous() for value in model.state_dict().values())
    assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())


def test_of_epochs_that_are_right_equally_often_the_one_of_less_loss_is_kept() -> None:
    """And they do not keep training going."""
    scores = [(90.0, 0.5), (90.0, 0.4), (90.0, 0.45), (90.0, float("nan")), (89.0, 0.1)]
    found, kept = judged_as(scores, Training(epochs=9, patience=4, learning_rate=1e-3))
    assert (found.before, found.accuracy, found.epochs) == (90.0, 90.0, 4)
    assert found.improved
    assert kept == 1


@pytest.mark.parametrize(
    ("end", "epochs", "right", "kept"), [((91.0, 0.3), 3, 91.0, 3), ((40.0, 2.0), 9, 90.0, 2)]
)
def test_the_last_epoch_is_kept_where_that_is_asked_for(
    end: tuple[float, float], epochs: int, right: float, kept: int
) -> None:
    """Whatever the split says of it, and without patience; but nothing that has diverged."""
    options = Training(epochs=epochs, patience=1, keep="last", learning_rate=1e-3)
    found, at = judged_as([(90.0, 0.5), (95.0, 0.1), (90.0, 0.4), end], options)
    assert (found.accuracy, found.epochs, at) == (right, 3, kept)


def judged_as(scores: list[tuple[float, float]], options: Training) -> tuple[Tuned, int]:
    """A training whose start and epochs are judged so, and the epoch that it ends with."""
    model, seen, given = trained(), list[dict[str, torch.Tensor]](), iter(scores)

    def judge(_: Split) -> Judged:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return Judged(*next(given))

    found = Trainer(model, None, options, seed=0, judge=judge).run(blobs(64, 0), blobs(128, 1))
    ends = model.state_dict()
    (kept,) = (
        epoch
        for epoch, weights in enumerate(seen)
        if all(torch.equal(value, ends[name]) for name, value in weights.items())
    )
    return found, kept


def test_models_are_judged_by_what_is_right_and_by_loss() -> None:
    model, split = trained(), blobs(128, 1)
    found = judged(model, split)
    with torch.no_grad():
        logits, labels = model(torch.from_numpy(split.inputs)), torch.from_numpy(split.labels)
    assert found.accuracy == accuracy(model, split)
    capped = -torch.log_softmax(logits, 1).clamp_min(-math.log(512))
    assert found.loss == pytest.approx(float(capped[range(128), labels].mean()), rel=1e-5)
    codes = torch.round(logits.softmax(1) * 256).clamp(0, 255) / 256
    assert seen_loss(codes, labels) == pytest.approx(found.loss, abs=0.02), "in 8 bits"


def test_divergence_stops_and_keeps_the_best() -> None:
    model = trained()
    before = accuracy(model, blobs(128, 1))
    train = blobs(64, 0)
    train.inputs[40] = 3e38
    trainer = Trainer(model, None, Training(epochs=3), seed=0)
    found = trainer.run(train, blobs(128, 1))
    assert found.diverged
    assert found.epochs == 1
    assert accuracy(model, blobs(128, 1)) == found.accuracy == before


def test_early_stop_is_after_patience_epochs() -> None:
    options = Training(epochs=9, patience=2, learning_rate=1e-9)
    found = Trainer(trained(), trained(), options, seed=0).run(blobs(64, 0), blobs(128, 1))
    assert found.epochs < 9


def test_augmented_images_are_shifted_or_mirrored_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    x = torch.arange(1.0, 1 + 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    assert torch.equal(augmented(x, Training()), x)
    flipped = augmented(x, Training(flip=True))
    for before, after in zip(x, flipped, strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(-1))
    moved = augmented(x, Training(shift=1))
    assert moved.shape == x.shape
    assert set(moved.unique().tolist()) <= {0.0, *x.unique().tolist()}
    tokens = torch.randn(2, 5, 6)
    assert torch.equal(augmented(tokens, Training(flip=True, shift=2)), tokens)


@given(
    seed=st.integers(0, 1000),
    reach=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    count=st.integers(1, 5),
)
def test_every_shifted_image_is_a_window_of_the_padded_one(
    seed: int, reach: tuple[int, int], count: int
) -> None:
    torch.manual_seed(seed)
    rows, columns = reach
    x = torch.rand(count, 2, 5, 6)
    padded = torch.nn.functional.pad(x, (columns, columns, rows, rows))
    for whole, moved in zip(padded, augmented(x, Training(shift=reach)), strict=True):
        windows = [
            whole[:, row : row + 5, column : column + 6]
            for row in range(2 * rows + 1)
            for column in range(2 * columns + 1)
        ]
        assert any(torch.equal(moved, window) for window in windows)


def test_one_shift_is_that_of_rows_and_columns() -> None:
    x = torch.rand(6, 2, 5, 6)
    found = []
    for shift in (2, (2, 2)):
        torch.manual_seed(0)
        found.append(augmented(x, Training(shift=shift)))
    assert torch.equal(*found)


def test_only_the_groups_are_trained_each_at_its_rate() -> None:
    torch.manual_seed(0)
    model = Classifier()
    before = {name: value.clone() for name, value in model.named_parameters()}
    groups = [ParameterGroup([model.fc.weight]), ParameterGroup([model.fc.bias], rate=0.0)]
    Trainer(model, None, replace(OPTIONS, patience=99), seed=0, groups=groups).run(
        blobs(64, 0), Split(blobs(64, 0).inputs, blobs(64, 0).labels)
    )
    changed = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    assert changed <= {"fc.weight"}


def test_what_is_called_after_steps_holds_in_the_result() -> None:
    torch.manual_seed(0)
    model = Classifier()

    def clear() -> None:
        model.fc.weight.data[:, 0] = 0

    Trainer(model, None, OPTIONS, seed=0, after_step=clear).run(blobs(64, 0), blobs(64, 1))
    assert (model.fc.weight[:, 0] == 0).all()
    assert (model.fc.weight[:, 1] != 0).any()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_run_that_resumes_is_the_same_run(tmp_path: Path, optimizer: str) -> None:
    options = replace(OPTIONS, epochs=4, patience=9, optimizer=optimizer)  # type: ignore[arg-type]
    file = tmp_path / "run.pt"
    whole, found = fitted(options, tmp_path / "whole.pt")

    torch.manual_seed(0)
    trainer = Trainer(Classifier(), trained(), options, seed=1, checkpoint=file)
    with pytest.raises(Stopped):
        trainer.run(blobs(256, 0), blobs(128, 1), StopAt(3))
    again, resumed = fitted(options, file)
    assert resumed == found
    assert all(
        torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items()
    )


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    file.write_bytes(b"nothing")
    with pytest.raises(CacheError, match="delete it"):
        fitted(OPTIONS, file)
