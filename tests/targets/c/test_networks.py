"""Whole networks as C: official MLPerf Tiny files against TFLite Micro, a vision transformer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edgesmith.pipeline.execution import execute_plan
from edgesmith.quantize.options import PTQOptions
from edgesmith.targets.c.target import CTarget
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.tflite_reader import read_tflite
from tests.conformance.random_graphs import random_inputs
from tests.oracles import run_tflm
from tests.quantize.vit import tiny_vit_graph
from tests.targets.installed import target_of

DATA = Path(os.environ.get("EDGESMITH_DATA", "")) / "mlperf_tiny"
ARENAS = {"kws": 9_600, "ic": 36_000, "vww": 40_500, "ad": 768}
RAM = 320 * 1024


def c_target(name: str) -> CTarget:
    target = target_of(name)
    assert isinstance(target, CTarget)
    return target


@pytest.mark.parametrize("network", ARENAS)
@pytest.mark.parametrize(
    "name", ["c-host", "cortex-m0plus", "cortex-m4", "cortex-m4,plan=memory", "cortex-m55"]
)
def test_an_official_file_equals_tflite_micro(name: str, network: str, tmp_path: Path) -> None:
    path = DATA / f"{network}_int8.tflite"
    if not path.is_file():
        pytest.skip("the MLPerf Tiny files are not here: set EDGESMITH_DATA")
    target = c_target(name)
    model = path.read_bytes()
    graph = legalize(read_tflite(model), target.describe())
    inputs = random_inputs(graph, 0, samples=2)
    products = execute_plan(target.build(graph), tmp_path)
    found = target.run(products, inputs)
    (expected,) = run_tflm(model, inputs)
    assert np.array_equal(found[graph.outputs[0]], expected)
    if name.endswith("memory"):
        assert target.compiled(products).memory.arena_bytes <= ARENAS[network]


@pytest.mark.parametrize("activations", ["int8", "int16"])
@pytest.mark.parametrize("name", ["c-host", "cortex-m4", "cortex-m55"])
def test_a_vision_transformer_of_four_blocks(
    name: str, activations: Literal["int8", "int16"], tmp_path: Path
) -> None:
    target = c_target(name)
    graph = legalize(
        tiny_vit_graph(PTQOptions(activations=activations)), target.describe(), keep=()
    )
    inputs = random_inputs(graph, 0, samples=1)
    products = execute_plan(target.build(graph), tmp_path)
    found = target.run(products, inputs)
    expected = execute(graph, inputs, PROFILES["tflite-micro"])
    assert all(np.array_equal(found[each], expected[each]) for each in graph.outputs)
    assert target.compiled(products).memory.arena_bytes < RAM
