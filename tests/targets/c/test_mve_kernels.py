"""The MVE kernels compute the reference executor's bytes, on an emulated Cortex-M55."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.targets.c.lowerings.base import Declined, Site, lower_op
from edgesmith.targets.c.lowerings.mve_depthwise import depthwise_conv2d
from edgesmith.targets.c.lowerings.mve_matrix import conv2d
from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import (
    Activation,
    DType,
    Graph,
    Op,
    Padding,
    Quantization,
    Tensor,
)
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


def fields(**given: Any) -> dict[str, Any]:
    """Fields of an operator whose kind is known at run time only."""
    return given


# Bits right of the output's lowest: from left shifts to none of the sum being left.
SHIFTS = (-3, 0, 1, 2, 7, 15, 24, 30, 31, 33)
# Operators whose products are all zero, by how positions and channels reach the requantization:
# operator, input shape before channels, weights before channels (depthwise) or behind them.
FORMS: dict[str, tuple[Op, tuple[int, ...], tuple[int, ...]]] = {
    "one position": (ir.FullyConnected("", (), ("",)), (1,), (17,)),
    "two positions": (ir.FullyConnected("", (), ("",)), (3,), (17,)),
    "narrow": (ir.FullyConnected("", (), ("",)), (3,), (1,)),
    "taps": (ir.DepthwiseConv2D("", (), ("",)), (1, 2, 2), (1, 2, 2)),
    "columns": (ir.DepthwiseConv2D("", (), ("",)), (1, 3, 11), (1, 3, 3)),
}


@pytest.mark.parametrize("activation", [Activation.NONE, Activation.RELU])
@pytest.mark.parametrize("form", FORMS)
def test_ties_round_as_the_reference_does(
    form: str, activation: Activation, tmp_path: Path
) -> None:
    """The sums are the biases: around every half of the output's step that a code can show.

    Layers have all shifts of a kind, so that each way of rounding is taken.
    """
    plain, source, window = FORMS[form]
    op: Op = replace(plain, **fields(activation=activation))
    layers = []
    for index, shifts in enumerate((SHIFTS, SHIFTS[2:], SHIFTS[1:3], SHIFTS[3:8])):
        bias, scale = _around_ties(shifts, index)
        depthwise = isinstance(op, ir.DepthwiseConv2D)
        channels = (len(bias),)
        weights = Weights(
            np.zeros(window + channels if depthwise else channels + window, np.int8),
            bias,
            scale,
            axis=3 if depthwise else 0,
        )
        shape = source + (channels if depthwise else window)
        zero = 5 if index % 2 else -5
        layers.append(layer(index, op, shape, weights, (0, zero), (1.0, 1.0)))
    graph = network(layers)
    check_exact(graph, codes_of(graph, np.random.default_rng(0), 1), tmp_path)


def _around_ties(shifts: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and their multipliers, a multiple of four of them."""
    factors, sums = [], []
    for shift in shifts:
        for fraction in (0.5, 0.625, 2.0**-1 + 2.0**-20, 1 - 2.0**-24):
            real = fraction * 2.0**-shift
            halves = (np.arange(-130, 130) + 0.5) / real
            near = (np.rint(halves)[:, None] + np.arange(-2, 3)).reshape(-1)
            near = np.append(near, (-(2.0**31), 2.0**31 - 1, 0))
            near = near[(near >= -(2.0**31)) & (near < 2.0**31)].astype(np.int64)
            kept = np.random.default_rng(seed).permutation(np.unique(near))[:40]
            sums.append(kept)
            factors.append(np.full(len(kept), real))
    bias = np.concatenate(sums)
    count = len(bias) // 4 * 4
    return bias[:count], np.concatenate(factors)[:count]


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


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("activation", [Activation.NONE, Activation.RELU6])
def test_long_rows_of_3x3_windows_are_exact(
    stride: int, activation: Activation, tmp_path: Path
) -> None:
    """Columns of codes: every remainder of four outputs, every padding, an input ending early."""
    rng = np.random.default_rng(stride)
    layers = []
    for index in range(MOST_LAYERS):
        channels = 4 * int(rng.integers(1, 6))
        shape = (1, 3, 3, channels)
        weights = Weights(
            rng.integers(-127, 128, shape).astype(np.int8),
            rng.integers(-3000, 3000, channels),
            rng.uniform(0.001, 0.01, channels),
            axis=3,
        )
        height, width = int(rng.integers(1, 5)), (8 * stride + index % 4) * stride + 2
        padding = Padding(*(int(n) for n in rng.integers(0, 3, 4)))
        padding = Padding(padding.top + 1, padding.bottom + 1, padding.left, padding.right)
        steps = (stride + index % 2, stride)
        op = ir.DepthwiseConv2D("", (), ("",), stride=steps, padding=padding, activation=activation)
        source = (1 + index % 2, height, width, channels)
        layers.append(layer(index, op, source, weights, (-7, 3), (0.05, 0.02)))
    graph = network(layers)
    program = check_exact(graph, codes_of(graph, rng, 2), tmp_path)
    assert set(functions(program)) == {"es_mve_depthwise_3x3_s8"}


@pytest.mark.parametrize("activation", [Activation.NONE, Activation.RELU6])
def test_narrow_pointwise_layers_are_exact(activation: Activation, tmp_path: Path) -> None:
    """Up to 16 codes per position, and any number of positions in the last strip."""
    rng = np.random.default_rng(3)
    layers = []
    for index, depth in enumerate((1, 3, 8, 12, 15, 16, 16, 2)):
        outputs = 4 * int(rng.integers(1, 5))
        weights = Weights(
            rng.integers(-127, 128, (outputs, 1, 1, depth)).astype(np.int8),
            rng.integers(-3000, 3000, outputs),
            rng.uniform(0.001, 0.01, outputs),
        )
        op = ir.Conv2D("", (), ("",), activation=activation)
        source = (1 + index % 2, 3, int(rng.integers(1, 12)), depth)
        layers.append(layer(index, op, source, weights, (-7, 3), (0.05, 0.02)))
    graph = network(layers)
    program = check_exact(graph, codes_of(graph, rng, 2), tmp_path)
    assert set(functions(program)) == {"es_mve_pointwise_narrow_s8"}


@pytest.mark.parametrize("kind", [ir.Add, ir.Sub])
def test_sums_of_all_pairs_of_codes_are_exact(kind: type[Op], tmp_path: Path) -> None:
    """Two tensors whose elements meet in all 65,536 ways, and some that fill no vector."""
    codes = np.arange(-128, 128, dtype=np.int8)
    pairs = np.array(np.meshgrid(codes, codes)).reshape(2, -1)
    first, second = (np.append(each, each[:7])[None, None] for each in pairs)
    shape = first.shape[1:]
    tensors = {
        name: Tensor(name, shape, DType.INT8, Quantization.per_tensor(scale, zero))
        for name, scale, zero in (("a", 0.0312347, -7), ("b", 0.0473219, 11), ("y", 0.0531171, 4))
    }
    op = kind("op", ("a", "b"), ("y",))
    graph = Graph("sum", tensors, (op,), ("a", "b"), ("y",))
    program = check_exact(graph, [first, second], tmp_path)
    assert set(functions(program)) == {"es_mve_add_affine_s8"}


@pytest.mark.parametrize(
    ("op", "source", "weights", "scratch"),
    [
        (ir.Conv2D, (1, 7, 7, 32), (20, 3, 3, 32), (2 * 288, 288)),
        (ir.DepthwiseConv2D, (1, 9, 64, 32), (1, 3, 3, 32), (4 * 66 * 4, 32 + 4 * 9)),
    ],
)
def test_without_scratch_the_same_is_computed(
    op: type[Op],
    source: tuple[int, ...],
    weights: tuple[int, ...],
    scratch: tuple[int, int],
    tmp_path: Path,
) -> None:
    """Limits leave convolutions one position at a time, and depthwise ones without columns."""
    rng = np.random.default_rng(1)
    channels = weights[0] if op is ir.Conv2D else weights[3]
    held = Weights(
        rng.integers(-127, 128, weights).astype(np.int8),
        np.zeros(channels),
        np.full(channels, 1e-3),
        axis=0 if op is ir.Conv2D else 3,
    )
    whole = replace(op("", (), ("",)), **fields(padding=Padding(1, 1, 1, 1)))
    graph = network([layer(0, whole, source, held, (9, 0), (0.05, 0.2))])
    inputs = codes_of(graph, rng, 2)
    for plan, expected in zip(("speed", "memory"), scratch, strict=True):
        program = check_exact(graph, inputs, tmp_path / plan, plan)
        assert program.calls[0].scratch_bytes == expected


def test_what_is_not_written_is_declined_with_the_reason() -> None:
    """And the portable kernels take over."""
    rng = np.random.default_rng(2)
    zeros = np.zeros(8)
    codes = rng.integers(-127, 128, (8, 3, 3, 2)).astype(np.int8)
    grouped = ir.Conv2D("", (), ("",), groups=2)
    multiplied = ir.DepthwiseConv2D("", (), ("",), multiplier=2)
    least = ir.DepthwiseConv2D("", (), ("",))
    cases = (
        (conv2d, grouped, Weights(codes, zeros, np.ones(8)), "groups"),
        (
            depthwise_conv2d,
            multiplied,
            Weights(codes.reshape(1, 3, 3, 16)[..., :8], zeros, np.ones(8), axis=3),
            "multipliers",
        ),
        (
            depthwise_conv2d,
            least,
            Weights(np.full((1, 2, 2, 4), -128, np.int8), np.zeros(4), np.ones(4), axis=3),
            "16 bits",
        ),
    )
    for lower, op, weights, reason in cases:
        graph = network([layer(0, op, (1, 5, 5, 4), weights)])
        site = Site(graph, KernelSet.MVE)
        found = lower(graph.ops[0], site)  # type: ignore[arg-type]
        assert isinstance(found, Declined)
        assert reason in found.reason
        assert lower_op(graph.ops[0], site).sources[0].startswith("portable/")
