"""The network in training computes what its integers compute, in every format and structure."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgesmith.quantize.fakequant import weight_quantizer
from edgesmith.quantize.network import Network, key
from edgesmith.quantize.options import (
    ACTIVATION_FORMATS,
    WEIGHT_FORMATS,
    LearnedRounding,
    Override,
    PTQOptions,
)
from edgesmith.quantize.ptq import QuantizedModel, quantize
from edgesmith.quantize.qat.network import TrainedNetwork
from edgesmith.quantize.qat.options import QAT
from tests.quantize.nets import NETS, FloatArray, make
from tests.quantize.qat.bars import DATA, start

MIXED = PTQOptions(
    weights="int4",
    overrides=(
        Override("conv1", weights="int2", activations="int16"),
        Override("conv2", weights="int1-per-tensor", activations="int4"),
        Override("fc", weights="e2m1"),
    ),
)


def shaken(start: QuantizedModel, options: QAT | None = None) -> TrainedNetwork:
    """In training mode, after all parameters moved a little."""
    network = TrainedNetwork(start, options or QAT(zero_points="learn"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.parameters():
            if value.requires_grad:
                size = float(value.abs().mean()) if value.ndim else 0.2
                value.add_(0.2 * size * torch.randn(value.shape, generator=generator))
    return network.train()


@torch.no_grad()
def require_same(network: TrainedNetwork, data: FloatArray) -> None:
    """Every tensor up to the logits: training's value is that of the assembled integers."""
    x = torch.from_numpy(data)
    found: dict[str, torch.Tensor] = {}
    network.frozen()(x, lambda name, value: found.update({name: value}))
    trained = network.trace(x)
    compared = [name for name in trained if name in found]
    assert len(compared) > 3
    for name in compared:
        assert torch.equal(trained[name], found[name]), name


def chain(layers: int) -> nn.Module:
    """Linear layers in a row, one for every format."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [nn.Sequential(nn.Linear(6, 6), nn.ReLU6()) for _ in range(layers)]
        return nn.Sequential(*parts, nn.Linear(6, 3))


@pytest.mark.parametrize("powers", [False, True])
def test_every_format(powers: bool) -> None:
    pairs = list(itertools.zip_longest(WEIGHT_FORMATS, ACTIVATION_FORMATS, fillvalue="int8"))
    rules = tuple(
        Override(f"{index}.0", weights=weights, activations=activations)
        for index, (weights, activations) in enumerate(pairs)
    )
    data = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
    options = PTQOptions(power_of_two_scales=powers, ranges="min-max", overrides=rules)
    made = quantize(chain(len(pairs)), data, options, seed=0)
    used = {str(group.weight) for group in made.placement.policy.groups.values()}
    assert len(used) > len(WEIGHT_FORMATS)
    require_same(shaken(made), data)


@pytest.mark.parametrize("name", NETS)
def test_every_structure(name: str) -> None:
    floating, data = make(name)
    require_same(shaken(quantize(floating, data, PTQOptions(weights="int3"), seed=0)), data[:8])


@pytest.mark.parametrize(
    "options",
    [
        PTQOptions(),
        PTQOptions(weights="int4", learned_rounding=LearnedRounding(iterations=20, samples=32)),
        PTQOptions(weights="int2", power_of_two_scales=True),
        PTQOptions(weights="int1"),
        PTQOptions(weights="fp8-e4m3", activations="fp8-e4m3"),
        PTQOptions(weights="e2m1-per-tensor", activations="int16"),
        MIXED,
    ],
    ids=lambda options: options.weights,
)
def test_training_starts_at_the_integers_that_were_found_after_training(
    options: PTQOptions,
) -> None:
    made = start(options)
    assert TrainedNetwork(made, QAT()).integers().same_as(made.searched())


def test_formats_of_single_groups_are_kept() -> None:
    made = start(MIXED)
    require_same(shaken(made), DATA.selection.inputs[:16])
    integers = shaken(made).integers()
    for name in ("conv1", "conv2", "fc", "stem.0"):
        assert integers[f"{name}.weight"].dtype == made.searched()[f"{name}.weight"].dtype
        assert integers[name].dtype == made.searched()[name].dtype
    codes = integers["conv2.weight"].codes
    assert codes is not None
    assert set(np.unique(codes).tolist()) == {-1, 1}
    assert len(integers["conv2.weight"].scale) == 1


def test_ranges_that_the_runtime_fixes_stay_fixed_and_ties_stay_tied() -> None:
    floating, data = make("inception")
    made = quantize(floating, data, PTQOptions(), seed=0)
    integers = shaken(made).integers()
    assert made.placement.fixed
    for name in made.placement.fixed:
        assert integers[name].scale == made.searched()[name].scale
        assert integers[name].zero_point == made.searched()[name].zero_point
    moved = [t.name for t in integers.tensors if t.scale[0] != made.searched()[t.name].scale[0]]
    assert len(moved) > 5
    for name, root in made.placement.quantizer_of.items():
        assert integers[name].scale == integers[root].scale


def test_biases_always_fit_the_type_that_stores_them() -> None:
    network = shaken(start(PTQOptions()))
    layer = network.layers["conv1"]
    with torch.no_grad():
        layer.get_parameter("bias")[0] = 1e6
        network.quantizers[key("stem.0")].get_parameter("logarithm").fill_(-12)
    codes = network.integers()["conv1.bias"].codes
    assert codes is not None
    assert np.abs(codes).max() <= 2**30 + 1
    require_same(network, DATA.selection.inputs[:16])


def test_training_sees_what_a_last_softmax_gets() -> None:
    floating, data = make("separable")
    network = TrainedNetwork(quantize(floating, data, PTQOptions(), seed=0), QAT())
    x = torch.from_numpy(data[:8])
    probabilities = network.eval()(x)
    assert torch.allclose(probabilities.sum(1), torch.ones(8), atol=0.02)
    logits = network.train()(x)
    assert not torch.allclose(logits.sum(1), torch.ones(8), atol=0.02)
    assert torch.allclose(torch.softmax(logits, 1), probabilities, atol=1 / 256)


def test_eval_mode_runs_the_assembled_integers_of_now() -> None:
    made = start(PTQOptions(weights="int2"))
    network = TrainedNetwork(made, QAT()).eval()
    x = torch.from_numpy(DATA.selection.inputs)
    assert torch.equal(network(x), made.module(x))
    network.load_state_dict(shaken(made, QAT()).state_dict())
    changed = network(x)
    assert not torch.equal(changed, made.module(x))
    assert isinstance(network.frozen(), Network)
    codes = network.integers()["conv1.weight"].codes
    running = weight_quantizer(network.frozen(), "conv1").codes
    assert codes is not None
    assert running is not None
    assert np.array_equal(codes, running.numpy())


def test_scales_can_be_kept() -> None:
    network = TrainedNetwork(start(PTQOptions()), QAT(scale_rate=0))
    assert not list(network.scales)
    assert len(list(network.weights)) == 8
    learning = TrainedNetwork(start(PTQOptions()), QAT(zero_points="learn"))
    names = {name.rpartition(".")[2] for name, v in learning.named_parameters() if v.requires_grad}
    assert names == {"weight", "bias", "logarithm", "offset"}
    binary = TrainedNetwork(start(replace(PTQOptions(), weights="int1")), QAT())
    assert all(
        "layers" not in name or "logarithm" not in name for name, _ in binary.named_parameters()
    )
