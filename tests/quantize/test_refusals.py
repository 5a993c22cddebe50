"""What cannot be quantized is refused: named, with its module, the reason and what to do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesmith.pipeline.errors import (
    EdgesmithError,
    EmptySplitError,
    NonFiniteWeightsError,
    QuantizationError,
    UnsupportedError,
)
from edgesmith.quantize.options import Override, PTQOptions
from edgesmith.quantize.ptq import quantize
from tests.quantize.nets import FloatArray, inputs, make
from tests.quantize.test_normalize import IMAGE, Lambda

Forward = Callable[[Tensor], object]


def fails(
    model: nn.Module, kind: type[EdgesmithError], shape: tuple[int, ...] = IMAGE
) -> EdgesmithError:
    """The error that quantizing the model ends with."""
    with pytest.raises(kind) as caught:
        quantize(model, inputs(shape, 4), PTQOptions(), seed=0)
    assert type(caught.value) is kind
    assert caught.value.fix
    return caught.value


class Block(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(4, 4, 1), inner)

    def forward(self, x: Tensor) -> object:
        return self.features(x)


MODULES: list[tuple[nn.Module, str, str]] = [
    (nn.ELU(), "ELU in module 'features.1'", "relu"),
    (nn.LeakyReLU(), "LeakyReLU in module 'features.1'", "relu"),
    (nn.LayerNorm((6, 8)), "normalizes over 2 axes", "last axis"),
    (nn.GroupNorm(2, 4), "GroupNorm in module 'features.1'", "batch normalization"),
    (nn.ConvTranspose2d(4, 4, 2), "ConvTranspose2d in module 'features.1'", "interpolate"),
    (nn.Softplus(), "Softplus in module 'features.1'", "use convolution"),
    (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padding_mode 'reflect'", "zero"),
    (nn.MaxPool2d(2, dilation=2), "dilated", "plain"),
    (nn.MaxPool2d(3, ceil_mode=True), "ceil_mode", "ceil_mode=False"),
    (nn.AvgPool2d(2, divisor_override=3), "divisor_override", "leave"),
    (nn.AdaptiveAvgPool2d((4, 4)), "windows of", "divide the input"),
    (nn.ConstantPad2d(1, 0.5), "value 0.5", "zeros"),
    (nn.Upsample(scale_factor=1.3, mode="nearest"), "scale_factor 1.3", "size"),
    (nn.Upsample(scale_factor=2, mode="bicubic"), "'bicubic'", "bilinear"),
    (nn.BatchNorm2d(4, track_running_stats=False), "no running statistics", "track"),
]


@pytest.mark.parametrize(("module", "says", "fix"), MODULES, ids=lambda v: type(v).__name__)
def test_modules(module: nn.Module, says: str, fix: str) -> None:
    error = fails(Block(module), UnsupportedError)
    assert says in error.message
    assert fix in error.fix
    assert "features.1" in error.message


FUNCTIONS: list[tuple[Forward, str]] = [
    (F.elu, "operator 'elu'"),
    (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), "causality"),
    (lambda x: x.cumsum(1), "operator 'cumsum'"),
    (lambda x: torch.add(x, x, alpha=2), "alpha is 2"),
    (lambda x: x / x, "divides by an activation"),
    (lambda x: x.mean(), "mixes or drops the samples"),
    (lambda x: x.mean(0, keepdim=True), "mixes or drops the samples"),
    (lambda x: x.softmax(0), "its axis is 0"),
    (lambda x: torch.cat([x, x]), "along the batch axis"),
    (lambda x: x[:2], "mixes or drops the samples"),
    (lambda x: x.argmax(1), "int64, not float32"),
    (lambda x: x > 0, "bool, not float32"),
    (lambda x: F.pad(x, (-1, 0)), "crops"),
    (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "mode 'reflect'"),
    (lambda x: F.conv2d(x, x), "its weight is computed from the input"),
    (lambda x: x.clamp(0, float("inf")), "not a finite number"),
    (lambda x: x * x.shape[0], "depends on the batch size"),
    (lambda x: x.mean((2, 3), dtype=torch.float64), "float64, not float32"),
    (lambda x: (x, x), "returns a tuple"),
    (lambda x: x, "returns its input unchanged"),
    (lambda x: x.relu().flatten(), "does not hold one entry per sample"),
]


@pytest.mark.parametrize(
    ("forward", "says"), FUNCTIONS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_functions(forward: Callable[[Tensor], Tensor], says: str) -> None:
    assert says in fails(Lambda(forward), UnsupportedError).message


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_two_inputs() -> None:
    error = fails(Two(), UnsupportedError)
    assert "forward of Two takes the arguments (x: " in error.message


class Loops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_data_dependent_control_flow_names_the_line() -> None:
    error = fails(Loops(), QuantizationError)
    assert "Loops cannot be traced" in error.message
    assert "test_refusals.py" in error.message
    assert "if x.sum() > 0:" in error.message
    assert "fixed sequence" in error.fix


def test_in_place_changes_of_a_tensor_that_is_used_again() -> None:
    """torch would change x for the addition too; integers have no such aliases."""
    error = fails(Lambda(lambda x: F.relu(x, inplace=True) + x), QuantizationError)
    assert "in-place" in error.fix


def test_mixing_of_samples_that_keeps_the_shape() -> None:
    error = fails(
        Lambda(lambda x: x.permute(1, 0, 2, 3).softmax(1).permute(1, 0, 2, 3)), UnsupportedError
    )
    assert "its axis is 1" in error.message
    model = Lambda(lambda x: x.reshape(4, -1, 6, 8).permute(1, 0, 2, 3))
    assert "samples" in fails(model, QuantizationError).fix


def test_wrong_sample_shape() -> None:
    error = fails(nn.Conv2d(3, 3, 1), QuantizationError)
    assert "does not run on samples of shape (4, 6, 8)" in error.message
    assert "input_shape" in error.fix


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_weights(value: float) -> None:
    model, data = make("residual")
    model.get_parameter("layer1.0.conv2.weight").data[0, 1, 2, 2] = value
    with pytest.raises(NonFiniteWeightsError, match=r"'layer1.0.conv2.weight' .* 1 NaN"):
        quantize(model, data, PTQOptions(), seed=0)


def test_overflowing_batch_statistics() -> None:
    """Finite parameters whose folded weight is not."""
    model, data = make("residual")
    model.get_buffer("layer1.0.bn1.running_var").fill_(-1.0)
    with pytest.raises(NonFiniteWeightsError, match=r"layer1/0/conv1\.weight"):
        quantize(model, data, PTQOptions(), seed=0)


@pytest.mark.parametrize("empty", [np.zeros((0, 1, 14, 14)), np.zeros((0,))])
def test_empty_calibration(empty: FloatArray) -> None:
    with pytest.raises(EmptySplitError, match="the calibration data has no samples"):
        quantize(make("plain")[0], empty, PTQOptions(), seed=0)


def test_calibration_with_nan() -> None:
    model, data = make("plain")
    data[3, 0, 2, 2] = np.nan
    with pytest.raises(QuantizationError, match="NaN or infinite"):
        quantize(model, data, PTQOptions(), seed=0)


def test_calibration_that_overflows_inside() -> None:
    """One sample out of many, behind those on which the folded network is compared."""
    model, data = make("plain")
    model.get_parameter("0.weight").data *= 100
    data[10] = 3e38
    with pytest.raises(QuantizationError, match=r"tensor '0' has NaN or infinite"):
        quantize(model, data, PTQOptions(), seed=0)
    data[0] = 3e38
    with pytest.raises(QuantizationError, match="Sequential returns NaN or infinite"):
        quantize(model, data, PTQOptions(), seed=0)


OVERRIDES: list[tuple[Override, str, str]] = [
    (Override(name="layer1.0.conv9"), "matches none of the 11 groups", "'layer1.0.conv"),
    (Override(name="zzz"), "matches none", "choose a name from input, "),
    (Override(op="convolution"), "matches none", "choose op from add, conv2d, input, linear"),
    (Override(name="fc", op="conv2d"), "matches none", "are of op linear"),
    (Override(name="mean", weights="int4"), "'mean' has no weights", "activations"),
]


@pytest.mark.parametrize(("rule", "says", "fix"), OVERRIDES)
def test_overrides_that_match_nothing(rule: Override, says: str, fix: str) -> None:
    model, data = make("residual")
    with pytest.raises(QuantizationError) as caught:
        quantize(model, data, PTQOptions(overrides=(rule,)), seed=0)
    assert says in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (PTQOptions(percentile=40), "percentile is 40"),
        (PTQOptions(batch_size=0), "batch_size is 0"),
        (PTQOptions(weights="int9"), "weights is 'int9'"),
        (PTQOptions(ranges="max"), "ranges is 'max'"),  # type: ignore[arg-type]
        (PTQOptions(overrides=(Override(activations="int3"),)), "activations is 'int3'"),
    ],
)
def test_options_out_of_range(options: PTQOptions, says: str) -> None:
    model, data = make("plain")
    with pytest.raises(QuantizationError, match=says):
        quantize(model, data, options, seed=0)
