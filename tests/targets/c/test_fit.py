"""Memory limits: the plan that fits, or an error that says by how much, where, and what helps."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.errors import DoesNotFitError, ExitCode, ParityError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.registry import Registries
from edgesmith.targets.base import Target
from edgesmith.targets.c.compiler import CompileOptions, PlanKind, compile_graph
from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.c.target import CTarget
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Padding, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute
from tests.conformance.random_graphs import random_inputs

REGISTRY = Registries.discovered().targets


def network(size: int = 24) -> Graph:
    """Three convolutions, wide at first: bands help."""
    rng = np.random.default_rng(0)
    scale = Quantization.per_tensor(0.05, 3)
    tensors = {"x": Tensor("x", (1, size, size, 3), DType.INT8, scale)}
    ops: list[ir.Op] = []
    source, channels, height = "x", 3, size
    for index, (filters, stride) in enumerate(((8, 1), (16, 2), (16, 2))):
        shape = (filters, 3, 3, channels)
        codes = rng.integers(-127, 128, shape).astype(np.int8)
        weight, bias, made = f"w{index}", f"b{index}", f"t{index}"
        steps = np.full(filters, 0.01, np.float32)
        zeros = np.zeros(filters, np.int64)
        tensors[weight] = Tensor(weight, shape, DType.INT8, Quantization(steps, zeros, 0), codes)
        biases = rng.integers(-999, 999, filters).astype(np.int32)
        tensors[bias] = Tensor(
            bias, (filters,), DType.INT32, Quantization(steps * np.float32(0.05), zeros, 0), biases
        )
        height = -(-height // stride)
        tensors[made] = Tensor(made, (1, height, height, filters), DType.INT8, scale)
        padding = Padding(1, 1, 1, 1) if stride == 1 else Padding(0, 1, 0, 1)
        ops.append(
            ir.Conv2D(
                f"conv{index}", (source, weight, bias), (made,), (stride, stride), (1, 1), padding
            )
        )
        source, channels = made, filters
    return Graph("net", tensors, tuple(ops), ("x",), (source,))


def arena(**options: object) -> int:
    chosen = replace(CompileOptions(KernelSet.DSP), **options)  # type: ignore[arg-type]
    return compile_graph(network(), chosen).memory.arena_bytes


def target_of(name: str) -> Target:
    target = REGISTRY.get(name)()
    missing = [tool for tool in target.tools() if tool.find() is None]
    if missing:
        pytest.skip(f"{name} needs {missing[0].name}: {missing[0].install}")
    return target


def test_bands_go_below_the_plain_plan() -> None:
    plain, memory = arena(), arena(plan=PlanKind.MEMORY)
    banded = arena(plan=PlanKind.BANDS)
    assert memory <= plain
    assert banded < memory


def test_a_limit_chooses_the_fastest_plan_that_fits() -> None:
    def kind(limit: int | None) -> PlanKind:
        return compile_graph(network(), CompileOptions(KernelSet.DSP, ram_bytes=limit)).kind

    assert kind(None) is PlanKind.SPEED
    assert kind(arena()) is PlanKind.SPEED
    assert kind(arena(plan=PlanKind.BANDS) + 64) is PlanKind.BANDS


def test_too_little_ram_says_by_how_much_and_where() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        arena(ram_bytes=1000)
    text = str(caught.value)
    assert caught.value.exit_code is ExitCode.BUDGET_MISSED
    assert "more than the 1,000 there are" in text
    assert "Conv2D" in text
    assert "fix: give it" in text


@pytest.mark.parametrize("name", ["c-host", "cortex-m4", "cortex-m0plus", "cortex-m55"])
def test_a_banded_program_computes_the_same_bytes(name: str, tmp_path: Path) -> None:
    target = target_of(f"{name},plan=bands")
    graph = network()
    inputs = random_inputs(graph, 0)
    products = execute_plan(target.build(graph), tmp_path)
    found = target.run(products, inputs, trace=True)
    expected = execute(graph, inputs, PROFILES["tflite-micro"], trace=True)
    assert isinstance(target, CTarget)
    assert target.compiled(products).kind is PlanKind.BANDS
    shown = [tensor for tensor in graph.activations() if tensor.name in found]
    assert graph.outputs[0] in found
    assert all(np.array_equal(found[each.name], expected[each.name]) for each in shown)


def test_too_little_flash_names_the_largest_layers(tmp_path: Path) -> None:
    target = target_of("cortex-m4,flash=6000")
    products = execute_plan(target.build(network()), tmp_path)
    with pytest.raises(DoesNotFitError, match="more than the 6,000 there are") as caught:
        target.check_fit(products)
    assert "conv2" in str(caught.value)
    assert "int4" in str(caught.value)
    target_of("cortex-m4").check_fit(products)


@pytest.mark.parametrize("name", ["c-host", "cortex-m4"])
def test_an_image_with_another_weight_is_refused(name: str, tmp_path: Path) -> None:
    target = target_of(name)
    products = execute_plan(target.build(network()), tmp_path)
    assert isinstance(target, CTarget)
    library = target.compiled(products).library
    weights = max(library.arrays.values(), key=lambda array: array.data.nbytes).data.tobytes()
    image = tmp_path / products.main
    data = image.read_bytes()
    at = data.index(weights)
    image.write_bytes(data[: at + 9] + bytes([data[at + 9] ^ 1]) + data[at + 10 :])
    with pytest.raises(ParityError, match="other bytes"):
        target.shipped(products)


def test_an_image_without_symbols_is_refused(tmp_path: Path) -> None:
    target = target_of("c-host")
    products = execute_plan(target.build(network()), tmp_path)
    strip = shutil.which("strip")
    if strip is None:
        pytest.skip("strip is not installed")
    subprocess.run([strip, str(tmp_path / products.main)], check=True)
    with pytest.raises(ParityError, match="lacks"):
        target.shipped(products)
