"""Keys of layers: what must share an entry does, what must not does not. Needs no tool."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.targets.c.assemble import assemble
from edgesmith.targets.c.lowerings.base import Site
from edgesmith.targets.c.program import KernelSet
from edgesmith.targets.cortex_m4 import CortexM4
from edgesmith.targets.cost.layers import Layer, layers_of, particular_fields
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Graph
from tests.targets.cost.networks import convolution, random_network


def lowered(graph: Graph, kernels: KernelSet = KernelSet.DSP) -> tuple[Layer, ...]:
    return layers_of(assemble(Site(graph, kernels)))


def only(graph: Graph, kernels: KernelSet = KernelSet.DSP) -> Layer:
    (layer,) = lowered(graph, kernels)
    return layer


def renamed(graph: Graph) -> Graph:
    """Other names of tensors and operators."""
    tensors = {f"n{n}": replace(t, name=f"n{n}") for n, t in graph.tensors.items()}
    ops = tuple(
        replace(
            op,
            name=f"n{op.name}",
            inputs=tuple(n and f"n{n}" for n in op.inputs),
            outputs=tuple(f"n{n}" for n in op.outputs),
        )
        for op in graph.ops
    )
    inputs, outputs = (tuple(f"n{n}" for n in names) for names in (graph.inputs, graph.outputs))
    return Graph("other", tensors, ops, inputs, outputs)


@pytest.mark.parametrize("kernels", list(KernelSet))
def test_weights_scales_and_zero_points_share_a_key(kernels: KernelSet) -> None:
    assert only(convolution(0), kernels).key == only(convolution(1), kernels).key


def with_relu(graph: Graph) -> Graph:
    op = graph.ops[0]
    assert isinstance(op, ir.Conv2D)
    return replace(graph, ops=(replace(op, activation=Activation.RELU),))


def with_int4(graph: Graph) -> Graph:
    weight = graph["w"]
    assert weight.data is not None
    codes = np.clip(weight.data, -7, 7).astype(np.int8)
    changed = replace(weight, dtype=DType.INT4, data=codes)
    return replace(graph, tensors={**graph.tensors, "w": changed})


@pytest.mark.parametrize(
    "change",
    [
        with_relu,
        with_int4,
        lambda graph: convolution(channels=12),
        lambda graph: convolution(size=9),
    ],
    ids=["relu", "int4", "channels", "size"],
)
def test_what_changes_the_work_changes_the_key(change: Callable[[Graph], Graph]) -> None:
    graph = convolution()
    assert only(change(graph)).key != only(graph).key


def test_scratch_limits_and_kernel_sets_have_keys_of_their_own() -> None:
    graph = convolution()
    keys = {only(graph, kernels).key for kernels in KernelSet}
    assert len(keys) == len(KernelSet)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_keys_do_not_depend_on_names_or_on_when_they_are_made(seed: int) -> None:
    graph = random_network(seed, CortexM4())
    keys = [layer.key for layer in lowered(graph)]
    assert keys == [layer.key for layer in lowered(graph)]
    assert keys == [layer.key for layer in lowered(renamed(graph))]


def test_rules_name_fields_that_kernels_have() -> None:
    """A renamed field would be in keys by its value, and no calibration would find another's."""
    folder = Path(str(files("edgesmith.targets.c"))) / "kernels" / "include"
    text = "\n".join(path.read_text() for path in folder.glob("*.h"))
    bodies = {
        name: body for body, name in re.findall(r"typedef struct \{(.*?)\} (es_\w+);", text, re.S)
    }
    for struct, field in particular_fields():
        assert re.search(rf"\b{field}\b", bodies[struct]), f"{struct}.{field}"
