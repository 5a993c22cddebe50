"""Weights kept without their zeros: which, and that what runs computes the same integers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.errors import ParityError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.targets.c.assemble import assemble
from edgesmith.targets.c.compiler import Compiled, CompileOptions, compile_graph
from edgesmith.targets.c.expansion import (
    CALL_BYTES,
    CODE_BYTES,
    candidates,
    with_expansions,
    without_zeros,
)
from edgesmith.targets.c.fit import layer_weights
from edgesmith.targets.c.image import differences, read_image
from edgesmith.targets.c.lowerings import sparse
from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.memory.bands import split
from edgesmith.targets.c.memory.lifetimes import expanded_name
from edgesmith.targets.c.memory.solve import plan_memory
from edgesmith.targets.c.program import Array, KernelSet, Role
from edgesmith.targets.c.target import CTarget
from edgesmith.targets.c.zeros import Zeros
from edgesmith.targets.graph.ir import DType, Graph
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.mcu.elf import flash_map
from edgesmith.targets.mcu.target import MicrocontrollerTarget
from edgesmith.targets.mcu.toolchain import BARE_ELF
from tests.conformance.random_graphs import random_inputs
from tests.targets.c.sparse import network
from tests.targets.installed import REGISTRY, target_of
from tests.targets.mcu.cores import CORES

TARGETS = ("c-host", *CORES)


def c_target(name: str) -> CTarget:
    target = target_of(name)
    assert isinstance(target, CTarget)
    return target


def compiled(
    graph: Graph,
    zeros: Zeros,
    kernels: KernelSet = KernelSet.DSP,
    ram_bytes: int | None = None,
) -> Compiled:
    target = REGISTRY.get("c-host")()
    options = CompileOptions(kernels, ram_bytes=ram_bytes, zeros=zeros)
    return compile_graph(legalize(graph, target.describe()), options)


def expanded(made: Compiled) -> list[str]:
    """Calls that do without zeros: nearly all expand their weights."""
    return [
        call.name
        for call in made.program.calls
        if call.expanded is not None or call.function == sparse.FUNCTION
    ]


@pytest.mark.parametrize("kernels", KernelSet)
@pytest.mark.parametrize(("bits", "share"), [(8, 0.0), (8, 0.05), (4, 0.15)])
def test_dense_weights_give_the_same_files_as_without(
    kernels: KernelSet, bits: int, share: float
) -> None:
    graph = network(0, zeros=share, bits=bits)
    plain, auto = (compiled(graph, each, kernels) for each in (Zeros.STORE, Zeros.AUTO))
    assert auto.library.files == plain.library.files


@pytest.mark.parametrize("kernels", KernelSet)
def test_auto_saves_flash_and_takes_no_more_arena(kernels: KernelSet) -> None:
    graph = network(0, size=16, outputs=1)
    plain, auto, most = (
        compiled(graph, each, kernels) for each in (Zeros.STORE, Zeros.AUTO, Zeros.COMPRESS)
    )
    assert expanded(auto)
    assert auto.memory.arena_bytes <= plain.memory.arena_bytes
    assert most.constant_bytes <= auto.constant_bytes
    saved = plain.constant_bytes - auto.constant_bytes
    assert saved > CALL_BYTES * len(expanded(auto)) + CODE_BYTES["es_expand_s8"]


def test_compress_takes_what_the_ram_has_room_for() -> None:
    graph = network(0, size=16, outputs=1)
    plain, most = compiled(graph, Zeros.STORE), compiled(graph, Zeros.COMPRESS)
    assert set(expanded(most)) == {"conv", "depthwise", "point", "last"}
    limit = plain.memory.arena_bytes + 200
    assert most.memory.arena_bytes > limit
    some = compiled(graph, Zeros.COMPRESS, ram_bytes=limit)
    assert some.memory.arena_bytes <= limit
    assert set(expanded(some)) == {"conv", "depthwise", "last"}
    assert most.constant_bytes < some.constant_bytes < plain.constant_bytes


def test_nothing_is_expanded_for_less_than_the_code_that_does_it() -> None:
    graph = network(0, zeros="2:4", size=1)
    (point,) = (op for op in graph.ops if op.name == "point")
    alone = replace(graph, ops=(point,), inputs=(point.inputs[0],), outputs=point.outputs)
    (weights,) = candidates(compiled(alone, Zeros.STORE).program)
    assert 0 < weights.saved_bytes < CODE_BYTES["es_expand_s8"]
    assert not expanded(compiled(alone, Zeros.COMPRESS))
    assert "point" in expanded(compiled(graph, Zeros.COMPRESS))


def test_an_array_that_bands_share_is_expanded_by_all_of_them_or_by_none() -> None:
    banded = split(network(0, size=16), stage=2, bands=2)
    program = assemble(Site(banded.graph, KernelSet.DSP), banded.views)
    plan = plan_memory(program)
    shared = {each.calls for each in candidates(program) if len(each.calls) > 1}
    assert shared == {(0, 2), (1, 3)}

    def taken(zeros: Zeros, ram_bytes: int | None) -> set[int]:
        made, memory = with_expansions(banded.graph, program, plan, zeros, ram_bytes)
        assert ram_bytes is None or memory.arena_bytes <= ram_bytes
        return {n for n, call in enumerate(made.calls) if call.expanded is not None}

    for ram_bytes in (None, *range(plan.arena_bytes, plan.arena_bytes + 2000, 100)):
        found = taken(Zeros.COMPRESS, ram_bytes)
        assert all(set(calls) <= found or not set(calls) & found for calls in shared)
    assert {0, 1, 2, 3} <= taken(Zeros.COMPRESS, None)
    assert not {0, 1, 2, 3} & taken(Zeros.AUTO, None)


def test_weights_that_are_also_an_operand_stay() -> None:
    made = compiled(network(0), Zeros.STORE)
    (first, *_) = candidates(made.program)
    same = Array(first.array.data.copy(), Role.WEIGHTS)
    program = replace(made.program, constants={"operand": same})
    assert first.array.data.tobytes() not in {
        each.array.data.tobytes() for each in candidates(program)
    }


def test_expanded_weights_have_a_place_of_their_own() -> None:
    made = compiled(network(0), Zeros.STORE)
    program = without_zeros(made.program, candidates(made.program))
    plan = plan_memory(program)
    for time, call in enumerate(program.calls):
        if call.expanded is None:
            continue
        start = plan.offsets[expanded_name(call)]
        assert start % 8 == 0
        for other in plan.timeline:
            if other.name != expanded_name(call) and other.first <= time <= other.last:
                end = start + call.expanded.bytes
                assert other.offset >= end or other.offset + other.bytes <= start


def test_the_text_expands_before_the_kernel_that_reads_it() -> None:
    made = compiled(network(0), Zeros.COMPRESS)
    text = made.library.files["model.c"].decode()
    (number,) = (n for n, call in enumerate(made.program.calls) if call.name == "point")
    where = made.memory.offsets[expanded_name(made.program.calls[number])]
    body = text[text.index(f"void model_layer_{number:03d}(void)") :].partition("}")[0]
    expanding, computing = (line.strip() for line in body.splitlines()[2:4])
    place = f"(void *)(model_arena + {where})"
    assert expanding == f"model_es_expand_s8(&model_expansion_{number:03d}, {place});"
    assert computing.startswith(f"model_es_dsp_pointwise_s8(&model_arguments_{number:03d}, ")
    assert f".weights = {place}," in text
    assert {"expand_s8.c", "matrix_sparse_s8.c", "es_expand.h"} <= set(made.library.files)


def test_what_layers_take_is_what_lies_in_flash() -> None:
    made = compiled(network(0), Zeros.COMPRESS)
    found = {each.name: each for each in layer_weights(made)}
    plain = {each.name: each for each in layer_weights(compiled(network(0), Zeros.STORE))}
    assert all(found[name].bytes < 0.6 * plain[name].bytes for name in expanded(made))
    for name in ("point", "last"):
        assert found[name].int4_saves == 0 < plain[name].int4_saves


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("zeros", [0.7, "2:4", 1.0])
@pytest.mark.parametrize("bits", [8, 4])
def test_every_layer_computes_the_same_integers(
    name: str, zeros: float | str, bits: int, tmp_path: Path
) -> None:
    target = c_target(f"{name},zeros=compress")
    graph = legalize(network(bits, zeros=zeros, bits=bits), target.describe())
    _agrees(target, graph, tmp_path)


@pytest.mark.parametrize("name", ["c-host", "cortex-m0plus", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize(("bits", "activations"), [(8, "int16"), (4, "int16"), (2, "int8")])
def test_other_formats_compute_the_same_integers(
    name: str, bits: int, activations: str, tmp_path: Path
) -> None:
    target = c_target(f"{name},zeros=compress")
    graph = network(1, zeros=0.8, bits=bits, activations=DType(activations))
    _agrees(target, legalize(graph, target.describe()), tmp_path)


def _agrees(target: CTarget, graph: Graph, folder: Path) -> None:
    products = execute_plan(target.build(graph), folder)
    assert "last" in expanded(target.compiled(products))
    inputs = random_inputs(graph, 0, samples=2)
    found = target.run(products, inputs, trace=True)
    expected = execute(graph, inputs, PROFILES["tflite-micro"], trace=True)
    compared = [name for name in found if name in expected]
    assert len(compared) >= len(graph.ops)
    for name in compared:
        assert np.array_equal(found[name], expected[name]), name


@pytest.mark.parametrize("name", TARGETS[1:])
@pytest.mark.parametrize("bits", [8, 4])
def test_flash_falls_by_at_least_what_was_reckoned(name: str, bits: int, tmp_path: Path) -> None:
    graph = network(3, bits=bits)
    sizes, gain = {}, 0
    for zeros in (Zeros.STORE, Zeros.COMPRESS):
        target = target_of(f"{name},zeros={zeros}")
        assert isinstance(target, MicrocontrollerTarget)
        legal = legalize(graph, target.describe())
        products = execute_plan(target.build(legal), tmp_path / zeros)
        made = target.compiled(products)
        image = flash_map(Path(products.folder) / BARE_ELF)
        sizes[zeros] = image.flash_bytes
        code = {each.name: each.bytes for each in image.symbols if "_es_expand_" in each.name}
        assert bool(code) == (zeros is Zeros.COMPRESS)
        for function, size in code.items():
            assert size <= CODE_BYTES[function.removeprefix("model_")]
        if zeros is Zeros.STORE:
            gain = sum(
                each.saved_bytes for each in candidates(made.program) if each.saved_bytes > 0
            )
    assert gain - sum(CODE_BYTES.values()) <= sizes[Zeros.STORE] - sizes[Zeros.COMPRESS]


@pytest.mark.parametrize("name", ["c-host", "cortex-m4"])
def test_an_image_with_other_zeros_is_refused(name: str, tmp_path: Path) -> None:
    target = c_target(f"{name},zeros=compress")
    graph = legalize(network(0), target.describe())
    products = execute_plan(target.build(graph), tmp_path)
    made, path = target.compiled(products), target.images(products)[0]
    image = read_image(path)
    assert not list(differences(image, made, "model"))
    call = next(call for call in made.program.calls if call.name == "point")
    assert call.expanded is not None
    other = replace(call.expanded, array=Array(call.expanded.array.data + 1, Role.WEIGHTS))
    fields = tuple(
        (key, other if value is call.expanded else value) for key, value in call.arguments.fields
    )
    wrong = replace(call, arguments=replace(call.arguments, fields=fields))
    calls = tuple(wrong if each is call else each for each in made.program.calls)
    claimed = replace(made, program=replace(made.program, calls=calls))
    assert list(differences(image, claimed, "model")) == [
        "has weights of call 'point' that expand to other codes"
    ]
    moved = replace(
        made.memory,
        offsets={**made.memory.offsets, expanded_name(call): made.memory.arena_bytes},
    )
    (found,) = differences(image, replace(made, memory=moved), "model")
    assert "has other bytes in the arguments 'model_arguments_" in found
    stored = dict(call.expanded.arguments.fields)["stored"]
    assert isinstance(stored, Array)
    data, held = path.read_bytes(), stored.data.tobytes()
    assert data.count(held) == 1
    path.chmod(0o644)
    path.write_bytes(data.replace(held, bytes([held[0] ^ 1]) + held[1:]))
    with pytest.raises(ParityError, match="other bytes in the constant"):
        target.shipped(products)
