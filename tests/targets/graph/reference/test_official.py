"""The MLPerf Tiny int8 files: whole networks, equal to the runtimes in every byte."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgesmith.targets.graph.reference import PROFILES, execute, run_op
from edgesmith.targets.graph.tflite_reader import read_tflite
from tests.oracles import run_litert, run_tflm
from tests.targets.graph.reference.draw import RUNTIMES, run_runtime

SAMPLES = 20
NAMES = ("kws", "ic", "vww", "ad")


def official(name: str) -> bytes:
    folder = os.environ.get("EDGESMITH_DATA")
    if not folder:
        pytest.skip("EDGESMITH_DATA is not set")
    return (Path(folder) / "mlperf_tiny" / f"{name}_int8.tflite").read_bytes()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_the_runtime(name: str, runtime: str) -> None:
    data = official(name)
    graph = read_tflite(data, name)
    rng = np.random.default_rng(0)
    shape = (SAMPLES, *graph[graph.inputs[0]].shape)
    inputs = [rng.integers(-128, 128, shape).astype(np.int8)]
    wanted = run_runtime(runtime, data, inputs)
    found = execute(graph, inputs, PROFILES[runtime])[graph.outputs[0]]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_every_intermediate_equals_litert(name: str) -> None:
    data = official(name)
    graph = read_tflite(data, name)
    rng = np.random.default_rng(1)
    inputs = [rng.integers(-128, 128, (2, *graph[graph.inputs[0]].shape)).astype(np.int8)]
    wanted = run_litert(data, inputs, reference=True, trace=True)
    found = execute(graph, inputs, PROFILES["litert-reference"], trace=True)
    compared = [tensor for tensor in found if tensor in wanted]
    assert len(compared) > len(graph.ops) * 0.9
    for tensor in compared:
        np.testing.assert_array_equal(found[tensor], wanted[tensor], err_msg=tensor)


@pytest.mark.parametrize("name", NAMES)
def test_default_kernels_stay_within_one_step_per_operator(name: str) -> None:
    """LiteRT's default kernels round otherwise; given the same inputs, by at most one step."""
    data = official(name)
    graph = read_tflite(data, name)
    rng = np.random.default_rng(2)
    inputs = [rng.integers(-128, 128, (3, *graph[graph.inputs[0]].shape)).astype(np.int8)]
    theirs = run_litert(data, inputs, reference=False, trace=True)
    for op in graph.ops:
        if op.output not in theirs or any(
            tensor and not graph[tensor].is_constant and tensor not in theirs
            for tensor in op.inputs
        ):
            continue
        ours = run_op(graph, op, theirs, PROFILES["litert-reference"])
        difference = np.abs(ours.astype(np.int64) - theirs[op.output].astype(np.int64))
        assert difference.max() <= 1, f"{op.kind} {op.name}"


def test_runtimes_differ_on_the_autoencoder() -> None:
    """LiteRT's FULLY_CONNECTED rounds once: profiles that were alike could not both be right."""
    data = official("ad")
    inputs = [np.random.default_rng(3).integers(-128, 128, (2, 1, 640)).astype(np.int8)]
    micro = run_tflm(data, inputs)[0]
    litert = next(iter(run_litert(data, inputs, reference=True).values()))
    assert (micro != litert).any()
