"""Every spelling of an operator becomes the same steps, which compute what the model does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesmith.quantize import ops
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.network import Network
from tests.quantize.nets import NETS, Shape, inputs, make, outputs

IMAGE: Shape = (4, 6, 8)
Forward = Callable[[Tensor], Tensor]


class Lambda(nn.Module):
    """A forward pass given as a function, with one convolution so that there is something to do."""

    def __init__(self, forward: Forward, *parts: nn.Module) -> None:
        super().__init__()
        self.function = forward
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def prepared(model: nn.Module, shape: Shape = IMAGE) -> Network:
    return prepare(model, torch.from_numpy(inputs(shape, 3)))


def sum_of_two(parts: tuple[Tensor, ...]) -> Tensor:
    first, second = parts
    return first + second


def kinds(network: Network) -> list[str]:
    return [step.op.label for step in network.steps]


SPELLINGS: dict[str, tuple[list[str], list[Forward | nn.Module]]] = {
    "relu": (
        ["relu"],
        [F.relu, torch.relu, lambda x: x.relu(), nn.ReLU(), lambda x: x.clamp(min=0)],
    ),
    "relu6": (["relu6"], [F.relu6, nn.ReLU6(), lambda x: torch.clamp(x, 0, 6)]),
    "clamp": (["clamp"], [nn.Hardtanh(-2, 3), lambda x: x.clip(-2, 3)]),
    "sigmoid": (["sigmoid"], [torch.sigmoid, nn.Sigmoid(), lambda x: x.sigmoid()]),
    "tanh": (["tanh"], [torch.tanh, nn.Tanh()]),
    "hardswish": (["hardswish"], [F.hardswish, nn.Hardswish()]),
    "silu": (["sigmoid", "mul"], [F.silu, nn.SiLU(), lambda x: x * x.sigmoid()]),
    "hardsigmoid": (["add", "mul"], [F.hardsigmoid, nn.Hardsigmoid()]),
    "softmax": (["softmax"], [nn.Softmax(-1), lambda x: x.softmax(3), lambda x: F.softmax(x, -1)]),
    "add": (["add"], [lambda x: x + x, lambda x: torch.add(x, x), lambda x: x.add(x)]),
    "negate": (["mul"], [lambda x: -x, lambda x: x * -1.0, lambda x: x / -1]),
    "from a constant": (["sub"], [lambda x: 1 - x]),
    "flatten": (
        ["reshape"],
        [nn.Flatten(), lambda x: x.view(x.size(0), -1), lambda x: x.reshape(x.shape[0], 4 * 48)],
    ),
    "permute": (
        ["transpose"],
        [lambda x: x.permute(0, 1, 3, 2), lambda x: x.transpose(2, 3), lambda x: x.mT],
    ),
    "pad": (["pad"], [lambda x: F.pad(x, (1, 2, 0, 3)), nn.ZeroPad2d((1, 2, 0, 3))]),
    "max pool": (["max_pool"], [nn.MaxPool2d(2), lambda x: F.max_pool2d(x, (2, 2))]),
    "average pool": (
        ["avg_pool"],
        [
            nn.AvgPool2d(2),
            lambda x: F.avg_pool2d(x, 2),
            nn.AdaptiveAvgPool2d((3, 4)),
            nn.AvgPool2d(2, ceil_mode=True),
        ],
    ),
    "padded average pool": (["pad", "avg_pool"], [nn.AvgPool2d(3, 1, 1)]),
    "uncounted padding": (["avg_pool"], [nn.AvgPool2d(3, 1, 1, count_include_pad=False)]),
    "global mean": (
        ["mean"],
        [
            nn.AdaptiveAvgPool2d(1),
            lambda x: x.mean((2, 3), keepdim=True),
            nn.AvgPool2d((6, 8)),
            lambda x: torch.mean(x, dim=[-1, -2], keepdim=True),
        ],
    ),
    "slice": (["slice"], [lambda x: x[:, 1:3], lambda x: x[:, -3:-1, ...]]),
    "pick": (["slice", "reshape"], [lambda x: x[:, 2], lambda x: x[..., 2, :, :]]),
    "halves": (
        ["slice", "slice", "add"],
        [
            lambda x: x.chunk(2, 1)[0] + x.chunk(2, 1)[1],
            lambda x: sum_of_two(torch.split(x, [2, 2], dim=1)),
            lambda x: sum_of_two(x.split(2, -3)),
        ],
    ),
    "concat": (
        ["concat"],
        [lambda x: torch.cat((x, x), 1), lambda x: torch.concat([x, x], dim=-3)],
    ),
    "nearest": (
        ["resize"],
        [nn.Upsample(scale_factor=2), lambda x: F.interpolate(x, size=(12, 16))],
    ),
    "bilinear": (
        ["resize"],
        [
            nn.Upsample(scale_factor=2, mode="bilinear"),
            lambda x: F.interpolate(x, (12, 16), mode="bilinear", align_corners=False),
        ],
    ),
    "matmul": (["transpose", "matmul"], [lambda x: x @ x.mT, lambda x: torch.matmul(x, x.mT)]),
    "nothing": (["relu"], [lambda x: F.dropout(x.contiguous(), 0.5, False).clone().float().relu()]),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_give_the_same_steps_and_values(name: str) -> None:
    expected, spellings = SPELLINGS[name]
    values = inputs(IMAGE, 3)
    for spelling in spellings:
        model = spelling if isinstance(spelling, nn.Module) else Lambda(spelling)
        network = prepared(nn.Sequential(model))
        assert kinds(network) == expected
        np.testing.assert_allclose(outputs(network, values), outputs(model, values), atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_folded_networks_compute_what_the_models_do(name: str) -> None:
    model, values = make(name, 8)
    network = prepare(model, torch.from_numpy(values))
    np.testing.assert_allclose(outputs(network, values), outputs(model, values), atol=2e-5)


def test_groups_of_a_residual_network() -> None:
    """Batch norm and relu live in the groups; names are module paths."""
    network = prepare(*_torch("residual"))
    found = {step.name: (step.op.label, step.activation) for step in network.steps}
    block = {
        f"layer1.{i}.{name}": value
        for i in (0, 1)
        for name, value in (
            ("conv1", ("conv2d", ops.Relu())),
            ("conv2", ("conv2d", None)),
            ("add", ("add", ops.Relu())),
        )
    }
    assert found == {
        "stem.0": ("conv2d", ops.Relu()),
        **block,
        "mean": ("mean", None),
        "reshape": ("reshape", None),
        "fc": ("linear", None),
    }


def _torch(name: str) -> tuple[nn.Module, Tensor]:
    model, values = make(name, 3)
    return model, torch.from_numpy(values)


def test_a_batch_norm_alone_becomes_a_depthwise_convolution() -> None:
    norm = nn.BatchNorm2d(4)
    assert norm.running_mean is not None
    norm.running_mean.normal_()
    network = prepared(nn.Sequential(nn.ReLU(), norm.eval()))
    assert kinds(network) == ["relu", "depthwise_conv2d"]
    assert network.steps[1].name == "1"


def test_a_batch_norm_over_another_axis_is_not_folded_into_a_linear_layer() -> None:
    """On [N, L, D], a linear layer's channels are axis 2 and batch norm's axis 1."""
    norm = nn.BatchNorm1d(5)
    assert norm.running_var is not None
    norm.running_var.uniform_(0.2, 3)
    network = prepared(nn.Sequential(nn.Linear(5, 5), norm.eval()), (5, 5))
    assert kinds(network) == ["linear", "depthwise_conv1d"]


def test_a_branch_before_the_activation_keeps_it_apart() -> None:
    """A tensor that is read with and without its relu is quantized before the relu."""
    conv = nn.Conv2d(4, 4, 1)
    network = prepared(Twice(conv))
    assert kinds(network) == ["conv2d", "relu", "add"]
    assert all(step.activation is None for step in network.steps)


class Twice(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y + F.relu(y)  # type: ignore[no-any-return]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, scale: float = 1.0, extra: Tensor | None = None) -> Tensor:
        if extra is not None:
            x = x + extra
        return self.conv(self.conv(x))  # type: ignore[no-any-return]


def test_a_module_called_twice_gives_two_groups_and_defaults_are_fixed() -> None:
    network = prepared(Shared())
    assert [step.name for step in network.steps] == ["conv", "conv_1"]


def test_dead_branches_are_dropped() -> None:
    network = prepared(Lambda(lambda x: (x.chunk(2, 1)[0], x.sigmoid())[0]))
    assert kinds(network) == ["slice"]


def test_the_model_is_not_changed() -> None:
    model, values = _torch("residual")
    model.train()
    frozen, other = (model.get_submodule(f"layer1.{i}.bn1") for i in (0, 1))
    frozen.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepare(model, values)
    assert model.training
    assert other.training
    assert not frozen.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
