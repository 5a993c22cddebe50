"""What was pruned to zero stays zero: in learned rounding, in training, in the codes that ship."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import CheckpointError, QuantizationError
from edgesmith.prune.masks import apply_masks, magnitude_masks
from edgesmith.prune.options import Sparsity
from edgesmith.quantize.options import LearnedRounding, PTQOptions
from edgesmith.quantize.ptq import QuantizedModel, quantize
from edgesmith.quantize.qat.masks import folded_masks
from edgesmith.quantize.qat.options import QAT
from edgesmith.quantize.qat.train import quantize_and_train
from tests.quantize.nets import NETS, make
from tests.quantize.qat.bars import DATA, model

TWO_OF_FOUR = Sparsity(kept=2, of=4)
OPTIONS = PTQOptions(weights="int3", qat=QAT(epochs=2, learning_rate=3e-3))


def pruned(sparsity: Sparsity = TWO_OF_FOUR) -> tuple[nn.Module, dict[str, Tensor]]:
    made = copy.deepcopy(model())
    masks = magnitude_masks(made, sparsity)
    apply_masks(made, masks)
    return made, masks


def codes(quantized: QuantizedModel, layer: str) -> npt.NDArray[np.int64]:
    found = quantized.searched()[f"{layer}.weight"].codes
    assert found is not None
    return found


@pytest.mark.parametrize("weights", ["int2", "int3", "int8", "e2m1", "fp8-e4m3"])
def test_masked_weights_are_zero_codes_after_training(weights: str) -> None:
    floating, masks = pruned()
    options = replace(OPTIONS, weights=weights)
    found = quantize_and_train(floating, DATA.train.inputs[:96], DATA, options, seed=0, masks=masks)
    assert found.result.epochs == 2
    for layer, name in (("conv1", "conv1.weight"), ("fc", "fc.weight")):
        values = found.quantized.searched()[f"{layer}.weight"].dequantized()
        assert (values[~masks[name].numpy()] == 0).all()
    # Of every four input channels two are zero in the codes that ship.
    kept = np.moveaxis(codes(found.quantized, "conv1") & 0x7F, 1, -1) != 0
    assert kept.reshape(-1, 4).sum(1).max() <= 2


def test_without_masks_training_would_fill_the_zeros() -> None:
    floating, masks = pruned()
    options = replace(OPTIONS, weights="int8")
    found = quantize_and_train(floating, DATA.train.inputs[:96], DATA, options, seed=0)
    assert found.result.improved
    assert (codes(found.quantized, "conv1")[~masks["conv1.weight"].numpy()] != 0).any()


def test_learned_rounding_keeps_zeros() -> None:
    floating, masks = pruned(Sparsity("unstructured", zeros=0.6))
    learned = LearnedRounding(iterations=100, samples=64)
    data = DATA.train.inputs[:96]
    options = PTQOptions(weights="int3-per-tensor", learned_rounding=learned)
    found = quantize(floating, data, options, seed=0)
    nearest = quantize(floating, data, replace(options, learned_rounding=None), seed=0)
    different = 0
    for layer in ("conv1", "conv2"):
        gone = ~masks[f"{layer}.weight"].numpy()
        assert (codes(found, layer)[gone] == 0).all()
        different += int((codes(found, layer) != codes(nearest, layer)).sum())
    assert different > 0


@pytest.mark.parametrize("name", [name for name in NETS if name != "attention"])
def test_masks_find_their_way_through_folding(name: str) -> None:
    """Against the network's own zeros: those of the model that was pruned, folded."""
    floating, data = make(name)
    masks = magnitude_masks(floating, Sparsity("unstructured", zeros=0.5))
    apply_masks(floating, masks)
    found = folded_masks(floating, masks, data.shape[1:])
    network = quantize(floating, data, PTQOptions(), seed=0).floating
    assert found.keys() <= {step.name for step in network.layer_steps()}
    for step in network.layer_steps():
        zeros = network.layer(step.name).weight == 0
        kept = found.get(step.name, torch.ones_like(zeros))
        assert torch.equal(~kept, zeros), step.name
    assert sum(int((~kept).sum()) for kept in found.values()) >= sum(
        int((~mask).sum()) for mask in masks.values()
    )


def test_a_weight_that_happens_to_be_zero_is_no_mask() -> None:
    floating, masks = pruned()
    floating.get_parameter("fc.weight").data.zero_()
    found = folded_masks(floating, {"conv1.weight": masks["conv1.weight"]}, (3, 8, 8))
    assert found.keys() == {"conv1"}
    assert torch.equal(found["conv1"], masks["conv1.weight"])
    assert folded_masks(floating, {}, (3, 8, 8)) == {}


def test_masks_of_another_model_are_refused() -> None:
    for masks in ({"other.weight": torch.ones(1)}, {"fc.weight": torch.ones(2, 2)}):
        with pytest.raises(CheckpointError, match="does not fit Classifier"):
            folded_masks(model(), masks, (3, 8, 8))


def test_binary_weights_have_no_zero() -> None:
    floating, masks = pruned()
    options = replace(OPTIONS, weights="int1")
    with pytest.raises(QuantizationError, match=r"'conv1' .* int1, which has no zero"):
        quantize_and_train(floating, DATA.train.inputs[:96], DATA, options, seed=0, masks=masks)
