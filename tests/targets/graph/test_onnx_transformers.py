"""Reading what transformers are made of, whole and as exporters write it out."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType
from edgesmith.targets.graph.onnx_reader import read_onnx
from tests.targets.graph.qdq import Qdq, compare, kinds

SIZE = 12


def read(m: Qdq, value: str, *expected: str, budget: int = 1) -> ir.Graph:
    """The graph of a model with this output; it agrees with ONNX Runtime operator by operator."""
    data = m.bytes(value)
    graph = read_onnx(data)
    assert kinds(graph) == list(expected)
    compare(data, graph, budget=budget)
    return graph


def reals(m: Qdq, *shape: int, low: float, high: float) -> str:
    return m.store(m.random.uniform(low, high, shape).astype(np.float32))


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("kind", ["int8", "int32"])
def test_layer_normalization_with_codes(kind: str, opset: int) -> None:
    m = Qdq(opset)
    gamma = m.codes(SIZE, low=40, high=127, scale=0.01, kind=kind)
    beta = m.codes(SIZE, low=-9999, high=9999, scale=1e-4, kind="int32")
    x = m.input(1, 5, SIZE)
    normal = m.node("LayerNormalization", x, gamma, beta, epsilon=1e-3)
    graph = read(m, m.pair(normal, 0.03), "LayerNorm")
    op = graph.ops[0]
    assert isinstance(op, ir.LayerNorm)
    assert np.float32(op.epsilon) == np.float32(1e-3)
    # Gains of 16 bits may be stored wider, as the writer does.
    assert graph[op.inputs[1]].dtype is (DType.INT8 if kind == "int8" else DType.INT16)
    assert graph[op.inputs[2]].dtype is DType.INT32


@pytest.mark.parametrize("beta", [False, True])
def test_layer_normalization_with_real_parameters(beta: bool) -> None:
    m = Qdq()
    parameters = [reals(m, SIZE, low=0.5, high=1.5), reals(m, SIZE, low=-1, high=1)]
    x = m.input(1, 5, SIZE)
    normal = m.node("LayerNormalization", x, *parameters[: 1 + beta])
    graph = read(m, m.pair(normal, 0.03), "LayerNorm")
    gamma = graph[graph.ops[0].inputs[1]]
    assert gamma.dtype is DType.INT16
    assert gamma.data is not None
    assert np.abs(gamma.data).max() == 32767
    assert len(graph.ops[0].inputs) == 2 + beta


@pytest.mark.parametrize("square", ["Pow", "Mul"])
@pytest.mark.parametrize("parts", ["", "gain", "gain and offset"])
def test_layer_normalization_written_out(parts: str, square: str) -> None:
    """As torch exports it up to operator set 16."""
    m = Qdq(13)
    x = m.input(1, 5, SIZE)
    centred = m.node("Sub", x, m.node("ReduceMean", x, axes=[-1]))
    two = m.store(np.float32(2)) if square == "Pow" else centred
    variance = m.node("ReduceMean", m.node(square, centred, two), axes=[-1])
    root = m.node("Sqrt", m.node("Add", variance, m.store(np.float32(1e-5))))
    value = m.node("Div", centred, root)
    if parts:
        value = m.node("Mul", value, reals(m, SIZE, low=0.5, high=1.5))
    if parts == "gain and offset":
        value = m.node("Add", value, reals(m, SIZE, low=-1, high=1))
    graph = read(m, m.pair(value, 0.03), "LayerNorm")
    assert len(graph.ops[0].inputs) == (3 if "offset" in parts else 2)


def test_a_normalization_with_a_quantizer_inside_is_refused() -> None:
    m = Qdq(13)
    x = m.input(1, 5, SIZE)
    root = m.node("Sqrt", m.pair(m.node("ReduceMean", x, axes=[-1]), 0.1))
    with pytest.raises(UnsupportedError, match=r"SquareRoot 'sqrt_\d+' stands alone") as caught:
        read_onnx(m.bytes(m.pair(m.node("Div", x, root), 0.1)))
    assert "part of a layer normalization" in str(caught.value.fix)


@pytest.mark.parametrize("opset", [20, 21])
@pytest.mark.parametrize("form", ["none", "tanh"])
def test_gelu(form: str, opset: int) -> None:
    m = Qdq(opset)
    value = m.node("Gelu", m.input(1, 5, SIZE), approximate=form)
    graph = read(m, m.pair(value, 0.02, 20), "Gelu")
    assert isinstance(graph.ops[0], ir.Gelu)
    assert graph.ops[0].approximate == (form == "tanh")


@pytest.mark.parametrize("order", ["x (1 + erf), then half", "half x, then (1 + erf)", "half last"])
def test_gelu_written_out(order: str) -> None:
    m = Qdq(13)
    x = m.input(1, 5, SIZE)
    half, one = m.store(np.float32(0.5)), m.store(np.float32(1))
    if order == "half x, then (1 + erf)":
        scaled = m.node("Mul", m.store(np.float32(np.sqrt(0.5))), x)
    else:
        scaled = m.node("Div", x, m.store(np.float32(np.sqrt(2))))
    gate = m.node("Add", m.node("Erf", scaled), one)
    if order == "half x, then (1 + erf)":
        value = m.node("Mul", m.node("Mul", x, half), gate)
    elif order == "half last":
        value = m.node("Mul", x, m.node("Mul", gate, half))
    else:
        value = m.node("Mul", m.node("Mul", x, gate), half)
    read(m, m.pair(value, 0.02, 20), "Gelu")


@pytest.mark.parametrize(
    ("divisor", "half", "offset"), [(1.5, 0.5, 1.0), (2**0.5, 0.4, 1.0), (2**0.5, 0.5, 2.0)]
)
def test_what_only_resembles_a_gelu_is_refused(divisor: float, half: float, offset: float) -> None:
    m = Qdq(13)
    x = m.input(1, SIZE)
    numbers = [m.store(np.float32(value)) for value in (divisor, offset, half)]
    gate = m.node("Add", m.node("Erf", m.node("Div", x, numbers[0])), numbers[1])
    value = m.node("Mul", m.node("Mul", x, gate), numbers[2])
    with pytest.raises(UnsupportedError, match=r"Erf 'erf_\d+', a part of a GELU .*set 20"):
        read_onnx(m.bytes(m.pair(value, 0.1)))


@pytest.mark.parametrize("kind", ["Mul", "Div"])
def test_a_scaled_softmax_has_a_beta(kind: str) -> None:
    m = Qdq()
    number = m.store(np.float32(0.25 if kind == "Mul" else 4))
    scores = m.node(kind, m.input(1, 2, 5, 5, scale=0.2), number)
    softmax = m.node("Softmax", scores, axis=-1)
    graph = read_onnx(m.bytes(m.pair(softmax, 1 / 256, 0)))
    found = [op for op in graph.ops if isinstance(op, ir.Softmax)]
    assert [op.beta for op in found] == [0.25]
    assert "Mul" not in kinds(graph)


def test_a_quantized_scale_stays_a_product() -> None:
    m = Qdq()
    scores = m.pair(m.node("Mul", m.input(1, 5, 5), m.store(np.float32(0.25))), 0.02)
    softmax = m.node("Softmax", scores, axis=-1)
    assert kinds(read_onnx(m.bytes(m.pair(softmax, 1 / 256, 0)))) == ["Mul", "Softmax"]


def test_tokens_of_an_image_keep_their_place_in_memory() -> None:
    """Convolution, flattened and transposed: channels are last already, so nothing moves."""
    m = Qdq()
    patches = m.node("Conv", m.input(1, 3, 8, 8), m.codes(SIZE, 3, 4, 4, axis=0), strides=[4, 4])
    flat = m.node("Reshape", m.pair(patches, 0.2), m.ints(1, SIZE, 4))
    tokens = m.node("Transpose", flat, perm=[0, 2, 1])
    placed = m.pair(m.node("Add", tokens, m.codes(1, 4, SIZE)), 0.2)
    normal = m.node("LayerNormalization", placed, reals(m, SIZE, low=0.5, high=1.5))
    read(m, m.pair(normal, 0.03), "Conv2D", "Reshape", "Add", "LayerNorm")


def test_what_normalizes_otherwise_is_refused() -> None:
    for shape, axis, words in (
        ((4, SIZE), 1, "works on more than the last axis"),
        ((1,), 2, "works on an axis of size 1"),
    ):
        m = Qdq()
        gain = m.store(np.ones(shape, np.float32))
        value = m.node("LayerNormalization", m.input(1, 4, shape[-1]), gain, axis=axis)
        with pytest.raises(UnsupportedError, match=words):
            read_onnx(m.bytes(m.pair(value, 0.1)))
    m = Qdq()
    outputs = [m.name("normal"), m.name("mean")]
    gain = m.store(np.ones(SIZE, np.float32))
    made = helper.make_node("LayerNormalization", [m.input(1, 4, SIZE), gain], outputs)
    m.nodes.append(made)
    with pytest.raises(UnsupportedError, match="gives mean and deviation"):
        read_onnx(m.bytes(m.pair(outputs[0], 0.1), m.pair(outputs[1], 0.1)))


def test_gains_beyond_16_bits_or_per_channel_are_refused() -> None:
    m = Qdq()
    gain = m.codes(SIZE, low=40000, high=50000, scale=1e-5, kind="int32")
    value = m.node("LayerNormalization", m.input(1, 4, SIZE), gain)
    with pytest.raises(UnsupportedError, match="has codes beyond 16 bits"):
        read_onnx(m.bytes(m.pair(value, 0.1)))
    m = Qdq()
    value = m.node("LayerNormalization", m.input(1, 4, SIZE), m.codes(SIZE, axis=0))
    with pytest.raises(UnsupportedError, match="has 12 scales"):
        read_onnx(m.bytes(m.pair(value, 0.1)))


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-2, 1)])
def test_two_bit_weights_are_clipped_codes(low: int, high: int) -> None:
    m = Qdq()
    codes = m.store(m.random.integers(-2, 2, (4, SIZE)).astype(np.int8), "w")
    bounds = [m.store(np.array(bound, np.int8)) for bound in (low, high)]
    scale, zero = m.store(np.float32(0.3)), m.store(np.array(0, np.int8))
    weight = m.node("DequantizeLinear", m.node("Clip", codes, *bounds), scale, zero)
    value = m.node("Gemm", m.input(1, SIZE), weight, transB=1)
    graph = read(m, m.pair(value, 0.2), "FullyConnected")
    assert graph["w"].dtype is DType.INT2
    assert graph["w"].data is not None
    assert graph["w"].data.min() >= low
