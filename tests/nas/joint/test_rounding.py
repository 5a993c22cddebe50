"""Rounding inside a super-network: the formats' own codes, and gradients that pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgesmith.nas.rounding import LayerFormats, rounded_input, rounded_weight
from edgesmith.nas.supernet import SuperNetwork
from edgesmith.quantize.options import ACTIVATION_FORMATS, WEIGHT_FORMATS
from tests.nas.nets import NETS
from tests.nas.test_elastic import known
from tests.prune.nets import batch

WEIGHTS = [name for name in WEIGHT_FORMATS if not name.endswith("-per-tensor")]


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_rounded_weight_has_no_more_values_than_its_format(name: str) -> None:
    weight = drawn(4, 8, 3, 3)
    found = rounded_weight(weight, name)
    fmt = WEIGHT_FORMATS[name]
    most = 2 if fmt.is_binary else 2**fmt.bits
    assert all(len(torch.unique(channel)) <= most for channel in found)
    assert found.shape == weight.shape
    assert float((found - weight).abs().mean()) < float(weight.abs().mean())


def test_more_bits_are_closer() -> None:
    weight = drawn(8, 64)
    errors = [float((rounded_weight(weight, f"int{b}") - weight).norm()) for b in range(2, 9)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_few_bits_have_a_scale_of_less_error_than_the_largest_magnitude_gives(bits: int) -> None:
    weight = drawn(4, 256)
    fmt = WEIGHT_FORMATS[f"int{bits}"]
    scale = weight.abs().amax(1, keepdim=True) / fmt.largest
    plain = (weight / scale).round().clamp(fmt.qmin, fmt.qmax) * scale
    found = rounded_weight(weight, fmt.name)
    assert bool(((found - weight).norm(dim=1) <= (plain - weight).norm(dim=1) + 1e-6).all())


@pytest.mark.parametrize("name", [n for n, f in ACTIVATION_FORMATS.items() if not f.is_float32])
def test_a_rounded_input_keeps_zero_and_stays_near(name: str) -> None:
    x = drawn(64).relu()
    found = rounded_input(x, name)
    assert bool((found[x == 0] == 0).all())
    fmt = ACTIVATION_FORMATS[name]
    step = float(x.max()) * (2.0**-fmt.mantissa_bits if fmt.is_float else 1 / (2**fmt.bits - 1))
    assert float((found - x).abs().max()) <= 1.01 * step


def test_float_inputs_stay_as_they_are() -> None:
    x = drawn(8)
    assert rounded_input(x, "float32") is x


def test_gradients_pass_straight_through() -> None:
    weight = drawn(4, 16).requires_grad_()
    (rounded_weight(weight, "int8") * torch.arange(16)).sum().backward()
    inside = weight.detach().abs() < weight.detach().abs().amax(1, keepdim=True)
    assert weight.grad is not None
    assert torch.equal(weight.grad[inside], torch.arange(16.0).expand(4, 16)[inside])


@pytest.mark.parametrize("name", ["cnn", "resnet8", "dscnn", "encoder"])
def test_a_policy_rounds_what_it_names_and_nothing_else(name: str) -> None:
    model, found = known(name)
    x = batch(NETS[name][1])
    network = SuperNetwork(model, found)
    layers = [
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    ]
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for architecture in (found.whole(), found.drawn(rng)):
            plain = network(x, architecture)
            none = {path: LayerFormats(None, None) for path in layers}
            assert torch.equal(network(x, architecture, none), plain)
            wide = network(x, architecture, {p: LayerFormats("int8", "int16") for p in layers})
            narrow = network(x, architecture, {p: LayerFormats("int2", "int4") for p in layers})
            assert 0 < float((wide - plain).norm()) < float((narrow - plain).norm())
            assert torch.equal(network(x, architecture), plain), "no format stays behind"
            assert torch.equal(network.extract(architecture)(x), plain)
