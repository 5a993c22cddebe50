"""TFLite in and out: nothing changes on the way, and a bad file is a clear error."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.errors import (
    EdgesmithError,
    ModelFileError,
    TargetUnsupportedError,
    UnsupportedError,
)
from edgesmith.targets.cpu_litert import CpuLiteRT
from edgesmith.targets.cpu_onnxruntime import CpuOnnxRuntime
from edgesmith.targets.graph.ir import (
    Clip,
    Conv2D,
    Dequantize,
    DType,
    Graph,
    LayerNorm,
    Padding,
    Quantization,
    Quantize,
    Relu,
    Tensor,
)
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.onnx_writer import write_onnx
from edgesmith.targets.graph.tflite_reader import read_tflite, unpack_codes
from edgesmith.targets.graph.tflite_writer import pack_codes, write_tflite
from tests.conformance.cases import Case, all_cases

CASES = {case.name: case for case in all_cases()}
PLAIN = CASES["conv-valid"]
Change = Callable[[Any], None]


def same_tensor(one: Tensor, other: Tensor) -> bool:
    return (
        (one.shape, one.dtype) == (other.shape, other.dtype)
        and (one.quantization is None or one.quantization.same_as(other.quantization))
        and (one.data is None) == (other.data is None)
        and (one.data is None or other.data is None or np.array_equal(one.data, other.data))
    )


def writable(case: Case) -> bool:
    op = case.graph.ops[0]
    # A clip is written as MAXIMUM and MINIMUM; odd padding needs the legalizer.
    odd = case.name in ("conv-symmetric-stride-2", "conv-without-bias")
    return not isinstance(op, Clip | LayerNorm) and not odd


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if writable(case)], ids=lambda case: case.name
)
def test_a_graph_survives_writing_and_reading(case: Case) -> None:
    again = read_tflite(write_tflite(case.graph), case.name)
    # The file names operators by their output.
    expected = replace(case.graph.ops[0], name="y")
    assert again.ops == (expected,)
    assert (again.inputs, again.outputs) == (case.graph.inputs, case.graph.outputs)
    assert set(again.tensors) == set(case.graph.tensors)
    assert all(same_tensor(case.graph[name], again[name]) for name in again.tensors)


def test_a_convolution_without_bias_gets_zeros() -> None:
    graph = CASES["conv-without-bias"].graph
    again = read_tflite(write_tflite(graph))
    bias = again[again.ops[0].inputs[2]]
    assert bias.data is not None
    assert not bias.data.any()
    assert bias.q.same_as(
        Quantization.per_channel(graph["x"].q.scale * graph["weight"].q.scale, axis=0)
    )


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert write_tflite(PLAIN.graph) == write_tflite(PLAIN.graph)


def test_constants_are_aligned() -> None:
    data = write_tflite(PLAIN.graph)
    weight = np.ascontiguousarray(PLAIN.graph["weight"].data).tobytes()
    assert data.count(weight) == 1
    assert data.index(weight) % 16 == 0


@given(
    st.sampled_from([DType.INT2, DType.INT4, DType.INT8, DType.INT16]),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_packing_is_undone_by_unpacking(dtype: DType, elements: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(dtype.qmin, dtype.qmax, elements, endpoint=True).astype(dtype.numpy)
    packed = pack_codes(codes, dtype)
    assert packed.size == -(-elements * dtype.bits // 8)
    assert np.array_equal(unpack_codes(packed, dtype, elements), codes)


def test_int4_is_packed_low_nibble_first() -> None:
    packed = pack_codes(np.array([1, -1, 7], np.int8), DType.INT4)
    assert packed.tolist() == [0xF1, 0x07]


def test_too_few_bytes_for_the_shape() -> None:
    with pytest.raises(ValueError, match="buffer has 1 bytes where 2"):
        unpack_codes(np.zeros(1, np.uint8), DType.INT16, 1)


def test_padding_that_tflite_lacks_is_refused() -> None:
    conv = PLAIN.graph.ops[0]
    assert isinstance(conv, Conv2D)
    op = replace(conv, padding=Padding(1, 0, 0, 2))
    with pytest.raises(UnsupportedError, match=r"neither SAME nor VALID.*\n.*legalize"):
        write_tflite(replace(PLAIN.graph, ops=(op,)))


def test_float_edges_are_removed() -> None:
    x, y = PLAIN.graph["x"], PLAIN.graph["y"]
    floats = (Tensor("fx", x.shape, DType.FLOAT32), Tensor("fy", y.shape, DType.FLOAT32))
    graph = replace(
        PLAIN.graph.with_tensors(*floats),
        ops=(
            Quantize("quantize", ("fx",), ("x",)),
            *PLAIN.graph.ops,
            Dequantize("dequantize", ("y",), ("fy",)),
        ),
        inputs=("fx",),
        outputs=("fy",),
    )
    again = read_tflite(write_tflite(graph), "edges")
    assert (again.inputs, again.outputs) == (("x",), ("y",))
    assert [op.kind for op in again.ops] == ["Conv2D"]
    assert "fx" not in again.tensors


def test_a_float_model_is_refused() -> None:
    x = Tensor("x", (1, 4), DType.FLOAT32)
    graph = Graph(
        "f", {"x": x, "y": replace(x, name="y")}, (Relu("r", ("x",), ("y",)),), ("x",), ("y",)
    )
    data = write_tflite(graph)
    with pytest.raises(UnsupportedError, match=r"2 tensors are float32.*\n.*full-integer"):
        read_tflite(data)
    assert read_tflite(data, allow_float=True).ops


def test_what_is_not_tflite() -> None:
    for data in (b"", b"TFL3", b"\x00" * 64, b"PK\x03\x04" + b"\x00" * 100):
        with pytest.raises(ModelFileError, match="is not a TFLite file"):
            read_tflite(data, "thing")


def _rewritten(change: Change) -> bytes:
    """A valid file after `change` to its object form."""
    model = schema.ModelT.InitFromPackedBuf(write_tflite(PLAIN.graph), 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _set(path: str, value: object) -> Change:
    """A change that assigns to `subgraphs[0].<path>` or `<path>` of the model."""

    def change(model: Any) -> None:
        steps = path.split(".")
        found = model
        for step in steps[:-1]:
            found = found[int(step)] if step.isdigit() else getattr(found, step)
        setattr(found, steps[-1], value)

    return change


@pytest.mark.parametrize(
    ("path", "value", "kind", "message"),
    [
        ("version", 2, ModelFileError, "schema version 2"),
        ("subgraphs.0.operators.0.inputs", [0, 99, 2], ModelFileError, "index 99 out of range"),
        ("subgraphs.0.operators.0.outputs", [], ModelFileError, "lacks an input or output"),
        ("subgraphs.0.operators.0.inputs", [], ModelFileError, "lacks an input or output"),
        ("subgraphs.0.operators.0.inputs", [0, 1, 2, 2], ModelFileError, "4 operands"),
        ("subgraphs.0.outputs", [2], ModelFileError, "output 'bias' is a constant"),
        ("subgraphs.0.outputs", [77], ModelFileError, "index 77 out of range"),
        ("subgraphs.0.operators.0.opcodeIndex", 5, ModelFileError, "opcode index 5"),
        ("subgraphs.0.tensors.0.buffer", 99, ModelFileError, "buffer index 99"),
        ("subgraphs.0.tensors.0.shape", [1, 0, 8, 4], ModelFileError, "shape"),
        ("subgraphs.0.tensors.0.shape", [2**30, 2**30, 8, 4], ModelFileError, "shape"),
        ("subgraphs.0.tensors.0.shape", [1] * 12, ModelFileError, "shape"),
        ("subgraphs.0.tensors.0.shapeSignature", [-1, -1, 8, 4], UnsupportedError, r"axes \[1\]"),
        ("subgraphs.0.tensors.0.type", schema.TensorType.STRING, UnsupportedError, "STRING"),
        ("subgraphs.0.tensors.0.isVariable", True, UnsupportedError, "variable or sparse"),
        ("subgraphs.0.tensors.0.quantization.scale", [float("nan")], ModelFileError, "finite"),
        ("subgraphs.0.tensors.0.quantization.zeroPoint", [4000], ModelFileError, "zero point"),
        ("subgraphs.0.tensors.1.quantization.scale", [0.1] * 4, ModelFileError, "4 scales and 6"),
        ("subgraphs.0.operators.0.builtinOptions.strideH", 0, UnsupportedError, "stride"),
        ("operatorCodes.0.builtinCode", schema.BuiltinOperator.WHILE, UnsupportedError, "WHILE"),
        ("subgraphs", [], UnsupportedError, "0 subgraphs"),
    ],
)
def test_a_fault_in_the_file_is_named(
    path: str, value: object, kind: type[EdgesmithError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        read_tflite(_rewritten(_set(path, value)))


def test_a_batch_may_be_dynamic() -> None:
    assert read_tflite(_rewritten(_set("subgraphs.0.tensors.0.shapeSignature", [-1, 8, 8, 4])))


def test_a_custom_operator_is_refused_by_its_name() -> None:
    def change(model: Any) -> None:
        model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
        model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        model.operatorCodes[0].customCode = b"MyDetector"

    with pytest.raises(UnsupportedError, match="custom MyDetector 'y'"):
        read_tflite(_rewritten(change))


VALID = write_tflite(PLAIN.graph)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(VALID) - 1))
def test_a_truncated_file_never_crashes(length: int) -> None:
    with pytest.raises(EdgesmithError):
        read_tflite(VALID[:length])


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.tuples(st.integers(8, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=8)
)
def test_a_damaged_file_reads_or_is_an_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(VALID)
    for position, value in changes:
        data[position] = value
    try:
        read_tflite(bytes(data))
    except EdgesmithError:
        return


def files() -> Iterator[bytes]:
    """Every case that TFLite takes."""
    for case in CASES.values():
        with contextlib.suppress(TargetUnsupportedError):
            yield write_tflite(legalize(case.graph, CpuLiteRT().describe()))


FILES = list(files())
PATCHES = st.one_of(st.sampled_from([0, 1, 2, 3, 4, 127, 128, 255]), st.integers(0, 255))


@settings(max_examples=1500, deadline=None)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(8, 1 << 16), PATCHES), min_size=1, max_size=3),
)
def test_what_a_damaged_file_gives_is_written_or_is_an_error(
    valid: bytes, changes: list[tuple[int, int]]
) -> None:
    """Whatever the reader lets through, the legalizer and both writers can judge."""
    data = bytearray(valid)
    for position, value in changes:
        data[8 + position % (len(data) - 8)] = value
    try:
        graph = read_tflite(bytes(data))
    except EdgesmithError:
        return
    for target in (CpuLiteRT(), CpuOnnxRuntime()):
        with contextlib.suppress(EdgesmithError):
            target.build(legalize(graph, target.describe()))


@pytest.mark.parametrize("name", ["conv-valid", "depthwise-plain", "fully-connected-per-tensor"])
def test_a_bias_without_a_scale_has_the_implied_one(name: str) -> None:
    """input scale * weight scale, one a channel where the weights have one; the codes stay."""
    original = CASES[name].graph
    bias = original["bias"]
    without = write_tflite(original.with_tensors(replace(bias, quantization=None)))
    again = read_tflite(without)["bias"]
    assert again.q.same_as(bias.quantization)
    assert bias.data is not None
    np.testing.assert_array_equal(again.data, bias.data)


def test_what_tflite_has_no_operator_or_type_for_is_refused_by_name() -> None:
    description = CpuLiteRT().describe()
    for name, words in (
        ("layer-norm", r"LayerNorm 'op' is not among its operators"),
        ("conv-int2", r"Conv2D 'op' uses int8 activations with int2 weights"),
        ("fully-connected-int2-per-channel", r"FullyConnected 'op' uses .* int2 weights"),
        ("gelu-int16", r"Gelu 'op' uses int16 activations"),
    ):
        with pytest.raises(TargetUnsupportedError, match=words):
            legalize(CASES[name].graph, description)
    with pytest.raises(UnsupportedError, match=r"LayerNorm 'op' has no TFLite operator"):
        write_tflite(CASES["layer-norm"].graph)


def test_onnx_refuses_ports_that_it_has_no_codes_of() -> None:
    x = Tensor("x", (1, 4), DType.INT64, Quantization.per_tensor(0.1))
    graph = Graph("g", {"x": x}, (), ("x",), ("x",))
    with pytest.raises(UnsupportedError, match=r"'x' is int64.*\n.*int8 or int16"):
        write_onnx(graph)


def test_onnx_writes_bounds_beyond_float32_as_its_limits() -> None:
    x = PLAIN.graph["x"]
    clip = Clip("c", ("x",), ("y",), -1e300, 1e300)
    graph = Graph("g", {"x": x, "y": replace(x, name="y")}, (clip,), ("x",), ("y",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = onnx.load_from_string(write_onnx(graph)).graph.initializer
    limit = np.finfo(np.float32).max
    bounds = {item.name: onnx.numpy_helper.to_array(item).item() for item in stored}
    assert (bounds["c/low"], bounds["c/high"]) == (-limit, limit)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, len(VALID) // 4 - 1), st.integers(-(2**31), 2**31 - 1))
def test_a_hostile_offset_reads_or_is_an_error(word: int, value: int) -> None:
    data = bytearray(VALID)
    struct.pack_into("<i", data, 4 * word, value)
    try:
        read_tflite(bytes(data))
    except EdgesmithError:
        return


@pytest.mark.parametrize("model", ["kws", "ic", "vww", "ad"])
def test_official_files_keep_every_parameter(model: str) -> None:
    folder = os.environ.get("EDGESMITH_DATA")
    if not folder:
        pytest.skip("EDGESMITH_DATA is not set")
    path = Path(folder) / "mlperf_tiny" / f"{model}_int8.tflite"
    graph = read_tflite(path.read_bytes(), model)
    again = read_tflite(write_tflite(graph), model)
    assert again.ops == graph.ops
    assert all(same_tensor(graph[name], again[name]) for name in graph.tensors)


def test_per_channel_scales_along_the_right_axis() -> None:
    graph = CASES["depthwise-plain"].graph
    again = read_tflite(write_tflite(graph))
    quantization = again["weight"].quantization
    assert isinstance(quantization, Quantization)
    assert quantization.axis == 3
