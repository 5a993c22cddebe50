"""Blocks, and what learned rounding leaves alone: zeros, and biases of what it has learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgesmith.quantize.blocks import Block, round_by_blocks, split
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.options import LearnedRounding, PTQOptions
from edgesmith.quantize.ptq import quantize
from tests.quantize.nets import NETS, make

LEARNED = PTQOptions(weights="int4", learned_rounding=LearnedRounding(iterations=20))


@pytest.mark.parametrize("name", NETS)
def test_blocks_in_a_row_are_the_network(name: str) -> None:
    model, data = make(name, 8)
    network, samples = prepare(model, torch.from_numpy(data[:4])), torch.from_numpy(data)
    assert tuple(step for steps in split(network) for step in steps) == network.steps
    last: list[torch.Tensor] = []
    round_by_blocks(network, network, samples, lambda block: last.append(block.fake_inputs))
    exact: list[torch.Tensor] = []

    def visit(block: Block) -> None:
        exact.append(block.inputs)

    round_by_blocks(network, network, samples, visit)
    assert len(exact) == sum(any(s in network.layer_steps() for s in b) for b in split(network))
    for ours, theirs in zip(last, exact, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_residual_block_is_one_block_and_a_chain_is_many() -> None:
    model, data = make("residual")
    names = [
        [step.name for step in steps if step in network.layer_steps()]
        for network in [prepare(model, torch.from_numpy(data[:4]))]
        for steps in split(network)
    ]
    assert [each for each in names if each] == [
        ["stem.0"],
        ["layer1.0.conv1", "layer1.0.conv2"],
        ["layer1.1.conv1", "layer1.1.conv2"],
        ["fc"],
    ]


def test_zeros_stay_zero_and_others_move_by_one_code_at_most() -> None:
    model, data = make("residual")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data[torch.rand(parameter.shape, generator=generator) < 0.5] = 0
    # Without a regularizer, and at this rate, zeros would round up where that helps.
    far = LearnedRounding(iterations=60, learning_rate=0.3, regularization=0)
    options = replace(LEARNED, ranges="min-max", learned_rounding=far)
    made = quantize(model, data, options, seed=0)
    for step in made.floating.layer_steps():
        tensor = made.searched()[f"{step.name}.weight"]
        weight = made.floating.layer(step.name).weight.detach().numpy()
        assert tensor.codes is not None
        assert not tensor.codes[weight == 0].any()
        scaled = weight / tensor.scale.reshape(-1, *[1] * (weight.ndim - 1))
        assert np.abs(tensor.codes - scaled).max() < 1.001


def test_a_block_is_closer_to_float_than_by_rounding_to_nearest() -> None:
    model, data = make("residual", 128)
    errors = []
    for learned in (None, LearnedRounding(iterations=150)):
        options = replace(LEARNED, bias_correction=False, learned_rounding=learned)
        made = quantize(model, data, options, seed=0)
        exact, traced = made.float_trace(data), made.trace(data)
        errors.append(float(np.square(exact["layer1.0.add"] - traced["layer1.0.add"]).mean()))
    assert errors[1] < 0.8 * errors[0]


def test_biases_are_corrected_only_where_rounding_is_not_learned() -> None:
    """Binary layers have nothing to learn."""
    from edgesmith.quantize.options import Override

    model, data = make("plain")
    learned = LearnedRounding(iterations=100)
    rules = (Override("3", weights="int1"),)
    biases = []
    for correct in (False, True):
        options = replace(
            LEARNED, learned_rounding=learned, overrides=rules, bias_correction=correct
        )
        biases.append(quantize(model, data, options, seed=0).searched())
    assert not biases[0]["3.bias"].same_as(biases[1]["3.bias"])
    assert biases[0]["0.bias"].same_as(biases[1]["0.bias"])
