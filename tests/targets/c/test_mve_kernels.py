"""The MVE kernels compute the reference executor's bytes, on an emulated Cortex-M55."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, Op, Padding
from tests.targets.c.mve_networks import (
    MOST_LAYERS,
    Weights,
    check_exact,
    codes_of,
    drawn_layer,
    functions,
    layer,
    network,
)

SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("kind", [ir.Conv2D, ir.DepthwiseConv2D, ir.FullyConnected])
@settings(max_examples=4, deadline=None)
@given(SEEDS)
def test_drawn_layers_are_exact(kind: type[Op], seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = network(drawn_layer(index, kind, rng) for index in range(MOST_LAYERS))
    with tempfile.TemporaryDirectory() as folder:
        program = check_exact(graph, codes_of(graph, rng, 2), Path(folder))
    assert all("mve" in name for name in functions(program))


# Bits right of the output's lowest: from left shifts to none of the sum being left.
SHIFTS = (-3, 0, 1, 2, 7, 15, 24, 30, 31, 33)


@pytest.mark.parametrize("activation", [Activation.NONE, Activation.RELU])
@pytest.mark.parametrize("sign", [1, -1])
def test_ties_round_as_the_reference_does(
    activation: Activation, sign: int, tmp_path: Path
) -> None:
    """The sums are the biases: around every half of the output's step that a code can show.

    Layers have all shifts of a kind, so that each way of rounding is taken.
    """
    layers = []
    for index, shifts in enumerate((SHIFTS, SHIFTS[2:], SHIFTS[1:3], SHIFTS[3:8])):
        factors, sums = [], []
        for shift in shifts:
            for fraction in (0.5, 0.625, 2.0**-1 + 2.0**-20, 1 - 2.0**-24):
                real = fraction * 2.0**-shift
                halves = (np.arange(-130, 130) + 0.5) / real
                near = (np.rint(halves)[:, None] + np.arange(-2, 3)).reshape(-1)
                near = np.append(near, (-(2.0**31), 2.0**31 - 1, 0))
                near = near[(near >= -(2.0**31)) & (near < 2.0**31)].astype(np.int64)
                kept = np.random.default_rng(index).permutation(np.unique(near))[:40]
                sums.append(kept)
                factors.append(np.full(len(kept), real))
        bias, scale = np.concatenate(sums), np.concatenate(factors)
        weights = Weights(np.zeros((len(bias), 1), np.int8), bias, scale)
        op = ir.FullyConnected("", (), ("",), activation)
        layers.append(layer(index, op, (1, 1), weights, (0, 5 * sign), (1.0, 1.0)))
    graph = network(layers)
    check_exact(graph, codes_of(graph, np.random.default_rng(0), 1), tmp_path)


def test_sums_of_the_largest_products(tmp_path: Path) -> None:
    """All codes and weights at the ends of their ranges, where 16-bit sums come closest."""
    same = Padding(1, 1, 1, 1)
    layers = []
    for index, (bits, low) in enumerate(((8, -127), (8, 127), (4, -8), (4, 7))):
        shape = (1, 3, 3, 24)
        weights = Weights(np.full(shape, low, np.int8), np.zeros(24), np.full(24, 1e-3), bits, 3)
        op = ir.DepthwiseConv2D("", (), ("",), padding=same)
        layers.append(layer(2 * index, op, (1, 12, 12, 24), weights, (3, 0), (0.05, 0.5)))
        shape = (9, 3, 3, 24)
        weights = Weights(np.full(shape, low, np.int8), np.zeros(9), np.full(9, 1e-3), bits)
        conv = ir.Conv2D("", (), ("",), padding=same)
        layers.append(layer(2 * index + 1, conv, (1, 5, 6, 24), weights, (3, 0), (0.05, 10.0)))
    graph = network(layers)
    shapes = [graph[name].shape for name in graph.inputs]
    inputs = [np.stack([np.full(s, v, np.int8) for v in (-128, 127)]) for s in shapes]
    check_exact(graph, inputs, tmp_path)


def test_the_smallest_scratch_computes_the_same(tmp_path: Path) -> None:
    """A limit below two patches makes the convolution take one position at a time."""
    from edgesmith.targets.c.lowerings.base import Site
    from edgesmith.targets.c.lowerings.mve_matrix import conv2d
    from edgesmith.targets.c.program import Call, KernelSet

    rng = np.random.default_rng(1)
    graph = network([drawn_layer(0, ir.Conv2D, rng)])
    op = graph.ops[0]
    assert isinstance(op, ir.Conv2D)
    wide = conv2d(op, Site(graph, KernelSet.MVE))
    narrow = conv2d(op, Site(graph, KernelSet.MVE, scratch_bytes=1))
    assert isinstance(wide, Call)
    assert isinstance(narrow, Call)
    assert 2 * narrow.scratch_bytes == wide.scratch_bytes
