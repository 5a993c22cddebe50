"""Activations packed as codes: the same values and gradients, in a quarter of the memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from edgesmith.nas.codes import Codes, Grid
from edgesmith.nas.rounding import rounded_input
from edgesmith.quantize.options import ACTIVATION_FORMATS

INTEGERS = sorted(
    n for n, each in ACTIVATION_FORMATS.items() if not each.is_float and each.bits <= 8
)


@given(
    st.sampled_from(INTEGERS),
    st.integers(0, 1000),
    st.floats(-3.0, 3.0),
    st.floats(1e-6, 1e6),
)
def test_unpacked_is_what_was_packed_to_the_last_bit(
    name: str, seed: int, middle: float, width: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(2, 4, 3, 3, generator=generator) + middle) * width
    codes = Codes()
    values = rounded_input(x.contiguous(memory_format=torch.channels_last), name, codes)
    held = codes.pack(values)
    assert not isinstance(held, torch.Tensor)
    assert held.codes.dtype == torch.uint8
    again = codes.unpack(held)
    assert torch.equal(again, values)
    assert again.stride() == values.stride()


@pytest.mark.parametrize("name", ["int16", "fp8-e4m3", "float32"])
def test_what_no_byte_holds_stays_as_it_is(name: str) -> None:
    codes = Codes()
    values = rounded_input(torch.randn(2, 4, 3, 3), name, codes)
    assert codes.pack(values) is values
    assert codes.unpack(values) is values


def test_memory_of_values_that_are_gone_is_not_taken_for_them() -> None:
    codes, grid = Codes(), Grid(torch.tensor(0.5), -128.0, 127.0)
    for size in range(1, 200):
        codes.note(torch.zeros(size, 1000), grid)  # gone at once, its memory free
        other = torch.full((size, 1000), 0.3)
        assert codes.pack(other) is other


def test_gradients_do_not_change() -> None:
    layer = nn.Conv2d(4, 8, 3, padding=1)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)

    def gradients(packs: bool) -> list[torch.Tensor]:
        codes = Codes()
        pack = codes.pack if packs else lambda saved: saved
        with saved_tensors_hooks(pack, codes.unpack):
            out = layer(rounded_input(x.relu(), "int8", codes))
        return list(torch.autograd.grad(out.square().sum(), [x, *layer.parameters()]))

    for one, other in zip(gradients(packs=True), gradients(packs=False), strict=True):
        assert torch.equal(one, other)
