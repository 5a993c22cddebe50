"""Rounding in training: AffineQuantizer's values bit for bit, and LSQ's gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgesmith.pipeline.values import FP8_E4M3, INT4_WEIGHT, INT8_ACTIVATION, QFormat
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.fakequant import AffineQuantizer
from edgesmith.quantize.options import ACTIVATION_FORMATS, WEIGHT_FORMATS
from edgesmith.quantize.qat.activations import ActivationQuantizer
from edgesmith.quantize.qat.rounding import (
    exponential,
    fake_quantize,
    nearest_power_of_two,
    round_bias,
    rounded,
)
from edgesmith.quantize.weights import WeightScales, bias_codes

QUANTIZED = [fmt for fmt in ACTIVATION_FORMATS.values() if not fmt.is_float32]
FINITE = st.floats(-1e4, 1e4, width=32)
SCALES = st.floats(2.0**-20, 2.0**10, width=32)


def reference(x: Tensor, scale: Tensor, zero_point: int, fmt: QFormat) -> Tensor:
    """What the network that is scored computes."""
    found: Tensor = AffineQuantizer(scale, zero_point, fmt)(x)[0]
    return found


@pytest.mark.parametrize("fmt", QUANTIZED, ids=str)
@given(st.lists(FINITE, min_size=1, max_size=40), SCALES, st.integers(-128, 127))
def test_activations_equal_the_scored_arithmetic(
    fmt: QFormat, values: list[float], scale: float, zero: int
) -> None:
    zero = 0 if fmt.symmetric else int(np.clip(zero, fmt.qmin, fmt.qmax))
    start = Affine(np.float32(scale), zero, fmt)
    halves = np.arange(-20, 20, dtype=np.float32) * np.float32(0.5) * start.scale  # ties
    x = torch.from_numpy(np.concatenate([np.array(values, np.float32), halves]))
    found = ActivationQuantizer(start)(x).detach()
    assert torch.equal(found, reference(x, torch.tensor(start.scale), zero, fmt))
    assert np.array_equal(found.numpy(), start.dequantize(start.codes(x.numpy())))


@pytest.mark.parametrize("name", WEIGHT_FORMATS)
@given(st.integers(0, 2**31), SCALES)
def test_weights_equal_the_scored_arithmetic(name: str, seed: int, scale: float) -> None:
    fmt = WEIGHT_FORMATS[name]
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.5, 2, (3, 1)).astype(np.float32) * np.float32(scale)
    x = torch.from_numpy((rng.standard_normal((3, 30)) * 3 * scales).astype(np.float32))
    found = fake_quantize(x, torch.from_numpy(scales), None, fmt)
    assert torch.equal(found, reference(x, torch.from_numpy(scales), 0, fmt))
    kept = WeightScales(scales.reshape(-1), fmt)
    assert np.array_equal(found.numpy(), kept.dequantize(kept.codes(x.numpy())))


@pytest.mark.parametrize("name", ["fp8-e4m3", "fp8-e5m2"])
def test_native_float8_rounds_as_the_reference_between_all_neighbours(name: str) -> None:
    fmt = ACTIVATION_FORMATS[name]
    grid = torch.unique(rounded(torch.logspace(-30, 18, 40_000, 2), torch.ones(()), None, fmt))
    x = torch.cat([grid, (grid[1:] + grid[:-1]) / 2])  # values, and the ties between them
    x = torch.cat([x, torch.nextafter(x, x + 1), torch.nextafter(x, x - 1)])
    x = torch.cat([x, -x])
    assert len(grid) > 100
    assert torch.equal(rounded(x, torch.ones(()), None, fmt), reference(x, torch.ones(()), 0, fmt))


def analytic(
    x: np.ndarray, scale: float, zero: int, fmt: QFormat, given: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """Equations 3 and 5 of LSQ, and those of LSQ+ for the zero point, number by number."""
    to_x, to_scale, to_zero = np.zeros(len(x)), 0.0, 0.0
    low, high = fmt.qmin - zero, fmt.qmax - zero
    for index, (value, gradient) in enumerate(zip(x, given, strict=True)):
        v = float(value) / scale
        if low < v < high:
            to_x[index] = gradient
            to_scale += gradient * (round(v) - v)
        else:
            to_scale += gradient * (low if v <= low else high)
            to_zero += gradient * -scale
    return to_x, to_scale, to_zero


@given(st.integers(0, 2**31), st.sampled_from([4, 8]), st.integers(-8, 7))
def test_gradients_are_those_of_lsq(seed: int, bits: int, zero: int) -> None:
    fmt, rng = QFormat(bits), np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal(200).astype(np.float32) * 3).requires_grad_()
    scale = torch.tensor(float(np.float32(rng.uniform(0.05, 0.6))), requires_grad=True)
    offset = torch.tensor(float(zero), requires_grad=True)
    given = rng.standard_normal(200).astype(np.float32)
    fake_quantize(x, scale, offset, fmt, 0.5).backward(torch.from_numpy(given))
    to_x, to_scale, to_zero = analytic(x.detach().numpy(), scale.item(), zero, fmt, given)
    assert x.grad is not None
    assert scale.grad is not None
    assert offset.grad is not None
    assert np.allclose(x.grad.numpy(), to_x)
    assert scale.grad.item() == pytest.approx(0.5 * to_scale, rel=1e-3, abs=2e-3)
    assert offset.grad.item() == pytest.approx(0.5 * to_zero, rel=1e-3, abs=1e-4)


def test_the_gradient_of_the_scale_is_the_slope_of_the_quantizer() -> None:
    """Between the points where a code changes y is s times a constant, whatever the format is."""
    x = torch.tensor([7.3, -100.0, 55.0])  # all clipped: y = s * bound
    for fmt in (INT8_ACTIVATION, FP8_E4M3, INT4_WEIGHT):
        scale = torch.tensor([0.001], requires_grad=True)
        fake_quantize(x, scale, None, fmt).sum().backward()
        higher, lower = (fake_quantize(x, torch.tensor([s]), None, fmt).sum() for s in (2e-3, 1e-3))
        assert scale.grad is not None
        assert scale.grad.item() == pytest.approx(float(higher - lower) / 1e-3, rel=1e-4)


def test_scales_per_channel_have_gradients_of_their_own() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, generator=generator)
    given = torch.randn(3, 5, generator=generator)
    scales = torch.tensor([[0.1], [0.2], [0.3]], requires_grad=True)
    fake_quantize(x, scales, None, INT4_WEIGHT).backward(given)
    assert scales.grad is not None
    for row in range(3):
        scale = scales[row, 0].detach().clone().requires_grad_()
        fake_quantize(x[row], scale, None, INT4_WEIGHT).backward(given[row])
        assert scale.grad is not None
        assert scales.grad[row].item() == pytest.approx(scale.grad.item(), rel=1e-4, abs=1e-5)


def test_memory_layout_changes_neither_values_nor_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        generator.manual_seed(0)
        x = torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=layout).requires_grad_()
        scale = torch.tensor(0.02, requires_grad=True)
        y = fake_quantize(x, scale, torch.tensor(3.0), INT8_ACTIVATION)
        # A gradient that lies in memory otherwise than the values.
        y.backward(torch.randn(2, 3, 4, 5, generator=generator))
        assert x.grad is not None
        assert scale.grad is not None
        found.append((y.detach(), x.grad, scale.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][2].item() == pytest.approx(found[1][2].item(), rel=1e-4)


def test_rounding_stays_float32_under_autocast() -> None:
    quantizer = ActivationQuantizer(Affine(np.float32(0.0123), 7, INT8_ACTIVATION))
    x = torch.linspace(-2, 2, 1001)
    plain = quantizer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer(x), plain)
        assert quantizer(x.bfloat16()).dtype is torch.float32
        assert torch.equal(quantizer(x.bfloat16()), quantizer(x.bfloat16().float()))


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_scales_start_exactly_where_they_are_told(initial: float) -> None:
    start = torch.tensor(initial)
    assert torch.equal(exponential(torch.zeros(()), start, powers=False), start)
    power = nearest_power_of_two(start)
    assert torch.frexp(power).mantissa == 0.5
    assert abs(float(torch.log2(power) - torch.log2(start))) <= 0.5 + 1e-5
    assert torch.equal(exponential(torch.zeros(()), power, powers=True), power)


def test_a_power_of_two_moves_when_its_logarithm_passes_the_middle() -> None:
    start = torch.tensor(0.25)
    found = [
        float(exponential(torch.tensor(x), start, powers=True)) for x in (0.3, 0.4, -0.3, -0.4)
    ]
    assert found == [0.25, 0.5, 0.25, 0.125]


def test_zero_points_move_by_whole_codes_where_they_may() -> None:
    quantizer = ActivationQuantizer(
        Affine(np.float32(0.1), -20, INT8_ACTIVATION), moves_zero_point=True
    )
    assert quantizer.offset is not None
    quantizer(torch.full((1, 4), 100.0)).sum().backward()  # all above the range
    assert quantizer.offset.grad is not None
    # d y / d z = -s for clipped values, damped by 1 / sqrt(features * qmax), times the range.
    damping = 1 / np.sqrt(4 * 127)
    assert quantizer.offset.grad.item() == pytest.approx(-0.1 * 4 * damping * 255, rel=1e-5)
    quantizer.offset.data.fill_(2.6 / 255)
    assert quantizer.affine().zero_point == -17
    one_sided = Affine(np.float32(0.1), -128, INT8_ACTIVATION)
    assert ActivationQuantizer(one_sided, moves_zero_point=True).offset is None


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=2), st.sampled_from([32, 64]))
def test_biases_equal_the_frozen_codes(bias: list[float], bits: int) -> None:
    values = np.array(bias, np.float32)
    scales = WeightScales(np.array([0.01, 3e-5], np.float32), INT4_WEIGHT)
    source = np.float32(0.0371)
    codes = bias_codes(values, scales, source, bits)
    expected = codes.astype(np.float32) * scales.bias(source)
    found = round_bias(torch.from_numpy(values), torch.from_numpy(scales.bias(source)), bits)
    assert np.array_equal(found.numpy(), expected)


def test_powers_of_two_are_formats_too() -> None:
    fmt = replace(INT4_WEIGHT, power_of_two_scale=True)
    scales = WeightScales(np.full(1, 0.5, np.float32), fmt)
    assert scales.codes(np.full((1, 1), 0.75, np.float32))[0, 0] == 2
    assert rounded(torch.tensor([0.75]), torch.tensor([0.5]), None, fmt).item() == 2
