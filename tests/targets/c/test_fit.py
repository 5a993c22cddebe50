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
from edgesmith.targets.c import compiler
from edgesmith.targets.c.compiler import Compiled, CompileOptions, PlanKind, compile_graph
from edgesmith.targets.c.fit import flash_shortfall, layer_weights
from edgesmith.targets.c.image import read_image
from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.c.target import CTarget
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Padding, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute
from tests.conformance.random_graphs import random_inputs
from tests.targets.installed import REGISTRY, target_of


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


def separable() -> Graph:
    """A depthwise convolution that needs scratch to write over its input, and a pointwise one."""
    rng = np.random.default_rng(1)
    scale = Quantization.per_tensor(0.05, 3)
    steps, zeros = np.full(32, 0.01, np.float32), np.zeros(32, np.int64)

    def weight(name: str, shape: tuple[int, ...], axis: int) -> Tensor:
        codes = rng.integers(-127, 128, shape).astype(np.int8)
        return Tensor(name, shape, DType.INT8, Quantization(steps, zeros, axis), codes)

    shape = (1, 13, 5, 32)
    tensors = {name: Tensor(name, shape, DType.INT8, scale) for name in ("x", "y", "z")}
    tensors |= {"d": weight("d", (1, 3, 3, 32), 3), "p": weight("p", (32, 1, 1, 32), 0)}
    ops = (
        ir.DepthwiseConv2D("deep", ("x", "d", ""), ("y",), (1, 1), (1, 1), Padding(1, 1, 1, 1)),
        ir.Conv2D("point", ("y", "p", ""), ("z",), (1, 1), (1, 1), Padding(0, 0, 0, 0)),
    )
    return Graph("separable", tensors, ops, ("x",), ("z",))


def dense(weights: DType, features: int = 256) -> Graph:
    """Two fully connected layers."""
    rng = np.random.default_rng(2)
    scale = Quantization.per_tensor(0.05, 3)
    tensors = {name: Tensor(name, (1, features), DType.INT8, scale) for name in ("x", "y", "z")}
    for name in ("a", "b"):
        codes = rng.integers(weights.qmin + 1, weights.qmax + 1, (features, features))
        tensors[name] = Tensor(
            name,
            (features, features),
            weights,
            Quantization.per_tensor(0.01),
            codes.astype(np.int8),
        )
    ops = (
        ir.FullyConnected("first", ("x", "a", ""), ("y",)),
        ir.FullyConnected("second", ("y", "b", ""), ("z",)),
    )
    return Graph("dense", tensors, ops, ("x",), ("z",))


def arena(graph: Graph | None = None, **options: object) -> int:
    chosen = replace(CompileOptions(KernelSet.DSP), **options)  # type: ignore[arg-type]
    return compile_graph(graph or network(), chosen).memory.arena_bytes


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


@pytest.mark.parametrize("graph", [network(12), separable(), dense(DType.INT8, 32)])
@pytest.mark.parametrize("kernels", KernelSet)
def test_the_least_plan_is_the_one_that_is_named(graph: Graph, kernels: KernelSet) -> None:
    least = min(
        arena(graph, kernels=kernels, plan=plan) for plan in (PlanKind.MEMORY, PlanKind.BANDS)
    )
    for plan in PlanKind:
        assert arena(graph, kernels=kernels, plan=plan, ram_bytes=least) <= least
        with pytest.raises(DoesNotFitError, match="the least that was found") as caught:
            arena(graph, kernels=kernels, plan=plan, ram_bytes=least - 1)
        assert f"give it {least:,} bytes" in caught.value.fix
        assert ("height" in str(caught.value)) == (graph.name != "dense")


@pytest.mark.parametrize("name", ["c-host", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("graph", [network(12), separable()])
def test_no_scratch_computes_the_same_bytes(
    name: str, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "SCRATCH_LIMITS", (0,))
    target = target_of(f"{name},plan=memory,prefix=tight")
    inputs = random_inputs(graph, 0)
    found = target.run(execute_plan(target.build(graph), tmp_path), inputs)
    expected = execute(graph, inputs, PROFILES["tflite-micro"])
    assert all(np.array_equal(found[each], expected[each]) for each in graph.outputs)


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


@pytest.mark.parametrize("name", ["c-host", "cortex-m4"])
def test_constants_beyond_flash_are_refused_before_any_file(name: str) -> None:
    target = REGISTRY.get(f"{name},flash=3000")()
    with pytest.raises(DoesNotFitError, match=r"constants alone .* than the 3,000 there"):
        target.build(network())


def test_constants_beyond_the_board_are_no_linker_error() -> None:
    with pytest.raises(DoesNotFitError, match="more than the 2,097,152 there are"):
        REGISTRY.get("cortex-m4")().build(dense(DType.INT8, 1100))


def test_an_arena_beyond_the_emulated_machine_says_so() -> None:
    quantization = Quantization.per_tensor(1.0)
    tensors = {name: Tensor(name, (1, 2_070_000), DType.INT8, quantization) for name in ("x", "y")}
    graph = Graph("wide", tensors, (ir.Relu("relu", ("x",), ("y",)),), ("x",), ("y",))
    with pytest.raises(DoesNotFitError, match="emulated machine 'mps3-an547'"):
        REGISTRY.get("cortex-m55,ram=2097152")().build(graph)
    with pytest.raises(DoesNotFitError, match=r"more than the 2,063,360 there are"):
        REGISTRY.get("cortex-m55")().build(graph)


def test_int4_is_advised_where_it_suffices() -> None:
    used = sum(layer.bytes for layer in layer_weights(dense_compiled(DType.INT8)))
    assert used == 2 * 256 * 256
    fix = flash_shortfall(dense_compiled(DType.INT8), used, used - 20_000).fix
    assert "int4 weights in 'first' save about 32,768 bytes" in fix
    fix = flash_shortfall(dense_compiled(DType.INT8), used, used - 40_000).fix
    assert "'first', 'second' save about 65,536 bytes" in fix
    fix = flash_shortfall(dense_compiled(DType.INT8), used, used - 60_000).fix
    assert "65,536 bytes, too few" in fix


def test_int4_is_not_advised_again() -> None:
    compiled = dense_compiled(DType.INT4)
    fix = flash_shortfall(compiled, 100_000, 99_000).fix
    assert "no weights are left that could be int4" in fix


def dense_compiled(weights: DType) -> Compiled:
    return compile_graph(dense(weights), CompileOptions(KernelSet.DSP))


def test_too_little_flash_names_the_largest_layers(tmp_path: Path) -> None:
    target = target_of("cortex-m4,flash=6000")
    products = execute_plan(target.build(network()), tmp_path)
    with pytest.raises(DoesNotFitError, match="more than the 6,000 there are") as caught:
        target.check_fit(products)
    assert "conv2" in str(caught.value)
    assert "int4" in str(caught.value)
    target_of("cortex-m4").check_fit(products)


def test_host_images_are_the_same_in_any_folder(tmp_path: Path) -> None:
    target = target_of("c-host")
    folders = [tmp_path / name for name in ("a", "another")]
    for folder in folders:
        execute_plan(target.build(network(8)), folder)
    for name in ("firmware/model", "firmware/model-traced"):
        first, second = ((folder / name).read_bytes() for folder in folders)
        assert first == second
        assert str(tmp_path).encode() not in first


def test_the_host_program_is_not_what_is_deployed(tmp_path: Path) -> None:
    target = target_of("c-host")
    products = execute_plan(target.build(network(8)), tmp_path)
    assert isinstance(target, CTarget)
    arrays = target.compiled(products).library.arrays.values()
    assert target.deployed_bytes(products) == sum(array.data.nbytes for array in arrays) > 3000
    assert target.size_name == "deployed constants"


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


@pytest.mark.parametrize("image", ["firmware/bare.elf", "firmware/harness.elf"])
def test_an_image_with_other_arguments_is_refused(image: str, tmp_path: Path) -> None:
    """A changed multiplier, clamp or stride, in any image: not only arrays are compared."""
    target = target_of("cortex-m4")
    products = execute_plan(target.build(network()), tmp_path)
    target.shipped(products)
    held = read_image(tmp_path / image).symbols["model_arguments_001"][1]
    data = (tmp_path / image).read_bytes()
    at = data.index(held)
    for offset in range(0, len(held), 4):
        changed = bytearray(data)
        changed[at + offset] ^= 1
        (tmp_path / image).write_bytes(changed)
        with pytest.raises(ParityError, match="model_arguments_001"):
            target.shipped(products)
