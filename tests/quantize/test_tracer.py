"""What Python decides by shapes is decided; what it decides by values or the batch is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.trace import trace
from edgesmith.quantize.tracer import Undecidable, traced
from tests.quantize.test_normalize import IMAGE, Lambda, prepared


class Positions(nn.Module):
    """Checks, crops, loops and scales by shapes, as models that are published do."""

    fixed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3)
        self.learned = nn.Parameter(torch.randn(1, 6, 9, 9))
        self.register_buffer("fixed", torch.randn(1, 6, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() == 4, "images"
        samples, _, high, wide = x.shape
        if high > wide or x.shape[1:] != (4, 6, 8):
            raise ValueError("wide images of four channels")
        x = self.conv(x)
        x = x + self.learned[:, :, : x.shape[2], : x.shape[3]]
        x = x + self.fixed[:, :, : x.shape[2], : x.size(3)]
        x = x * float(x.shape[1]) ** -0.5
        for _ in range(int(x.shape[2] / 2)):
            x = self.conv(torch.cat([x[:, :4], x[:, :4]], 1)[:, :4]) if 8 in x.shape else x.relu()
        parts = [part * 2 for part in x.chunk(2, 1)]
        x = torch.cat([*parts, *parts][: len(parts)], 1)
        return x.reshape(samples, min(x.shape[1], 6), -1)


def test_shapes_decide() -> None:
    torch.manual_seed(0)
    model = Positions().eval()
    x = torch.randn(5, *IMAGE)
    found = trace(model, x[:1]).module
    assert torch.equal(found(x), model(x))
    network = prepare(model, x)
    assert torch.allclose(network(x), model(x), atol=1e-5)


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_answers_are_those_of_the_shape(channels: int, high: int, wide: int) -> None:
    """Every question that Python asks, of every number that a shape holds."""

    def forward(x: Tensor) -> Tensor:
        for size in x.shape[1:]:
            for at in range(size):
                x = x + at
            x = x * int(size) + float(size) + math.sqrt(size) if size > 2 else -x
        return x.relu() if x.numel() // x.shape[0] % 2 == 1 else x

    model = Lambda(forward)
    x = torch.randn(2, channels, high, wide)
    assert torch.equal(trace(model, x[:1]).module(x), model(x))


def doubled_if_known(x: Tensor) -> Tensor:
    try:
        return x * 2 if x.shape[1] == 4 else x
    except Exception:  # what some models do
        return x


def test_questions_pass_what_catches_everything() -> None:
    x = torch.randn(2, *IMAGE)
    assert torch.equal(trace(Lambda(doubled_if_known), x[:1]).module(x), 2 * x)


def test_a_constant_of_the_model_may_be_asked() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.tensor([2.0]))

        def forward(self, x: Tensor) -> Tensor:
            return x.relu() if self.gate > 1 else x

    assert [step.op.label for step in prepared(Gated()).steps] == ["relu"]


def by_rows(x: Tensor) -> Tensor:
    return torch.stack([*x])


REFUSED: list[tuple[Callable[[Tensor], Any], str]] = [
    (lambda x: x if x.max().item() > 0 else -x, "Python asks what a tensor holds"),
    (lambda x: x if x.sum() > 0 else -x, "Python asks what a tensor holds"),
    (lambda x: x * int(x.sum()), "Python asks what a tensor holds"),
    (lambda x: x * float(x.mean()), "Python asks what a tensor holds"),
    (lambda x: x if x.size(0) * x.mean() > 0 else -x, "Python asks what a tensor holds"),
    (lambda x: x if len(x) == 7 else -x, "Python asks for the batch size"),
    (lambda x: sum(x + at for at in range(x.shape[0])), "Python asks for the batch size"),
    (lambda x: x if x.numel() > 400 else -x, "Python asks for the batch size"),
    (by_rows, "Python asks for the batch size"),
]


@pytest.mark.parametrize(("forward", "says"), REFUSED, ids=range(len(REFUSED)))
def test_what_differs_between_samples_is_refused(
    forward: Callable[[Tensor], Tensor], says: str
) -> None:
    with pytest.raises(QuantizationError, match=f"Lambda cannot be traced: {says}") as caught:
        prepared(Lambda(forward))
    assert "test_tracer.py" in caught.value.message
    assert "fixed sequence" in caught.value.fix


def test_only_what_is_asked_is_run() -> None:
    """A forward pass without questions is traced once, and nothing of it runs."""
    ran: list[fx.GraphModule] = []

    def outputs(module: fx.GraphModule) -> list[Any]:
        ran.append(module)
        return [module(torch.zeros(n, *IMAGE)) for n in (2, 3)]

    traced(Lambda(torch.relu), None, outputs)
    assert not ran
    traced(Lambda(lambda x: x if x.dim() == 4 else -x), None, outputs)
    assert [node.op for node in ran[0].graph.nodes] == [
        "placeholder",
        "call_method",
        "call_function",
        "output",
    ]
    with pytest.raises(Undecidable):
        traced(Lambda(by_rows), None, outputs)
