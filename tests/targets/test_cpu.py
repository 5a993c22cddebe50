"""CPU targets: one TFLite file for both runtimes, errors of the worker, latency and memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.errors import TargetUnsupportedError, ToolFailedError, ToolMissingError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.targets.base import LatencyOptions, OpFormat
from edgesmith.targets.cpu import runtime as runtime_module
from edgesmith.targets.cpu.runtime import Runtime
from edgesmith.targets.cpu_litert import CpuLiteRT
from edgesmith.targets.cpu_onnxruntime import CpuOnnxRuntime
from edgesmith.targets.cpu_tflite_runtime import CpuTFLiteRuntime, InterpreterTool
from edgesmith.targets.graph.ir import Conv2D
from edgesmith.targets.graph.legalizer import legalize
from tests.conformance.cases import Case, all_cases

CASES = {case.name: case for case in all_cases()}
OLD_REFUSES = "requantize-int8-to-int16"
LITERT = Runtime("litert", sys.executable)


def taken() -> list[Case]:
    """Cases that TFLite files can express, but for the one that the old runtime lacks."""
    found = []
    for case in CASES.values():
        try:
            legalize(case.graph, CpuLiteRT().describe())
        except TargetUnsupportedError:
            continue
        found.append(case)
    assert len(found) > 80
    return [case for case in found if case.name != OLD_REFUSES]


@pytest.mark.parametrize("case", taken(), ids=lambda case: case.name)
def test_old_and_new_runtime_get_the_same_file(case: Case) -> None:
    new, old = CpuLiteRT(), CpuTFLiteRuntime()
    legal = legalize(case.graph, new.describe())
    assert new.build(legal).files == old.build(legalize(case.graph, old.describe())).files


def test_the_old_runtime_takes_all_but_one_format() -> None:
    new, old = CpuLiteRT().describe().ops, CpuTFLiteRuntime().describe().ops
    assert new.keys() == old.keys()
    lacking = {kind: {*new[kind]} - {*old[kind]} for kind in new if new[kind] != old[kind]}
    assert lacking == {"Quantize": {OpFormat("int8", output="int16")}}
    assert not any({*old[kind]} - {*new[kind]} for kind in new)


def test_widening_is_refused_for_the_old_runtime_before_anything_is_built() -> None:
    graph = CASES[OLD_REFUSES].graph
    with pytest.raises(TargetUnsupportedError) as caught:
        legalize(graph, CpuTFLiteRuntime().describe())
    text = str(caught.value)
    assert caught.value.code == "ES411"
    assert "Quantize 'op' uses int8 activations in and int16 out" in text
    assert "(fix: give both sides one type: it takes int8 activations in and int8 out)" in text


def test_the_old_runtime_itself_refuses_widening(tmp_path: Path) -> None:
    """Why the description says so; the day that this fails, it can take more."""
    target = CpuTFLiteRuntime()
    if target.tools()[0].find() is None:
        pytest.skip(target.tools()[0].install)
    case = CASES[OLD_REFUSES]
    products = execute_plan(target.build(case.graph), tmp_path)
    with pytest.raises(ToolFailedError, match=r"QUANTIZE.*failed to prepare"):
        target.run(products, case.inputs())


def test_per_channel_fully_connected_becomes_a_convolution() -> None:
    graph = CASES["fully-connected-per-channel"].graph
    legal = legalize(graph, CpuLiteRT().describe())
    assert [op.kind for op in legal.ops] == ["Reshape", "Conv2D", "Reshape"]
    conv = legal.ops[1]
    assert isinstance(conv, Conv2D)
    assert legal["weight"].shape == (5, 1, 1, 16)
    kept = legalize(graph, CpuOnnxRuntime().describe())
    assert [op.kind for op in kept.ops] == ["FullyConnected"]


def test_a_runtime_that_refuses_a_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"\x00\x00\x00\x00TFL3" + b"\x00" * 64)
    with pytest.raises(ToolFailedError, match=r"litert failed on the model \(exit status"):
        LITERT.run(path, [np.zeros((1, 1), np.int8)])


def test_a_runtime_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "_TIMEOUT_S", 0.01)
    with pytest.raises(ToolFailedError, match=r"did not finish within"):
        LITERT.peak_memory(tmp_path / "any.tflite")


def test_a_missing_old_runtime_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(InterpreterTool, "find", lambda self: None)
    with pytest.raises(ToolMissingError, match=r"make setup.*tflite-runtime==2.14.0"):
        CpuTFLiteRuntime().runtime()


@pytest.mark.parametrize("target", [CpuLiteRT(), CpuOnnxRuntime()], ids=lambda t: t.name)
def test_latency_is_interleaved_and_counted(
    target: CpuLiteRT | CpuOnnxRuntime, tmp_path: Path
) -> None:
    case = CASES["conv-valid"]
    products = execute_plan(target.build(legalize(case.graph, target.describe())), tmp_path)
    baseline = Path(products.folder) / products.main
    options = LatencyOptions(warmups=10, runs=100, threads=2)
    run = target.measure_latency(products, baseline, options)
    assert run is not None
    assert run.float_baseline is not None
    for series in (run.deployed, run.float_baseline):
        assert len(series.samples_ms) == 100
        assert min(series.samples_ms) > 0
        assert series.median.value <= series.p90.value <= series.p99.value
        assert series.median.conditions == {"threads": "2", "warmups": "10"}
    alone = target.measure_latency(products, None, options)
    assert alone is not None
    assert alone.float_baseline is None


def test_peak_memory_is_positive_and_small_for_a_small_model(tmp_path: Path) -> None:
    target = CpuOnnxRuntime()
    case = CASES["conv-valid"]
    products = execute_plan(target.build(legalize(case.graph, target.describe())), tmp_path)
    found = target.peak_memory_bytes(products)
    assert found is not None
    assert 0 < found < 1 << 30
