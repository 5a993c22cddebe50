"""Layers joined into one program. Needs no tool."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgesmith.targets.c.assemble import assemble
from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.cortex_m4 import CortexM4
from edgesmith.targets.cost import batch
from edgesmith.targets.cost.batch import batches, together
from edgesmith.targets.cost.emulate import SAMPLES, random_bytes
from edgesmith.targets.cost.layers import Layer, Operand, layers_of
from tests.targets.cost.networks import convolution, random_network


def layer_of(size: int = 8) -> Layer:
    return layers_of(assemble(Site(convolution(size=size), KernelSet.DSP)))[0]


def test_a_batch_ends_at_any_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of()
    many = [layer] * 10
    assert [len(each) for each in batches(many)] == [10]
    monkeypatch.setattr(batch, "MOST_LAYERS", 4)
    assert [len(each) for each in batches(many)] == [4, 4, 2]
    monkeypatch.setattr(batch, "MOST_MACS", 3 * layer.call.macs)
    assert [len(each) for each in batches(many)] == [3, 3, 3, 1]
    monkeypatch.setattr(batch, "MOST_CONSTANT_BYTES", 1)
    assert [len(each) for each in batches(many)] == [1] * 10


def test_no_layers_are_no_batch() -> None:
    assert list(batches([])) == []


@settings(max_examples=20)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=4))
def test_every_layer_is_a_function_and_the_output_holds_the_largest(seeds: list[int]) -> None:
    programs = (assemble(Site(random_network(seed, CortexM4()), KernelSet.DSP)) for seed in seeds)
    layers = [layer for program in programs for layer in layers_of(program)]
    assume(layers)
    joined = together(layers, KernelSet.DSP)
    text = joined.library.files["model.c"].decode()
    assert text.count("noinline)) void model_layer_") == len(layers)
    assert joined.output_bytes >= max(sum(each.bytes for each in layer.writes) for layer in layers)


def test_a_misaligned_operand_stays_misaligned() -> None:
    layer = layer_of()
    operand = layer.reads[0]
    assert isinstance(operand, Operand)
    moved = replace(layer, reads=(replace(operand, misalignment=3),))
    text = together([moved], KernelSet.DSP).library.files["model.c"].decode()
    assert "(const void *)(model_arena + 3)" in text


def test_a_layer_sees_the_same_bytes_in_every_batch() -> None:
    few, many = random_bytes(10), random_bytes(1001)
    assert few.shape == (SAMPLES, 10)
    assert (few == many[:, :10]).all()
    assert len({row.tobytes() for row in many}) == SAMPLES
