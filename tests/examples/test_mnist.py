"""The default example: splits, training, the spec's promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.stage import SilentProgress
from tests.examples.loading import Floats, Labels, accuracy, example

SIZES = {"train": 3500, "calibration": 500, "selection": 500, "test": 1000}


def split(part: str) -> tuple[Floats, Labels]:
    loaded: tuple[Floats, Labels] = example("mnist", "data.py:split")(part)
    return loaded


def contents(part: str) -> set[bytes]:
    return {image.tobytes() for image in split(part)[0]}


def build() -> nn.Module:
    model: nn.Module = example("mnist", "model.py:build_model")()
    return model


def train(model: nn.Module, samples: int, seed: int) -> nn.Module:
    """Train a model on the first images of the train split, and return it."""
    images, labels = split("train")
    part = Split(images[:samples], labels[:samples])
    selection = Split(*split("selection"))
    example("mnist", "model.py:train")(model, part, selection, seed, SilentProgress())
    return model


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("part", SIZES)
def test_a_split_has_its_size_type_range_and_balance(part: str) -> None:
    images, labels = split(part)
    assert images.shape == (SIZES[part], 1, 28, 28)
    assert images.dtype == np.float32
    assert labels.shape == (SIZES[part],)
    assert labels.dtype == np.int64
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert np.bincount(labels).tolist() == [SIZES[part] // 10] * 10
    assert np.bincount(labels[:100]).tolist() == [10] * 10, "any prefix is balanced too"


def test_splits_share_no_image_but_calibration_with_train() -> None:
    train, calibration, selection, test = (contents(part) for part in SIZES)
    assert calibration < train
    assert not train & selection
    assert not train & test
    assert not selection & test


def test_an_image_that_occurs_twice_lands_in_one_split(monkeypatch: pytest.MonkeyPatch) -> None:
    distinct = example("mnist", "data.py:_distinct_images")
    loadtxt = np.loadtxt

    def twice(*args: object, **options: object) -> object:
        table = loadtxt(*args, **options)  # type: ignore[call-overload]
        return np.concatenate([table, table[:40]])

    before = [part.copy() for part in distinct()]
    monkeypatch.setattr(np, "loadtxt", twice)
    after = distinct.__wrapped__()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_an_unknown_part_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no part 'validation'; there are train, calibration"):
        split("validation")


def test_the_model_has_the_size_that_it_is_meant_to_have() -> None:
    assert 20_000 < sum(parameter.numel() for parameter in build().parameters()) < 50_000


def test_training_follows_from_the_seed_alone() -> None:
    first = train(build(), samples=64, seed=3)
    torch.manual_seed(99)  # neither the caller's generator nor the initial weights matter
    assert same_weights(first, train(build(), samples=64, seed=3))
    assert not same_weights(first, train(build(), samples=64, seed=4))


def test_training_leaves_threads_and_the_random_generator_as_they_were() -> None:
    model = build()
    before = (torch.get_num_threads(), torch.get_rng_state())
    train(model, samples=64, seed=0)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_the_trained_model_is_accurate() -> None:
    model = train(build(), samples=SIZES["train"], seed=0)
    assert not model.training
    assert accuracy(model, *split("test")) >= 0.975
