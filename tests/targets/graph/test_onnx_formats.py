"""Number formats in ONNX: what every way of writing codes is read as, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgesmith.pipeline.errors import ModelFileError, UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Tensor
from edgesmith.targets.graph.onnx_reader import read_onnx
from tests.targets.graph.qdq import Qdq, compare, kinds


def layer(m: Qdq, weight: str, *bias: str, scale: float = 0.05) -> Graph:
    """A fully connected layer of 4 -> 3 with that weight."""
    x = m.input(1, 4, scale=scale)
    return read_onnx(m.bytes(m.pair(m.node("Gemm", x, weight, *bias, transB=1), 0.1)))


def weight_of(graph: Graph) -> Tensor:
    return graph[graph.ops[-1].inputs[1]]


def bias_of(graph: Graph) -> Tensor:
    return graph[graph.ops[-1].inputs[2]]


def dequantized(m: Qdq, codes: str, scale: float, zero: np.generic | None) -> str:
    parameters = [m.store(np.float32(scale))]
    if zero is not None:
        parameters.append(m.store(zero))
    return m.node("DequantizeLinear", codes, *parameters)


@given(st.integers(0, 255), st.floats(2**-20, 10, width=32))
def test_uint8_activations_are_shifted_exactly(zero: int, scale: float) -> None:
    m = Qdq()
    x = m.input(1, 4, scale=scale, zero=zero)
    graph = read_onnx(m.bytes(m.node("Relu", x)))
    tensor = graph["x"]
    assert tensor.dtype is DType.INT8
    assert tensor.q.scale.tobytes() == np.float32(scale).tobytes()
    assert tensor.q.zero_point[0] == zero - 128
    codes = np.arange(256)
    reals = (codes - zero) * np.float64(np.float32(scale))
    found = tensor.q.dequantize((codes - 128).astype(np.int8))
    np.testing.assert_array_equal(found, reals.astype(np.float32))


@pytest.mark.parametrize(
    ("low", "high", "kind", "dtype"),
    [
        (-7, 7, "int8", DType.INT4),
        (-8, 7, "int8", DType.INT4),
        (-3, 3, "int8", DType.INT4),
        (-1, 1, "int8", DType.INT2),
        (-31, 31, "int8", DType.INT8),
        (-127, 127, "int8", DType.INT8),
    ],
)
def test_clip_of_weight_codes_is_the_format(low: int, high: int, kind: str, dtype: DType) -> None:
    m = Qdq()
    codes = m.random.integers(low, high + 1, (3, 4)).astype(kind)
    bounds = [m.store(np.array(bound, kind)) for bound in (low, high)]
    clipped = m.node("Clip", m.store(codes, "w"), *bounds)
    graph = layer(m, dequantized(m, clipped, 0.02, np.int8(0)))
    tensor = weight_of(graph)
    assert (tensor.name, tensor.dtype) == ("w", dtype)
    assert tensor.data is not None
    np.testing.assert_array_equal(tensor.data, codes)


def test_float_weights_that_are_quantized_in_the_graph() -> None:
    """QuantizeLinear on an initializer, then Clip: how Brevitas writes without folding."""
    m = Qdq()
    reals = m.random.normal(0, 0.1, (3, 4)).astype(np.float32)
    parameters = [m.store(np.float32(0.03)), m.store(np.int8(0))]
    codes = m.node("QuantizeLinear", m.store(reals, "w"), *parameters)
    codes = m.node("Clip", codes, m.store(np.int8(-7)), m.store(np.int8(7)))
    graph = layer(m, m.node("DequantizeLinear", codes, *parameters))
    tensor = weight_of(graph)
    assert tensor.dtype is DType.INT4
    expected = np.clip(np.rint(reals / np.float32(0.03)), -7, 7)
    assert tensor.data is not None
    np.testing.assert_array_equal(tensor.data, expected)


@pytest.mark.parametrize(("kind", "zero"), [(TensorProto.INT4, 0), (TensorProto.UINT4, 8)])
def test_packed_four_bit_weights(kind: int, zero: int) -> None:
    m = Qdq(21)
    codes = m.random.integers(-8, 8, (3, 4))
    m.initializers.append(helper.make_tensor("w", kind, (3, 4), (codes + zero).reshape(-1)))
    m.initializers.append(helper.make_tensor("z", kind, (), [zero]))
    weight = m.node("DequantizeLinear", "w", m.store(np.float32(0.02)), "z")
    tensor = weight_of(layer(m, weight))
    assert tensor.dtype is DType.INT4
    assert not tensor.q.zero_point.any()
    assert tensor.data is not None
    np.testing.assert_array_equal(tensor.data, codes)


def test_uint8_weights_around_128_are_symmetric() -> None:
    m = Qdq()
    codes = m.random.integers(1, 256, (3, 4)).astype(np.uint8)
    tensor = weight_of(layer(m, dequantized(m, m.store(codes, "w"), 0.02, np.uint8(128))))
    assert tensor.dtype is DType.INT8
    assert tensor.data is not None
    np.testing.assert_array_equal(tensor.data, codes.astype(int) - 128)
    m = Qdq()
    odd = dequantized(m, m.store(codes, "w"), 0.02, np.uint8(127))
    with pytest.raises(UnsupportedError, match=r"'w'.*not symmetric"):
        layer(m, odd)


def test_four_bit_activations() -> None:
    """uint8 codes clipped to [0, 15] between Q and DQ are int8 codes, and clamped."""
    m = Qdq()
    x = m.input(1, 4)
    parameters = [m.store(np.float32(0.3)), m.store(np.uint8(3))]
    codes = m.node("QuantizeLinear", m.node("Sigmoid", x), *parameters)
    codes = m.node("Clip", codes, m.store(np.uint8(0)), m.store(np.uint8(15)))
    graph = read_onnx(m.bytes(m.node("DequantizeLinear", codes, *parameters, output="y")))
    assert graph["y"].dtype is DType.INT8
    assert graph["y"].q.scalar == (np.float32(0.3), 3 - 128)
    assert kinds(graph) == ["Logistic", "Clip"]


def test_codes_clipped_to_no_format_are_clamped() -> None:
    """Six bits have no storage of their own: int8 and a clamp to [-31, 31]."""
    m = Qdq()
    x = m.input(1, 8, scale=0.05)
    parameters = [m.store(np.float32(0.04)), m.store(np.int8(0))]
    codes = m.node("QuantizeLinear", x, *parameters)
    codes = m.node("Clip", codes, m.store(np.int8(-31)), m.store(np.int8(31)))
    data = m.bytes(m.node("DequantizeLinear", codes, *parameters, output="y"))
    graph = read_onnx(data)
    assert kinds(graph) == ["Quantize", "Clip"]
    assert graph.outputs == ("y",)
    compare(data, graph)


def test_int16_activations_have_wide_biases() -> None:
    m = Qdq(21)
    x = m.input(1, 4, scale=0.001, zero=0, kind="int16")
    bias = dequantized(m, m.store(np.array([5, -6, 7], np.int32), "b"), 0.001 * 0.01, np.int32(0))
    y = m.pair(m.node("Gemm", x, m.codes(3, 4), bias, transB=1), 0.001, 0, "int16")
    data = m.bytes(y)
    graph = read_onnx(data)
    assert graph["x"].dtype is DType.INT16
    assert bias_of(graph).dtype is DType.INT64
    assert bias_of(graph).data is not None
    assert bias_of(graph).name == "b"
    compare(data, graph)


def test_narrow_constants_are_widened_next_to_int16() -> None:
    m = Qdq(21)
    x = m.input(1, 4, scale=0.001, zero=0, kind="int16")
    constant = dequantized(m, m.store(np.array([1, 2, 3, 4], np.int8), "c"), 0.02, np.int8(2))
    graph = read_onnx(m.bytes(m.pair(m.node("Add", x, constant), 0.001, 0, "int16")))
    tensor = graph["c"]
    assert (tensor.dtype, tensor.q.scalar) == (DType.INT16, (np.float32(0.02), 0))
    assert tensor.data is not None
    np.testing.assert_array_equal(tensor.data, [-1, 0, 1, 2])


def test_float_biases_are_rounded_to_input_times_weight() -> None:
    m = Qdq()
    reals = np.array([0.1, -0.2, 0.30001], np.float32)
    graph = layer(m, m.codes(3, 4, axis=0, name="w"), m.store(reals, "b"))
    bias, weight = bias_of(graph), weight_of(graph)
    expected = np.float32(0.05) * weight.q.scale
    assert bias.q.scale.tobytes() == expected.tobytes()
    assert (bias.name, bias.dtype, bias.q.axis) == ("b", DType.INT32, 0)
    assert bias.data is not None
    np.testing.assert_array_equal(bias.data, np.rint(reals / expected.astype(np.float64)))


def test_bias_scale_must_be_input_times_weight() -> None:
    m = Qdq()
    bias = dequantized(m, m.store(np.array([5, -6, 7], np.int32), "b"), 0.05 * 0.01, np.int32(0))
    graph = layer(m, m.codes(3, 4), bias)
    assert bias_of(graph).q.scale == np.float32(0.05) * np.float32(0.01)
    m = Qdq()
    bias = dequantized(m, m.store(np.array([5, -6, 7], np.int32), "b"), 0.0006, np.int32(0))
    with pytest.raises(UnsupportedError, match=r"'b'.*expected input \* weight"):
        layer(m, m.codes(3, 4), bias)
    m = Qdq()
    bias = dequantized(m, m.store(np.array([5, -6, 7], np.int8), "b"), 0.0005, np.int8(0))
    with pytest.raises(UnsupportedError, match=r"'b'.*int8 codes"):
        layer(m, m.codes(3, 4), bias)


def test_float_bias_that_does_not_fit_is_refused() -> None:
    m = Qdq()
    with pytest.raises(UnsupportedError, match="does not fit int32"):
        layer(m, m.codes(3, 4, scale=1e-9), m.store(np.full(3, 5.0, np.float32)))


def test_shared_bias_of_two_layers_gets_two_scales() -> None:
    m = Qdq()
    x, shared = m.input(1, 4), m.store(np.ones(4, np.float32), "b")
    first = m.pair(m.node("Gemm", x, m.codes(4, 4), shared, transB=1), 0.1)
    second = m.pair(m.node("Gemm", first, m.codes(4, 4), shared, transB=1), 0.1)
    graph = read_onnx(m.bytes(second))
    biases = [op.inputs[2] for op in graph.ops]
    assert biases == ["b", "b#2"]
    assert graph["b"].q.scale != graph["b#2"].q.scale


def test_tied_weights_stay_one_tensor() -> None:
    m = Qdq()
    x, shared = m.input(1, 4), m.codes(4, 4, name="w")
    first = m.pair(m.node("Gemm", x, shared, transB=1), 0.1)
    graph = read_onnx(m.bytes(m.pair(m.node("Gemm", first, shared, transB=1), 0.1)))
    assert [op.inputs[1] for op in graph.ops] == ["w", "w"]


@pytest.mark.parametrize(("kind", "zero"), [("int8", 0), ("int16", 0)])
def test_one_element_constants_use_the_largest_code(kind: str, zero: int) -> None:
    m = Qdq(21)
    x = m.input(1, 4, scale=0.01, zero=zero, kind=kind)
    y = m.node("Mul", x, m.store(np.array([-0.3], np.float32), "c"))
    graph = read_onnx(m.bytes(m.pair(y, 0.01, 0, kind)))
    tensor = graph["c"]
    assert tensor.data is not None
    assert tensor.data[0] == -tensor.dtype.qmax
    np.testing.assert_allclose(tensor.q.dequantize(tensor.data), -0.3, rtol=1e-6)


def test_both_sides_of_a_pair_must_agree() -> None:
    m = Qdq()
    x = m.input(1, 4)
    codes = m.node("QuantizeLinear", x, m.store(np.float32(0.1)), m.store(np.uint8(3)))
    with pytest.raises(UnsupportedError, match="reads codes of scale"):
        read_onnx(m.bytes(dequantized(m, codes, 0.2, np.uint8(3))))


def test_zero_points_may_be_absent() -> None:
    """QuantizeLinear without one gives uint8 around 0, DequantizeLinear takes its input's type."""
    m = Qdq()
    x = m.input(1, 4)
    codes = m.node("QuantizeLinear", m.node("Relu", x), m.store(np.float32(0.1)))
    graph = read_onnx(m.bytes(dequantized(m, codes, 0.1, None)))
    assert graph[graph.outputs[0]].q.scalar == (np.float32(0.1), -128)


def test_quantizers_of_other_domains_and_blocks() -> None:
    m = Qdq()
    x = m.input(1, 4)
    for node in m.nodes:
        node.domain = "com.microsoft"
    model = m.proto(m.node("Relu", x), infer=False)
    assert kinds(read_onnx(model.SerializeToString())) == ["Relu"]
    m = Qdq(21)
    weight = m.node(
        "DequantizeLinear",
        m.store(np.ones((4, 4), np.int8)),
        m.store(np.ones((2, 4), np.float32)),
        block_size=2,
        axis=0,
    )
    x = m.input(1, 4)
    data = m.proto(m.pair(m.node("MatMul", x, weight), 0.1), infer=False).SerializeToString()
    with pytest.raises((UnsupportedError, ModelFileError), match="blocks"):
        read_onnx(data)


@pytest.mark.parametrize("axis", [0, 1])
def test_axis_follows_the_transposed_matrix(axis: int) -> None:
    m = Qdq()
    weight = m.codes(4, 3, axis=axis)
    x = m.input(1, 4)
    data = m.bytes(m.pair(m.node("MatMul", x, weight), 0.1))
    if axis == 0:
        with pytest.raises(UnsupportedError, match="per output channel"):
            read_onnx(data)
        return
    tensor = weight_of(read_onnx(data))
    assert tensor.shape == (3, 4)
    assert tensor.q.axis == 0


def test_one_scale_along_an_axis_is_per_tensor() -> None:
    m = Qdq()
    tensor = weight_of(layer_of_one(m))
    assert tensor.q.axis is None


def layer_of_one(m: Qdq) -> Graph:
    x = m.input(1, 4)
    weight = m.codes(1, 4, axis=0)
    return read_onnx(m.bytes(m.pair(m.node("Gemm", x, weight, transB=1), 0.1)))


def test_a_transposed_output_has_its_own_tensor() -> None:
    """A transpose behind the last quantizer is done in memory, under the name of the output."""
    m = Qdq()
    y = m.pair(m.node("Sigmoid", m.input(2, 3, 4)), 1 / 256, 0, name="y")
    graph = read_onnx(m.bytes(m.node("Transpose", y, perm=[0, 2, 1], output="out")))
    assert graph.outputs == ("out",)
    assert graph["out"].shape == (2, 4, 3)
    assert isinstance(graph.ops[-1], ir.Transpose)
