"""Weight quantizers of one and two bits, against their papers' formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from edgesmith.pipeline.values import INT4_WEIGHT, Granularity, QFormat
from edgesmith.quantize.options import WEIGHT_FORMATS
from edgesmith.quantize.qat.options import WeightQuantizerName
from edgesmith.quantize.qat.weights import LSQ, XNOR, DoReFa, WeightQuantizer, weight_quantizer

INT1, INT2 = WEIGHT_FORMATS["int1"], WEIGHT_FORMATS["int2"]


def weight(seed: int = 0) -> Tensor:
    return torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(seed))


def made(name: WeightQuantizerName, fmt: QFormat, values: Tensor) -> WeightQuantizer:
    scales = torch.full((4 if fmt.granularity is Granularity.PER_CHANNEL else 1,), 0.5)
    return weight_quantizer(name, values, scales, fmt)


def test_binary_weights_are_sign_times_mean_magnitude_of_every_step() -> None:
    for seed in (0, 1):
        values = weight(seed)
        found, scale = made("xnor", INT1, weight(0))(values, None)
        expected = values.abs().mean((1, 2, 3), keepdim=True)
        assert torch.allclose(scale, expected)
        assert torch.allclose(found, torch.sign(values) * expected)


def test_binary_gradients_are_those_of_xnor_net() -> None:
    """g * s inside of the bound, by the sign; and what the mean magnitude passes on."""
    values = weight().requires_grad_()
    given = torch.randn(values.shape, generator=torch.Generator().manual_seed(5))
    found, scale = made("xnor", INT1, weight())(values, None)
    found.backward(given)
    sign, size = torch.sign(values), values[0].numel()
    inside = values.abs() <= 3 * scale
    through_mean = sign * (given * sign).sum((1, 2, 3), keepdim=True) / size
    assert values.grad is not None
    assert torch.allclose(values.grad, given * scale * inside + through_mean, atol=1e-6)
    assert not inside.all()


def test_dorefa_takes_one_magnitude_for_the_layer() -> None:
    values = weight()
    found, _ = made("dorefa", INT1, values)(values, None)
    assert torch.allclose(found, torch.sign(values) * values.abs().mean())


def test_dorefa_squashes_before_it_rounds() -> None:
    values = weight()
    quantizer = made("dorefa", INT2, values)
    codes, scale = quantizer.codes(values, None)
    unit = 2 * values.abs().mean((1, 2, 3), keepdim=True)
    squashed = torch.tanh(values / unit)
    expected = torch.round(squashed / squashed.abs().amax((1, 2, 3), keepdim=True))
    assert torch.equal(codes, expected)
    assert set(codes.unique().tolist()) == {-1.0, 0.0, 1.0}
    # It starts at the scale of least error for these codes.
    error = (codes * scale - values).square().sum()
    assert all(error <= (codes * scale * f - values).square().sum() for f in (0.98, 1.02))


def test_the_name_decides_only_where_it_has_a_meaning() -> None:
    values = weight()
    kinds = {
        ("auto", INT1): XNOR,
        ("xnor", INT1): XNOR,
        ("dorefa", INT1): XNOR,
        ("lsq", INT1): LSQ,
        ("auto", INT2): LSQ,
        ("xnor", INT2): LSQ,
        ("dorefa", INT2): DoReFa,
        ("dorefa", INT4_WEIGHT): LSQ,
        ("dorefa", WEIGHT_FORMATS["e2m1"]): LSQ,
    }
    names: tuple[WeightQuantizerName, ...] = ("auto", "xnor", "dorefa", "lsq")
    for name in names:
        for fmt in (INT1, INT2, INT4_WEIGHT, WEIGHT_FORMATS["e2m1"]):
            if (name, fmt) in kinds:
                assert type(made(name, fmt, values)) is kinds[name, fmt]


@pytest.mark.parametrize("name", ["lsq", "xnor", "dorefa"])
@pytest.mark.parametrize("powers", [False, True])
@pytest.mark.parametrize("fmt", [INT1, INT2, WEIGHT_FORMATS["int2-per-tensor"]], ids=str)
def test_codes_times_scale_are_what_training_computes(
    name: WeightQuantizerName, powers: bool, fmt: QFormat
) -> None:
    values = weight()
    quantizer = made(name, replace(fmt, power_of_two_scale=powers), values)
    found, scale = quantizer(values * 1.3, None)
    codes, same = quantizer.codes(values * 1.3, None)
    assert torch.equal(scale, same)
    assert torch.equal(found, codes * scale)
    assert not powers or (torch.frexp(scale).mantissa == 0.5).all()
    assert np.isin(codes.unique().numpy(), (-1, 0, 1)).all()


def test_a_scale_is_never_below_the_legal_one() -> None:
    values, least = weight(), torch.full((4, 1, 1, 1), 9.0)
    names: tuple[WeightQuantizerName, ...] = ("lsq", "xnor")
    for name in names:
        _, scale = made(name, INT1, values)(values, least)
        assert torch.equal(scale, least)
