"""Zeros: patterns, and that they stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgesmith.pipeline.errors import CacheError, PruningError
from edgesmith.pipeline.results import ZerosGain
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.training.options import Training
from edgesmith.pipeline.training.trainer import Trainer
from edgesmith.pipeline.values import Kind, Measurement
from edgesmith.prune.gain import gain_statement
from edgesmith.prune.masks import (
    MASKS,
    apply_masks,
    load_masks,
    magnitude_masks,
    save_masks,
    zeros,
)
from edgesmith.prune.options import PruneOptions, Sparsity
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import quantize
from tests.prune.nets import blobs, trained


@given(
    outputs=st.integers(1, 5),
    inputs=st.integers(1, 13),
    kept=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_n_of_m_keeps_the_largest_of_every_group(
    outputs: int, inputs: int, kept: int, seed: int
) -> None:
    layer = nn.Conv2d(inputs, outputs, 3)
    generator = torch.Generator().manual_seed(seed)
    layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
    mask = magnitude_masks(layer, Sparsity(kept=kept, of=4))["weight"]
    assert mask.shape == layer.weight.shape
    for first in range(0, inputs // 4 * 4, 4):
        part, weights = mask[:, first : first + 4], layer.weight.detach()[:, first : first + 4]
        assert (part.sum(1) == kept).all()
        least_kept = torch.where(part, weights.abs(), torch.inf).amin(1)
        largest_gone = torch.where(part, 0.0, weights.abs()).amax(1)
        assert (least_kept >= largest_gone).all()
    assert mask[:, inputs // 4 * 4 :].all()


@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_unstructured_takes_the_smallest_of_a_layer(share: float, seed: int) -> None:
    layer = nn.Linear(7, 9)
    generator = torch.Generator().manual_seed(seed)
    layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
    mask = magnitude_masks(layer, Sparsity("unstructured", zeros=share))["weight"]
    assert int((~mask).sum()) == int(63 * share)
    gone, kept = layer.weight.detach().abs()[~mask], layer.weight.detach().abs()[mask]
    assert gone.numel() == 0 or gone.max() <= kept.min()


def test_excluded_layers_stay_dense() -> None:
    masks = magnitude_masks(trained(), Sparsity(exclude=("fc", "stem.*")))
    assert set(masks) == {"conv1.weight", "conv2.weight"}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_zeros_stay_through_training_and_quantizing(optimizer: str) -> None:
    model = trained()
    masks = magnitude_masks(model, Sparsity())
    options = Training(epochs=1, optimizer=optimizer)  # type: ignore[arg-type]
    trainer = Trainer(
        model, trained(), options, seed=0, after_step=lambda: apply_masks(model, masks)
    )
    trainer.run(blobs(64, 1), blobs(32, 2))
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert (weight[~mask] == 0).all()
        assert (weight[mask] != 0).any()
    assert zeros(model)["conv1"] == pytest.approx(0.5)
    quantized = quantize(model, blobs(32, 3).inputs, PTQOptions(), seed=0)
    codes = quantized.searched()["conv1.weight"].codes
    assert codes is not None
    assert (codes[~masks["conv1.weight"].numpy()] == 0).all()


def test_masks_round_trip(tmp_path: Path) -> None:
    assert load_masks(tmp_path) == {}
    model = trained()
    masks = magnitude_masks(model, Sparsity())
    save_masks(tmp_path, masks)
    again = load_masks(tmp_path)
    assert set(again) == set(masks)
    assert all(torch.equal(again[name], masks[name]) for name in masks)
    apply_masks(model, again)
    assert zeros(model)["conv2"] == 0.5
    (tmp_path / MASKS).write_bytes(b"nothing")
    with pytest.raises(CacheError, match="cannot be read"):
        load_masks(tmp_path)


def test_options_that_remove_nothing_are_refused() -> None:
    with pytest.raises(PruningError, match="keeps every weight"):
        PruneOptions(sparsity=Sparsity(kept=4, of=4)).check()
    with pytest.raises(PruningError, match="nothing to prune"):
        PruneOptions(cost=None).check()


def test_targets_say_what_zeros_are_worth() -> None:
    for name, words in (
        ("cortex-m4", "flash only"),
        ("c-host", "flash only"),
        ("cortex-m4,zeros=store", "no gain"),
        ("cpu-litert", "no gain"),
    ):
        said = gain_statement(get_target(name).describe())
        assert words in said
        assert name in said


def test_a_measured_gain_is_said_with_its_cost() -> None:
    flash, instructions, share, arena = (
        Measurement("figure", value, unit, Kind.SIMULATED, "cortex-m4", 2)
        for value, unit in (
            (12345.0, "bytes"),
            (6789.0, "instructions"),
            (2.34, "%"),
            (512.0, "bytes"),
        )
    )
    gain = ZerosGain(3, flash, instructions, share, arena)
    said = gain_statement(get_target("cortex-m4").describe(), gain)
    for words in ("12,345 bytes of flash saved in 3 layers", "6,789 instructions", "2.3 %", "512"):
        assert words in said
