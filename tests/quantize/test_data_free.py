"""Data-free mode: moments against samples, ranges and biases from statistics, and no data read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.pipeline.lint import check_source
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.spec_source import parse_source
from edgesmith.quantize import ops
from edgesmith.quantize.equalize import equalize
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.moments import clipped_normal, moments
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import (
    GPTQ,
    DataFree,
    LearnedRounding,
    PTQOptions,
    RangeMethod,
    SmoothQuant,
)
from edgesmith.quantize.ptq import quantize
from tests.pipeline.world import DATA, MODEL
from tests.quantize.nets import FloatArray, make, outputs
from tests.quantize.test_ptq import sqnr

INPUTS = DataFree(low=-4, high=4)
FREE = PTQOptions(data_free=INPUTS)


def trained(name: str, samples: int = 256) -> tuple[nn.Module, FloatArray]:
    """A network whose batch norms have the statistics of its data."""
    model, data = make(name, samples)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model(torch.from_numpy(data))
    return model.eval(), data


@given(
    st.floats(-3, 3),
    st.floats(0.05, 3),
    st.sampled_from([(0.0, None), (0.0, 6.0), (-1.0, 1.0), (None, 2.0), (None, None)]),
)
def test_clipped_normal_against_integration(
    mean: float, deviation: float, bounds: tuple[float | None, float | None]
) -> None:
    x = np.linspace(mean - 12 * deviation, mean + 12 * deviation, 400_001)
    density = np.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    low, high = (
        -np.inf if bounds[0] is None else bounds[0],
        np.inf if bounds[1] is None else bounds[1],
    )
    clipped = np.clip(x, low, high)
    first = np.trapezoid(clipped * density, x)
    second = np.trapezoid((clipped - first) ** 2 * density, x)
    double = torch.tensor([mean, deviation], dtype=torch.float64)
    found = clipped_normal(double[:1], double[1:], *bounds)
    assert float(found[0]) == pytest.approx(first, abs=1e-6)
    assert float(found[1]) == pytest.approx(second, abs=1e-5)


@pytest.mark.parametrize("op", [ops.HardSwish(), ops.Gelu(), ops.Sigmoid(), ops.Tanh()])
def test_other_activation_functions_against_samples(op: ops.Op) -> None:
    from edgesmith.quantize.moments import _of_normal

    mean, deviation = torch.tensor([0.4, -1.0]).double(), torch.tensor([0.7, 2.0]).double()
    drawn = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0)).double()
    values = op.run(mean + deviation * drawn)
    first, variance = _of_normal(op, mean, deviation)
    torch.testing.assert_close(first, values.mean(0), atol=0.01, rtol=0.01)
    torch.testing.assert_close(variance, values.var(0), atol=0.01, rtol=0.02)


@pytest.mark.parametrize("name", ["residual", "separable"])
def test_moments_are_those_of_the_data(name: str) -> None:
    """Behind batch norms: means within a third of a deviation, ranges around what is seen."""
    model, data = trained(name)
    network = prepare(model, torch.from_numpy(data[:4]))
    found = moments(network, data.shape[1:], INPUTS)
    seen: dict[str, Tensor] = {}
    network(torch.from_numpy(data), lambda tensor, value: seen.update({tensor: value.double()}))
    assert network.statistics
    for tensor in network.statistics:
        values = seen[tensor]
        error = (found[tensor].mean[0] - values.mean(0)).mean((1, 2)).abs()
        assert float((error / values.std((0, 2, 3)).clamp_min(1e-3)).max()) < 0.34, tensor
        assert float(found[tensor].low.min()) <= float(values.min())
        assert float(found[tensor].high.max()) >= 0.9 * float(values.max())


def test_statistics_of_folded_batch_norms_follow_equalization() -> None:
    model, data = trained("residual")
    samples = torch.from_numpy(data)
    network = prepare(model, samples[:4])
    plain = prepare(model, samples[:4])
    equalize(network, samples[:4])
    changed = 0
    for name, before in plain.statistics.items():
        weights = [each.layer(name).bias for each in (network, plain)]
        assert weights[0] is not None
        assert weights[1] is not None
        factor = (weights[0] / weights[1]).double()
        after = network.statistics[name]
        torch.testing.assert_close(after.mean, before.mean * factor, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(after.deviation, before.deviation * factor, rtol=1e-3, atol=0)
        changed += int((factor - 1).abs().max() > 0.01)
    assert changed >= 2


@pytest.mark.parametrize("name", ["residual", "separable"])
def test_no_calibration_sample_is_read(name: str) -> None:
    model, data = trained(name)
    other = np.full((3, *data.shape[1:]), np.nan, np.float32)
    none = np.empty((0, *data.shape[1:]), np.float32)
    made = [quantize(model, given, FREE, seed=0) for given in (data, other, none)]
    assert made[0].searched().same_as(made[1].searched())
    assert made[0].searched().same_as(made[2].searched())
    exact = outputs(model, data)
    assert sqnr(exact, made[0].predict(data)) > 15


def test_fewer_deviations_are_narrower_ranges() -> None:
    model, data = trained("residual")
    scales = [
        quantize(model, data, replace(FREE, data_free=replace(INPUTS, sigmas=sigmas)), seed=0)
        .searched()["stem.0"]
        .scale[0]
        for sigmas in (2.0, 4.0, 6.0)
    ]
    assert scales == sorted(scales)
    assert scales[0] < 0.7 * scales[2]


def test_analytic_bias_correction_keeps_means() -> None:
    """In three bits, on the data whose statistics the batch norms have."""
    model, data = trained("separable", 512)
    shifts = []
    for correct in (False, True):
        options = replace(FREE, weights="int3", equalize=False, bias_correction=correct)
        made = quantize(model, data, options, seed=0)
        exact, traced = made.float_trace(data), made.trace(data)
        # Of the layer behind the first, whose input is what batch norm and clamp leave.
        second = made.floating.layer_steps()[1].name
        shifts.append(float(np.abs((exact[second] - traced[second]).mean((0, 2, 3))).mean()))
    assert shifts[1] < shifts[0]


def test_the_first_layer_is_not_corrected() -> None:
    model, data = trained("residual")
    found = [
        quantize(model, data, replace(FREE, equalize=False, bias_correction=correct), seed=0)
        for correct in (False, True)
    ]
    first, second = (each.searched() for each in found)
    assert first["stem.0.bias"].same_as(second["stem.0.bias"])
    assert not first["layer1.0.conv1.bias"].same_as(second["layer1.0.conv1.bias"])


class Late(nn.Module):
    """A layer before the first batch norm whose output nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.b(torch.relu(self.a(x))))  # type: ignore[no-any-return]


class Normed(nn.Module):
    """A layer norm behind a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.conv(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "shape", "says"),
    [
        (nn.Sequential(nn.Linear(4, 4)), (4,), "the model has no batch norm"),
        (Late(), (3, 5, 5), "no batch norm lies between the network's input and the output of 'a'"),
        (Normed(), (4, 6), "say nothing about 'last', the result of a layer_norm"),
    ],
)
def test_what_batch_norms_do_not_tell_is_refused(
    model: nn.Module, shape: tuple[int, ...], says: str
) -> None:
    with pytest.raises(QuantizationError) as caught:
        quantize(model.eval(), np.empty((0, *shape), np.float32), FREE, seed=0)
    assert says in caught.value.message
    assert "calibration data" in caught.value.fix


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (replace(FREE, gptq=GPTQ()), "`gptq` works on calibration data"),
        (replace(FREE, learned_rounding=LearnedRounding()), "`learned_rounding` works on"),
        (replace(FREE, smooth_quant=SmoothQuant()), "`smooth_quant` works on calibration data"),
        (replace(FREE, ranges="kl"), "`ranges: kl` chooses from calibration data"),
        (replace(FREE, ranges="percentile"), "`ranges: percentile` chooses from"),
        (PTQOptions(data_free=DataFree(1.0, 1.0)), "inputs go from 1.0 to 1.0"),
        (PTQOptions(ranges="kl", activations="fp8-e4m3"), "counts equal steps, which fp8-e4m3"),
    ],
)
def test_combinations_that_cannot_be(options: PTQOptions, says: str) -> None:
    model, data = make("residual")
    with pytest.raises(QuantizationError) as caught:
        quantize(model, data, options, seed=0)
    assert says in caught.value.message


@pytest.mark.parametrize("ranges", ["mse", "min-max"])
def test_ranges_decide_about_weight_scales_alone(ranges: RangeMethod) -> None:
    model, data = trained("residual")
    made = quantize(model, data, replace(FREE, ranges=ranges, weights="int4"), seed=0).searched()
    other = quantize(model, data, replace(FREE, weights="int8"), seed=0).searched()
    assert made["stem.0"].same_as(other["stem.0"])


def network_of(model: nn.Module, shape: tuple[int, ...]) -> Network:
    return prepare(model, torch.zeros(2, *shape))


def test_batch_norms_in_a_row_and_dead_ones() -> None:
    """The last batch norm tells what leaves a layer."""
    first, second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    second.weight.data[:] = torch.tensor([1.0, -2.0, 0.5])
    second.bias.data[:] = torch.tensor([0.1, 0.2, 0.3])
    network = network_of(nn.Sequential(nn.Linear(4, 3), first, second).eval(), (4,))
    (statistics,) = network.statistics.values()
    torch.testing.assert_close(statistics.mean.float(), second.bias.detach())
    torch.testing.assert_close(
        statistics.deviation.float(), second.weight.detach().abs(), rtol=1e-4, atol=0
    )


SPEC = """\
spec_version: 1
name: small
model: {kind: torch, factory: "model.py:build_model", checkpoint: w.safetensors, input_shape: [4]}
data:
  test: {factory: "data.py:split", args: {part: test}}
targets: [c-host]
stages:
  - {stage: quantize, data_free: {low: 0, high: 1}}
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("", ""),
        (
            "data_free: {low: 0, high: 1}",
            "`data` lacks the split `calibration`: ranges are found on it",
        ),
        ("}\n", "`data` lacks the split `calibration`: ranges are found on it"),
    ],
    ids=["data-free", "with data", "with an allocation"],
)
def test_a_spec_needs_no_calibration_split(change: str, message: str, tmp_path: Path) -> None:
    text = SPEC
    if change == "}\n":
        text += "  - {stage: allocate, budget_share: {weight-bytes: 0.6}}\n"
    elif change:
        text = text.replace(change, "weights: int8")
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "data.py").write_text(DATA)
    (tmp_path / "w.safetensors").write_bytes(b"")
    source = parse_source(text, str(tmp_path / "spec.yaml"))
    found = [each.message for each in check_source(source, Registries.discovered())[1]]
    assert found == ([message] if message else [])
