"""From a model file to a proven artifact: what legalizing adds is allowed, what changes is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesmith.pipeline.compile import compile_model
from edgesmith.pipeline.errors import (
    CacheError,
    ModelFileError,
    ParityError,
    SpecError,
    TargetUnsupportedError,
)
from edgesmith.pipeline.lowering import build_for, prove, read_model, scored_in_file
from edgesmith.targets.cpu_litert import CpuLiteRT
from edgesmith.targets.graph.ir import DType, Graph, HardSwish, Quantization, Softmax, Tensor
from edgesmith.targets.graph.onnx_writer import write_onnx
from edgesmith.targets.graph.tflite_writer import write_tflite
from tests.conformance.cases import all_cases

CASES = {case.name: case.graph for case in all_cases()}


def odd_softmax() -> Graph:
    """A softmax whose output scale no TFLite kernel has."""
    x = Tensor("x", (1, 6), DType.INT8, Quantization.per_tensor(0.1, 3))
    y = Tensor("y", (1, 6), DType.INT8, Quantization.per_tensor(1 / 200, -100))
    return Graph("g", {"x": x, "y": y}, (Softmax("y", ("x",), ("y",)),), ("x",), ("y",))


def test_a_requantization_that_the_target_needs_is_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(write_onnx(odd_softmax()))
    found = compile_model(path, "cpu-litert", tmp_path / "out")
    assert found.parity.different == 0
    assert found.max_lsb <= 1
    shipped = read_model(tmp_path / "out" / found.artifact)
    assert [op.kind for op in shipped.ops] == ["Softmax", "Quantize"]
    assert shipped["y"].q.same_as(odd_softmax()["y"].quantization)


def test_a_tampered_artifact_is_caught(tmp_path: Path) -> None:
    graph, target = CASES["conv-valid"], CpuLiteRT()
    products, legal = build_for(graph, target, tmp_path)
    prove(scored_in_file(graph, legal), target, products)
    artifact = tmp_path / products.main
    weight = np.ascontiguousarray(graph["weight"].data).tobytes()
    data = bytearray(artifact.read_bytes())
    data[data.index(weight)] ^= 1
    artifact.write_bytes(data)
    with pytest.raises(ParityError, match=r"'weight' \(weight\): 1 of 216 codes differ"):
        prove(scored_in_file(graph, legal), target, products)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.pb"
    path.write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"neither \.onnx nor \.tflite"):
        read_model(path)
    with pytest.raises(ModelFileError, match="cannot read"):
        read_model(tmp_path / "absent.tflite")


def test_an_unknown_target_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(CASES["conv-valid"]))
    with pytest.raises(SpecError, match=r"'cpu-lite'.*\n.*cpu-litert"):
        compile_model(path, "cpu-lite", tmp_path / "out")


def test_what_a_target_lacks_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    wide = Quantization.per_tensor(0.001, 0)
    tensors = {name: Tensor(name, (1, 4), DType.INT16, wide) for name in ("x", "y")}
    graph = Graph("g", tensors, (HardSwish("swish", ("x",), ("y",)),), ("x",), ("y",))
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(graph))
    out = tmp_path / "out"
    with pytest.raises(
        TargetUnsupportedError, match=r"HardSwish 'y' uses int16 activations .fix: it takes int8"
    ):
        compile_model(path, "cpu-litert", out)
    assert not list(out.iterdir())


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(write_tflite(CASES["conv-valid"]))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(CacheError, match=r"cannot write to .*\n.*--out"):
        compile_model(path, "cpu-litert", tmp_path / "out")
