"""GPTQ against a naive implementation, against Brevitas', and against rounding to nearest."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.quantize.fakequant import fake_quantize
from edgesmith.quantize.gptq import quantize_columns, round_by_gptq
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import GPTQ, LearnedRounding, PTQOptions
from edgesmith.quantize.placement import place
from edgesmith.quantize.ptq import quantize
from edgesmith.quantize.ranges import find_ranges
from edgesmith.quantize.weights import find_scales
from tests.quantize.nets import NETS, make

PLAIN = PTQOptions(weights="int4", equalize=False, bias_correction=False)
Doubles = npt.NDArray[np.float64]
WITH = replace(PLAIN, gptq=GPTQ())


def naive(row: Doubles, hessian: Doubles, step: float, damping: float) -> Doubles:
    """Optimal brain quantization of one row in index order: the inverse anew for every weight."""
    left, done = row.copy(), np.zeros_like(row)
    damped = hessian + damping * np.mean(np.diag(hessian)) * np.eye(len(row))
    for i in range(len(row)):
        inverse = np.linalg.inv(damped[i:, i:])
        done[i] = 0 if row[i] == 0 else np.clip(np.rint(left[i] / step), -7, 7) * step
        left[i:] -= (left[i] - done[i]) / inverse[0, 0] * inverse[0]
    return done


def correlated(size: int, seed: int) -> Doubles:
    """The Hessian of inputs that go together."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 300)) + 2 * rng.normal(size=(1, 300))
    return x @ x.T


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("zeros", [False, True])
def test_codes_are_those_of_naive_optimal_brain_quantization(seed: int, zeros: bool) -> None:
    rng = np.random.default_rng(seed)
    weight, hessian = rng.normal(size=(6, 9)), correlated(9, seed)
    if zeros:
        weight[rng.random(weight.shape) < 0.4] = 0
    step = np.abs(weight).max() / 7
    expected = np.stack([naive(row, hessian, step, 0.01) for row in weight])
    plain = np.clip(np.rint(weight / step), -7, 7) * step
    cost = [np.einsum("ok,kl,ol->o", q - weight, hessian, q - weight) for q in (expected, plain)]
    expected[cost[0] >= cost[1]] = plain[cost[0] >= cost[1]]

    found = quantize_columns(
        torch.from_numpy(weight)[None],
        torch.from_numpy(hessian)[None],
        lambda w: torch.clamp(torch.round(w / step), -7, 7) * step,
        GPTQ(damping=0.01, order="index"),
    )
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-9)
    assert (cost[0] < cost[1]).any()


def test_groups_are_independent_and_orders_agree_on_equal_diagonals() -> None:
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(rng.normal(size=(3, 4, 9)))
    hessian = torch.from_numpy(np.stack([correlated(9, seed) for seed in range(3)]))

    def rounded(w: Tensor) -> Tensor:
        return torch.round(w * 3) / 3

    together = quantize_columns(weight, hessian, rounded, GPTQ())
    apart = [
        quantize_columns(weight[i : i + 1], hessian[i : i + 1], rounded, GPTQ()) for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(apart))
    same = hessian / hessian.diagonal(dim1=-2, dim2=-1).sqrt().unsqueeze(-1)
    same = same / hessian.diagonal(dim1=-2, dim2=-1).sqrt().unsqueeze(-2)
    same.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    orders = [quantize_columns(weight, same, rounded, GPTQ(order=o)) for o in ("index", "hessian")]
    torch.testing.assert_close(*orders)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hessian = torch.zeros(2, 4, 4, dtype=torch.float64)
    hessian[1] = torch.eye(4)
    found = quantize_columns(weight, hessian, torch.round, GPTQ())
    torch.testing.assert_close(found, weight.round())


@pytest.mark.parametrize("name", NETS)
def test_no_layer_is_further_from_float_than_by_nearest_rounding(name: str) -> None:
    """On its own quantized inputs, which are the same for the first layer only."""
    model, data = make(name)
    plain, made = (quantize(model, data, options, seed=0) for options in (PLAIN, WITH))
    first = made.floating.layer_steps()[0]
    inputs = (
        torch.from_numpy(made.trace(data)[first.inputs[0]])
        if first.inputs[0] != "input"
        else torch.from_numpy(made.trace(data)["input"])
    )
    layer = made.floating.layer(first.name)

    def error(quantized: Network) -> float:
        weight = quantized.layer(first.name).weight
        out = [
            torch.func.functional_call(layer, {"weight": w}, (inputs,))
            for w in (weight, layer.weight)
        ]
        return float((out[0] - out[1]).square().mean())

    assert error(made.module) <= error(plain.module) * (1 + 1e-6)


@pytest.mark.parametrize("name", ["plain", "separable", "waves", "transformer"])
def test_networks_are_closer_to_float(name: str) -> None:
    """Four bits; grouped, depthwise and one-dimensional convolutions, layers on three axes."""
    model, data = make(name, 256)
    errors = []
    for options in (PLAIN, WITH):
        made = quantize(model, data, options, seed=0)
        exact = made.float_trace(data)[made.module.output]
        errors.append(float(np.square(made.predict(data) - exact).mean()))
    assert errors[1] < 0.9 * errors[0]


def test_zeros_stay_zero() -> None:
    model, data = make("plain")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data[torch.rand(parameter.shape, generator=generator) < 0.5] = 0
    made = quantize(model, data, WITH, seed=0)
    for step in made.floating.layer_steps():
        codes = made.searched()[f"{step.name}.weight"].codes
        assert codes is not None
        assert not codes[made.floating.layer(step.name).weight.numpy() == 0].any()


@pytest.mark.parametrize("weights", ["int2", "fp8-e4m3", "int4-per-tensor"])
def test_other_formats_are_rounded_to_their_own_values(weights: str) -> None:
    model, data = make("plain")
    made = quantize(model, data, replace(WITH, weights=weights), seed=0)
    plain = quantize(model, data, replace(PLAIN, weights=weights), seed=0)
    for step in made.floating.layer_steps():
        tensor, other = (each.searched()[f"{step.name}.weight"] for each in (made, plain))
        np.testing.assert_array_equal(tensor.scale, other.scale)
        assert tensor.dtype == other.dtype


def test_same_data_same_codes_and_samples_are_limited() -> None:
    model, data = make("residual")
    few = replace(WITH, gptq=GPTQ(samples=16))
    first = quantize(model, data, few, seed=0).searched()
    assert first.same_as(quantize(model, data, few, seed=1).searched())
    assert not first.same_as(quantize(model, data, WITH, seed=0).searched())


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("layer", "shape", "order"),
    [
        (nn.Linear(12, 9), (12,), "index"),
        (nn.Linear(12, 9), (12,), "hessian"),
        (nn.Conv2d(3, 8, 3), (3, 9, 9), "index"),
        (nn.Conv2d(3, 8, 3), (3, 9, 9), "hessian"),
        (Grouped(), (4, 9, 9), "index"),
    ],
)
def test_brevitas_gives_the_same_codes(
    layer: nn.Module, shape: tuple[int, ...], order: str
) -> None:
    """Where it applies: not compared with nearest rounding, which a dozen channels rarely need."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(256, *shape)) + 2 * rng.normal(size=(256, *[1] * len(shape)))
    samples = torch.from_numpy(data.astype(np.float32))
    network = prepare(nn.Sequential(layer), samples[:4])
    placement = place(network.steps, network.constant_names, PLAIN)
    activations = find_ranges(network, placement, lambda: [samples], PLAIN)
    step = network.layer_steps()[0]
    weight, bias = network.layer(step.name).weight, network.layer(step.name).bias
    assert bias is not None
    fmt = placement.policy.groups[step.name].weight
    assert fmt is not None
    scales = {
        step.name: find_scales(
            weight.numpy(), bias.numpy(), activations["input"].scale, fmt, search=True
        )
    }
    ours, theirs = (fake_quantize(network, placement, activations, scales) for _ in range(2))
    options = GPTQ(order="index" if order == "index" else "hessian")
    round_by_gptq(network, ours, samples, options, progress=lambda done, total: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from brevitas.graph.gptq import gptq_mode

        mode = gptq_mode(theirs, act_order=order == "hessian", dtype=torch.float64)
        with torch.no_grad(), mode as running:
            running.model(samples)
            running.update()
    found, expected = (
        each.layer(step.name).weight_quant(each.layer(step.name).weight).value  # type: ignore[operator]
        for each in (ours, theirs)
    )
    same = (found == expected).flatten(1).all(1)
    nearest = torch.from_numpy(
        scales[step.name].dequantize(scales[step.name].codes(weight.numpy()))
    )
    fell_back = (found == nearest).flatten(1).all(1)
    assert bool((same | fell_back).all())
    assert same.float().mean() > 0.7


def test_two_ways_of_rounding_are_refused() -> None:
    model, data = make("plain")
    with pytest.raises(QuantizationError, match="`gptq` and `learned_rounding` both decide"):
        quantize(model, data, replace(WITH, learned_rounding=LearnedRounding()), seed=0)
    with pytest.raises(QuantizationError, match=r"gptq\.samples is 0"):
        quantize(model, data, replace(PLAIN, gptq=GPTQ(samples=0)), seed=0)
