"""DSP kernels under the emulator: equal to the reference in every byte, and as fast as promised."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from edgesmith.targets.c.lowerings.base import Declined
from edgesmith.targets.c.program import Array
from edgesmith.targets.graph.ir import Activation, Padding
from tests.targets.c.dsp_graphs import Spec, drawn_spec, graph_of, inputs_of
from tests.targets.c.dsp_harness import HAVE_TOOLS, Case, lower, run_cases

needs_emulator = pytest.mark.skipif(
    not HAVE_TOOLS, reason="needs arm-none-eabi-gcc and qemu-system-arm"
)

AROUND = Padding(1, 1, 1, 1)
AFTER = Padding(0, 1, 0, 1)

# Layers of the MLPerf Tiny networks, and the instructions per multiply-accumulate to stay below.
# Matrix loops have more of them than they might, for they take fewer cycles so.
LAYERS = {
    "1x1, 64 to 64": (Spec("conv", (1, 25, 5, 64), 64), 1.06),
    "1x1, 128 to 128": (Spec("conv", (1, 6, 6, 128), 128), 0.98),
    "1x1, 64 to 64, unclamped": (
        Spec("conv", (1, 25, 5, 64), 64, activation=Activation.NONE, zeros=(-128, 5)),
        1.08,
    ),
    "3x3, 16 to 16": (Spec("conv", (1, 32, 32, 16), 16, (3, 3), padding=AROUND), 1.05),
    "3x3, 64 to 64": (Spec("conv", (1, 8, 8, 64), 64, (3, 3), padding=AROUND), 0.94),
    "3x3, 3 to 8, stride 2": (
        Spec("conv", (1, 96, 96, 3), 8, (3, 3), (2, 2), padding=AFTER),
        1.62,
    ),
    "10x4, 1 to 64, stride 2": (
        Spec("conv", (1, 49, 10, 1), 64, (10, 4), (2, 2), padding=Padding(4, 5, 1, 1)),
        1.24,
    ),
    "depthwise, 24x24": (Spec("depthwise", (1, 24, 24, 32), 0, (3, 3), padding=AROUND), 2.1),
    "depthwise, 25x5": (Spec("depthwise", (1, 25, 5, 64), 0, (3, 3), padding=AROUND), 2.68),
    "depthwise, stride 2": (
        Spec("depthwise", (1, 24, 24, 32), 0, (3, 3), (2, 2), padding=AFTER),
        3.42,
    ),
    "depthwise 5x5": (
        Spec("depthwise", (1, 12, 12, 16), 0, (5, 5), padding=Padding(2, 2, 2, 2)),
        4.8,
    ),
    "fully connected, 640 to 128": (Spec("fc", (1, 1, 1, 640), 128), 1.04),
    "fully connected, 128 to 128": (Spec("fc", (1, 1, 1, 128), 128), 1.1),
}


def taken(spec: Spec, random: np.random.Generator, budget: int | None = None) -> Case | None:
    graph = graph_of(spec, random)
    call = lower(graph, budget)
    return None if isinstance(call, Declined) else Case(graph, inputs_of(graph, random), call)


def drawn_cases(seed: int, count: int) -> list[Case]:
    random = np.random.default_rng(seed)
    cases: list[Case] = []
    while len(cases) < count:
        budget = None if random.random() < 0.6 else int(random.integers(1, 600))
        case = taken(drawn_spec(random), random, budget)
        cases += [] if case is None else [case]
    return cases


def assert_right(cases: list[Case], folder: Path, core: str = "cortex-m4") -> None:
    measured = run_cases(cases, folder, core)
    wrong = [
        (found, case.graph.ops[0], case.graph["x"].shape, case.graph["w"].shape, case.call.function)
        for found, case in zip(measured, cases, strict=True)
        if not found.right
    ]
    assert not wrong, wrong[:3]


@needs_emulator
@pytest.mark.parametrize("seed", [101, 102])
def test_drawn_operators_equal_the_reference(seed: int, tmp_path: Path) -> None:
    """Apart from and laid over the input, within guard bytes; any shape, padding, zero, clamp."""
    assert_right(drawn_cases(seed, 200), tmp_path)


@needs_emulator
@pytest.mark.parametrize("core", ["cortex-m7", "cortex-m33"])
def test_the_other_dsp_cores_compute_the_same(core: str, tmp_path: Path) -> None:
    assert_right(drawn_cases(103, 60), tmp_path, core)


# bits, depth -> the end of the kernel's name: sums at the limit of a format, and beyond it.
FULL = {
    (8, 252): "_s8",
    (8, 276): "_wide_s8",
    (4, 284): "_s4",
    (4, 300): "_s8",
    (4, 4800): "_wide_s8",
}


@needs_emulator
def test_full_sums_equal_the_reference(tmp_path: Path) -> None:
    """All weights and inputs at the ends of their ranges; a format that cannot is not chosen."""
    cases = []
    random = np.random.default_rng(7)
    for ((bits, depth), suffix), fill in product(FULL.items(), ("highest", "lowest")):
        for kind in ("conv", "fc"):
            rows = 1 if kind == "fc" else 3
            graph = graph_of(Spec(kind, (1, 1, rows, depth), 9, bits=bits, fill=fill), random)
            call = lower(graph)
            assert not isinstance(call, Declined), call
            # At the other end, channels may be constant, which any format takes.
            assert fill == "lowest" or call.function.endswith(suffix)
            assert "wide" in suffix or "wide" not in call.function
            for code in (-128, 127):
                cases.append(Case(graph, np.full((1, *graph["x"].shape), code, np.int8), call))
    assert_right(cases, tmp_path)


@needs_emulator
def test_one_multiplier_for_all_channels_is_stored_once(tmp_path: Path) -> None:
    """Rows of whole words whose weights have one scale, whatever the number of channels."""
    random = np.random.default_rng(9)
    cases = []
    for outputs, words in product((1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 21), (1, 2, 3, 4, 5, 8, 33)):
        activation = Activation.RELU if (outputs + words) % 2 else Activation.NONE
        zero = int(random.choice([-128, 0, 127, 5])) if activation is Activation.NONE else -128
        spec = Spec(
            "fc",
            (1, 1, 1, 4 * words),
            outputs,
            activation=activation,
            zeros=(int(random.integers(-128, 128)), zero),
            per_channel=False,
        )
        case = taken(spec, random)
        assert case is not None
        assert case.call.function.endswith("uniform_s8")
        cases.append(case)
    assert_right(cases, tmp_path)
    sizes = dict(cases[-1].call.arguments.fields)
    biases = sizes["biases"]
    assert isinstance(biases, Array)
    assert biases.data.nbytes == 4 * 24


@needs_emulator
def test_the_lowest_weight_is_taken(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    cases = []
    for kind, bits in product(("conv", "depthwise", "fc"), (8, 4)):
        spec = Spec(kind, (1, 5, 6, 8), 6, (3, 3), padding=AROUND, bits=bits)
        graph = graph_of(spec, random)
        lowest = np.full(graph["w"].shape, -(1 << (bits - 1)), np.int8)
        graph = graph.with_tensors(replace(graph["w"], data=lowest))
        call = lower(graph)
        assert not isinstance(call, Declined), call
        cases.append(Case(graph, inputs_of(graph, random), call))
    assert_right(cases, tmp_path)


@needs_emulator
def test_instructions_per_multiply_accumulate(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    names, cases = [], []
    for name, (spec, _) in LAYERS.items():
        for bits in (8, 4):
            case = taken(replace(spec, bits=bits), random)
            assert case is not None, name
            names.append(name)
            cases.append(case)
    measured = run_cases(cases, tmp_path)
    assert all(found.right for found in measured)
    for index, name in enumerate(dict.fromkeys(names)):
        wide, narrow = measured[2 * index], measured[2 * index + 1]
        macs = cases[2 * index].call.macs
        assert wide.instructions / macs <= LAYERS[name][1], name
        assert narrow.instructions <= 1.10 * wide.instructions, name


@needs_emulator
def test_a_budget_bounds_the_plane(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    spec = Spec("depthwise", (1, 48, 48, 8), 0, (3, 3), padding=AROUND)
    whole, strips = taken(spec, random), taken(spec, random, 1000)
    assert whole is not None
    assert strips is not None
    sums = 4 * (48 + 1)
    assert whole.call.scratch_bytes == -(-(50 * 50 * 2 + sums) // 8) * 8
    assert strips.call.scratch_bytes <= 1000
    assert_right([whole, strips], tmp_path)


def test_calls_state_their_work() -> None:
    for spec, _ in LAYERS.values():
        case = taken(spec, np.random.default_rng(0))
        assert case is not None
        depth = math.prod(spec.weight_shape) // case.graph["w"].shape[0]
        if spec.kind == "depthwise":
            depth = math.prod(spec.kernel)
        assert case.call.macs == math.prod(spec.result) * depth
