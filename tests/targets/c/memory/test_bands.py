"""Bands compute what the plain graph computes, bit for bit, in less memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.c.memory.bands import Banded, band_rows, split, stages
from edgesmith.targets.c.memory.budget import candidates, least_bytes, plan_bands
from edgesmith.targets.c.memory.solve import plan_memory
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Graph, Op, Padding, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute, run_op
from edgesmith.targets.graph.tflite_reader import read_tflite
from edgesmith.targets.graph.validate import verify
from tests.targets.c.memory.programs import lowered
from tests.targets.graph.reference.draw import Draw

MICRO = PROFILES["tflite-micro"]
SEEDS = st.integers(0, 2**32 - 1)
Bytes = npt.NDArray[np.uint8]


class Memory:
    """Tensors as bytes, with views resolved to byte ranges of their parents."""

    def __init__(self, banded: Banded, samples: int) -> None:
        self.banded = banded
        self.samples = samples
        self.storage: dict[str, Bytes] = {}

    def range(self, name: str) -> Bytes:
        if name in self.banded.views:
            view = self.banded.views[name]
            assert view.bytes == self.banded.graph[name].bytes
            return self.range(view.parent)[:, view.offset : view.offset + view.bytes]
        if name not in self.storage:
            size = self.banded.graph[name].bytes
            self.storage[name] = np.full((self.samples, size), 0xA5, np.uint8)
        return self.storage[name]

    def read(self, name: str) -> npt.NDArray[np.generic]:
        tensor = self.banded.graph[name]
        data = np.ascontiguousarray(self.range(name)).view(tensor.dtype.numpy)
        return data.reshape(self.samples, *tensor.shape)

    def write(self, name: str, values: npt.NDArray[np.generic]) -> None:
        data = np.ascontiguousarray(values).reshape(self.samples, -1).view(np.uint8)
        self.range(name)[...] = data


def run_banded(
    banded: Banded, inputs: list[npt.NDArray[np.generic]]
) -> dict[str, npt.NDArray[np.generic]]:
    """Every operator by the reference, over byte ranges."""
    graph, memory = banded.graph, Memory(banded, len(inputs[0]))
    for name, values in zip(graph.inputs, inputs, strict=True):
        memory.write(name, values)
    for op in graph.ops:
        reads = [name for name in op.inputs if name and not graph[name].is_constant]
        memory.write(
            op.output, run_op(graph, op, {name: memory.read(name) for name in reads}, MICRO)
        )
    return {name: memory.read(name) for name in graph.outputs}


class Builder:
    """Draws a network of row-wise operators that ends in a mean and a fully connected layer."""

    def __init__(self, seed: int) -> None:
        self.draw = Draw(seed)
        self.dtype = DType.INT8
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        shape = (1, self.draw.integer(6, 20), self.draw.integer(3, 9), self.draw.integer(1, 4))
        self.last = self.add(self.draw.activation("x", shape, self.dtype, scale=0.1))

    def add(self, tensor: Tensor) -> Tensor:
        self.tensors[tensor.name] = tensor
        return tensor

    def emit(
        self, op: Op, shape: tuple[int, ...], quantization: Quantization | None = None
    ) -> None:
        drawn = self.draw.quantization(self.dtype, self.draw.scale(0.03, 0.3))
        scale = quantization or drawn
        self.ops.append(op)
        self.last = self.add(Tensor(op.outputs[0], shape, self.dtype, scale))

    def window(self, kernel: ir.Pair, dilation: ir.Pair) -> tuple[ir.Pair, Padding, ir.Pair] | None:
        """Stride, padding below the kernel, and output size; None where it does not fit."""
        reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        pads = [self.draw.integer(0, k - 1) for k in (kernel[0], kernel[0], kernel[1], kernel[1])]
        stride = self.draw.pair(1, 2)
        _, height, width, _ = self.last.shape
        rows = (height + pads[0] + pads[1] - reach[0]) // stride[0] + 1
        columns = (width + pads[2] + pads[3] - reach[1]) // stride[1] + 1
        return (stride, Padding(*pads), (rows, columns)) if min(rows, columns) > 0 else None

    def step(self) -> None:
        kinds = [self.conv, self.depthwise, self.pool, self.pointwise, self.constant, self.pad]
        self.draw.pick([*kinds, self.residual])()

    def weight(self, shape: tuple[int, ...], channels: int, axis: int) -> tuple[str, str]:
        name = f"w{len(self.ops)}"
        scales = [self.draw.scale(0.01, 0.1) for _ in range(channels)]
        codes = self.draw.codes(shape, DType.INT8)
        self.add(Tensor(name, shape, DType.INT8, Quantization.per_channel(scales, axis), codes))
        bias = self.draw.rng.integers(-999, 999, channels).astype(np.int32)
        scale = self.last.q.scale[0] * np.asarray(scales, np.float32)
        self.add(
            Tensor(f"{name}b", (channels,), DType.INT32, Quantization.per_channel(scale, 0), bias)
        )
        return name, f"{name}b"

    def conv(self) -> None:
        kernel, dilation = self.draw.pair(1, 4), self.draw.pair(1, 2)
        found = self.window(kernel, dilation)
        if found is None:
            return
        channels = self.draw.integer(1, 4)
        names = self.weight((channels, *kernel, self.last.shape[3]), channels, 0)
        at = len(self.ops)
        op = ir.Conv2D(
            f"op{at}",
            (self.last.name, *names),
            (f"t{at}",),
            found[0],
            dilation,
            found[1],
            activation=Activation.RELU,
        )
        self.emit(op, (1, *found[2], channels))

    def depthwise(self) -> None:
        kernel = self.draw.pair(1, 3)
        found = self.window(kernel, (1, 1))
        if found is None:
            return
        channels = self.last.shape[3]
        names = self.weight((1, *kernel, channels), channels, 3)
        at = len(self.ops)
        op = ir.DepthwiseConv2D(
            f"op{at}", (self.last.name, *names), (f"t{at}",), found[0], (1, 1), found[1]
        )
        self.emit(op, (1, *found[2], channels))

    def pool(self) -> None:
        kernel = self.draw.pair(1, 3)
        found = self.window(kernel, (1, 1))
        if found is None:
            return
        at, kind = len(self.ops), self.draw.pick([ir.AveragePool2D, ir.MaxPool2D])
        op = kind(f"op{at}", (self.last.name,), (f"t{at}",), kernel, found[0], found[1])
        self.emit(op, (1, *found[2], self.last.shape[3]), self.last.quantization)

    def pointwise(self) -> None:
        at, kind = len(self.ops), self.draw.pick([ir.Relu, ir.HardSwish, ir.Quantize])
        self.emit(kind(f"op{at}", (self.last.name,), (f"t{at}",)), self.last.shape)

    def constant(self) -> None:
        at, shape = len(self.ops), (self.last.shape[3],)
        scale = self.draw.quantization(self.dtype, 0.1)
        self.add(Tensor(f"k{at}", shape, self.dtype, scale, self.draw.codes(shape, self.dtype)))
        kind = self.draw.pick([ir.Add, ir.Mul, ir.Sub])
        self.emit(kind(f"op{at}", (self.last.name, f"k{at}"), (f"t{at}",)), self.last.shape)

    def pad(self) -> None:
        at, (top, bottom) = len(self.ops), self.draw.pair(0, 1)
        left, right = self.draw.pair(0, 1)
        before, after = (0, top, left, 0), (0, bottom, right, 0)
        _, height, width, channels = self.last.shape
        op = ir.Pad(f"op{at}", (self.last.name,), (f"t{at}",), before, after)
        self.emit(
            op, (1, height + top + bottom, width + left + right, channels), self.last.quantization
        )

    def residual(self) -> None:
        """conv 3x3 of the same shape, and the sum (or concat) with what it read."""
        skip = self.last
        names = self.weight((skip.shape[3], 3, 3, skip.shape[3]), skip.shape[3], 0)
        at = len(self.ops)
        op = ir.Conv2D(f"op{at}", (skip.name, *names), (f"t{at}",), padding=Padding(1, 1, 1, 1))
        self.emit(op, skip.shape, skip.quantization)
        names_of_both = (skip.name, f"t{at}")
        if self.draw.integer(0, 1):
            self.emit(ir.Add(f"op{at}a", names_of_both, (f"t{at}a",)), skip.shape)
            return
        shape = (*skip.shape[:3], 2 * skip.shape[3])
        self.emit(
            ir.Concat(f"op{at}a", names_of_both, (f"t{at}a",), axis=3), shape, skip.quantization
        )

    def graph(self, steps: int) -> Graph:
        for _ in range(steps):
            self.step()
        if not self.ops:
            self.pointwise()
        self.emit(ir.Mean("mean", (self.last.name,), ("mean",), (1, 2)), (1, self.last.shape[3]))
        return verify(Graph("drawn", self.tensors, tuple(self.ops), ("x",), ("mean",)))


@settings(max_examples=100)
@given(SEEDS)
def test_bands_equal_the_plain_graph(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = Builder(seed).graph(steps=int(rng.integers(1, 6)))
    shape = (2, *graph["x"].shape)
    inputs: list[npt.NDArray[np.generic]] = [rng.integers(-128, 128, shape).astype(np.int8)]
    wanted = execute(graph, inputs, MICRO)["mean"]
    for stage in stages(graph):
        rows = graph[graph.ops[stage - 1].output].shape[1]
        bands = int(rng.integers(1, rows + 1))
        try:
            banded = split(graph, stage, bands)
        except UnsupportedError as error:
            assert "padding alone" in str(error)  # noqa: PT017
            continue
        np.testing.assert_array_equal(run_banded(banded, inputs)["mean"], wanted)
        assert bands > 1 or banded.recomputed_macs <= 0
        program = lowered(banded.graph, banded.views)
        assert plan_memory(program).arena_bytes >= least_bytes(banded.graph, banded.views)


def chain(rows: int = 32) -> Graph:
    """conv 3x3 stride 1 (1 -> 16 channels), conv 3x3 stride 2, mean."""
    shapes = {"x": (1, rows, 16, 1), "a": (1, rows, 16, 16), "b": (1, rows // 2, 8, 4)}
    scale = Quantization.per_tensor(0.5)
    tensors = {name: Tensor(name, shape, DType.INT8, scale) for name, shape in shapes.items()}
    for name, shape in {"v": (16, 3, 3, 1), "w": (4, 3, 3, 16)}.items():
        data = np.ones(shape, np.int8)
        quantization = Quantization.per_channel(np.full(shape[0], 0.01), 0)
        tensors[name] = Tensor(name, shape, DType.INT8, quantization, data)
    tensors["m"] = Tensor("m", (1, 4), DType.INT8, scale)
    ops = (
        ir.Conv2D("first", ("x", "v", ""), ("a",), padding=Padding(1, 1, 1, 1)),
        ir.Conv2D("second", ("a", "w", ""), ("b",), (2, 2), padding=Padding(0, 1, 0, 1)),
        ir.Mean("mean", ("b",), ("m",), (1, 2)),
    )
    return verify(Graph("chain", tensors, ops, ("x",), ("m",)))


def test_windows_at_borders_and_between() -> None:
    banded = split(chain(), 2, 2)
    by_name = {op.name: op for op in banded.graph.ops}
    first, last = by_name["first@0"], by_name["first@1"]
    assert isinstance(first, ir.Conv2D)
    assert isinstance(last, ir.Conv2D)
    assert (first.padding.top, first.padding.bottom) == (1, 0)
    assert (last.padding.top, last.padding.bottom) == (0, 1)
    assert banded.graph["a@0"].shape == (1, 17, 16, 16)
    assert banded.graph["a@1"].shape == (1, 16, 16, 16)
    assert banded.views["b@1"].offset == banded.views["b@1"].bytes == 8 * 8 * 4
    assert banded.recomputed_macs == 16 * 16 * 9
    assert "a" not in banded.graph.tensors
    assert banded.graph.inputs == ("x",)
    assert banded.graph.ops[-1].name == "mean"


def test_bands_share_rows_evenly() -> None:
    assert band_rows(7, 3) == ((0, 3), (3, 5), (5, 7))


def test_impossible_splits_are_refused() -> None:
    graph = chain()
    assert stages(graph) == (1, 2)
    with pytest.raises(UnsupportedError, match=r"choose one of \[1, 2\]"):
        split(graph, 3, 2)
    with pytest.raises(UnsupportedError, match="too few for 17 bands"):
        split(graph, 2, 17)
    batch = replace(graph["x"], shape=(2, 32, 16, 1))
    assert stages(graph.with_tensors(batch)) == ()


def test_stages_end_where_something_else_escapes() -> None:
    drawn = Builder(0)
    drawn.residual()
    block = drawn.graph(steps=0)
    assert stages(block) == (1, 2)
    shown = replace(block, outputs=("mean", block.ops[0].output))
    assert stages(shown) == (1,)


def test_budget_takes_plain_then_bands_then_the_least() -> None:
    graph = chain()
    plain = plan_bands(graph, lowered, 1 << 20)
    assert plain.banded is None
    assert plain.fits
    tight = plan_bands(graph, lowered, plain.plan.arena_bytes // 3)
    assert tight.fits
    assert tight.banded is not None
    assert tight.plan.arena_bytes <= plain.plan.arena_bytes // 3
    looser = plan_bands(graph, lowered, plain.plan.arena_bytes * 2 // 3)
    assert looser.banded is not None
    assert looser.banded.recomputed_macs < tight.banded.recomputed_macs
    hopeless = plan_bands(graph, lowered, 100)
    assert not hopeless.fits
    assert hopeless.plan.arena_bytes == min(hopeless.tried.values())


def test_candidates_end_in_ever_smaller_tensors() -> None:
    sizes: Mapping[int, int] = {
        item.stage: chain().tensors[chain().ops[item.stage - 1].output].bytes
        for item in candidates(chain())
    }
    assert list(sizes) == sorted(sizes)
    assert sorted(sizes.values(), reverse=True) == list(sizes.values())


@pytest.mark.parametrize(("name", "budget"), [("vww", 32_000), ("ic", 24_000)])
def test_official_networks_in_bands(name: str, budget: int) -> None:
    """Bands go below what whole tensors allow, and compute the same."""
    folder = os.environ.get("EDGESMITH_DATA")
    if not folder:
        pytest.skip("EDGESMITH_DATA is not set")
    graph = read_tflite((Path(folder) / "mlperf_tiny" / f"{name}_int8.tflite").read_bytes(), name)
    found = plan_bands(graph, lowered, budget)
    assert found.fits
    assert found.banded is not None
    rng = np.random.default_rng(0)
    shape = (1, *graph[graph.inputs[0]].shape)
    inputs: list[npt.NDArray[np.generic]] = [rng.integers(-128, 128, shape).astype(np.int8)]
    wanted = execute(graph, inputs, MICRO)
    for output, values in run_banded(found.banded, inputs).items():
        np.testing.assert_array_equal(values, wanted[output])
