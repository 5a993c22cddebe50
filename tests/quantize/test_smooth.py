"""SmoothQuant: the same function, paths that are exact, and what it is good for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.quantize.channel_paths import follow
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.network import Network, shapes
from edgesmith.quantize.options import PTQOptions, SmoothQuant
from edgesmith.quantize.ptq import quantize
from edgesmith.quantize.smooth import migrate
from tests.quantize.nets import NETS, FloatArray, make, outputs
from tests.quantize.vit import images, tiny_vit

PLAIN = PTQOptions(equalize=False, bias_correction=False, ranges="min-max")
SMOOTH = replace(PLAIN, smooth_quant=SmoothQuant())


def paths_of(model: nn.Module, sample: Tensor, source: str) -> tuple[list[str], list[int]]:
    """Names of the layers that read a step's channels, and the channels that are free."""
    network = prepare(model, sample)
    step = next(step for step in network.steps if step.name == source)
    found = follow(network, step, shapes(network, tuple(sample.shape[1:])))
    return [s.step.name for s in found.sinks], found.free.nonzero().flatten().tolist()


def outlying(model: nn.Module) -> nn.Module:
    """Layer norms with a few channels a hundred times larger, and weights that undo it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and name.startswith("blocks"):
            module.weight.data[::16] *= 100
            module.bias.data[::16] *= 100
    for name, parameter in model.named_parameters():
        if name.endswith(("qkv.weight", "up.weight")):
            parameter.data[:, ::16] /= 100
    return model


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", NETS)
def test_the_function_stays_the_same(name: str, alpha: float) -> None:
    model, data = make(name)
    network = prepare(model, torch.from_numpy(data[:4]))
    migrate(network, torch.from_numpy(data), SmoothQuant(alpha))
    expected = outputs(model, data)
    largest = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(outputs(network, data), expected, atol=1e-4 * largest)


def columns(network: Network, layer: str) -> FloatArray:
    weight = network.layer(layer).weight.detach()
    found: FloatArray = (
        weight.abs().flatten(2).amax((0, 2)).numpy()
        if weight.ndim > 2
        else weight.abs().amax(0).numpy()
    )
    return found


def test_factors_are_those_of_the_paper() -> None:
    """One linear layer behind a layer norm, computed by hand."""
    norm = nn.LayerNorm(6)
    model = nn.Sequential(norm, nn.Linear(6, 4))
    data = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    norm.weight.data[2] = 50.0
    network = prepare(model, data[:4])
    peaks = norm(data).abs().amax(0).detach().numpy()
    before = columns(network, "1")
    assert migrate(network, data, SmoothQuant(0.7)) == 6
    factors = peaks**0.7 / before**0.3
    np.testing.assert_allclose(columns(network, "1"), before * factors, rtol=1e-4)
    gamma = next(value for name, value in network.constants().items() if float(value[2]) > 1)
    np.testing.assert_allclose(gamma.numpy(), norm.weight.detach().numpy() / factors, rtol=1e-4)


def test_attention_values_reach_its_projection_and_queries_do_not() -> None:
    model, data = make("attention")
    sinks, free = paths_of(model, torch.from_numpy(data[:2]), "qkv")
    assert sinks == ["project"]
    assert free == list(range(32, 48)), "of queries, keys and values, values alone"
    model, data = make("transformer")
    network = prepare(model, torch.from_numpy(data[:2]))
    values = [s.name for s in network.layer_steps() if s.name.startswith("attention.linear")][2]
    sinks, free = paths_of(model, torch.from_numpy(data[:2]), values)
    assert len(sinks) == 1
    assert len(free) == 16


def test_channels_that_are_added_or_returned_are_frozen() -> None:
    model, data = make("residual")
    sample = torch.from_numpy(data[:2])
    assert paths_of(model, sample, "layer1.0.conv1") == (["layer1.0.conv2"], list(range(8)))
    assert paths_of(model, sample, "layer1.0.conv2")[1] == []
    assert paths_of(model, sample, "stem.0")[1] == []
    assert paths_of(model, sample, "fc")[1] == []


def test_pooling_and_flattening_keep_channels_and_averages_over_them_do_not() -> None:
    model, data = make("plain")
    sample = torch.from_numpy(data[:2])
    assert paths_of(model, sample, "0") == (["3"], list(range(6)))
    # Averages with zeros are no channel's values alone.
    assert paths_of(model, sample, "3")[1] == []
    # Positions of each channel lie side by side behind the flattening.
    flat = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(108, 2))
    assert paths_of(flat, sample, "0") == (["3"], [0, 1, 2])
    averaged = nn.Sequential(nn.Conv1d(2, 4, 1), Averaged(), nn.Linear(5, 3))
    assert paths_of(averaged, torch.randn(2, 2, 5), "0")[1] == []


class Averaged(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_planted_outliers_cost_less(weights: str) -> None:
    """A vision transformer whose layer norms have outlying channels."""
    model, data = outlying(tiny_vit(depth=2)), images(64)
    exact = outputs(model, data)
    errors = []
    for options in (PLAIN, SMOOTH):
        made = quantize(model, data, replace(options, weights=weights), seed=0)
        errors.append(float(np.square(made.predict(data) - exact).mean()))
    assert errors[1] < 0.6 * errors[0]


def test_alpha_says_how_much_moves() -> None:
    """The larger, the smaller the spread of activation peaks and the larger that of weights."""
    spreads = []
    for alpha in (0.25, 0.5, 0.75):
        model, data = outlying(tiny_vit(depth=1)), images(16)
        network = prepare(model, torch.from_numpy(data[:4]))
        migrate(network, torch.from_numpy(data), SmoothQuant(alpha))
        largest = columns(network, "blocks.0.up")
        spreads.append(float(largest.max() / largest.min()))
    assert spreads == sorted(spreads)


def test_a_changed_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = make("plain")
    monkeypatch.setattr("edgesmith.quantize.smooth._divide", lambda *_: None)
    with pytest.raises(QuantizationError, match="changed the network's output"):
        quantize(model, data, SMOOTH, seed=0)


def test_samples_are_counted() -> None:
    model, data = make("plain")
    with pytest.raises(QuantizationError, match=r"smooth_quant\.samples is 0"):
        quantize(model, data, replace(PLAIN, smooth_quant=SmoothQuant(samples=0)), seed=0)
