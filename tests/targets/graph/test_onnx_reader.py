"""Every ONNX operator in QDQ form: what is read computes what ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType
from edgesmith.targets.graph.onnx_reader import read_onnx
from tests.targets.graph.qdq import Qdq, compare, kinds

Case = Callable[[Qdq], str]
CASES: dict[str, tuple[Case, list[str]]] = {}


def case(*expected: str) -> Callable[[Case], Case]:
    """Register a model: the function builds it and returns its output's real value."""

    def register(function: Case) -> Case:
        CASES[function.__name__.lstrip("_")] = function, list(expected)
        return function

    return register


def _conv(m: Qdq, x: str, weight: str, *bias: str, **attributes: Any) -> str:
    return m.pair(m.node("Conv", x, weight, *bias, **attributes), 0.2)


@case("Conv2D")
def _conv_per_channel(m: Qdq) -> str:
    return _conv(m, m.input(1, 3, 9, 7), m.codes(4, 3, 3, 3, axis=0), pads=[1, 1, 1, 1])


@case("Conv2D")
def _conv_strided_dilated(m: Qdq) -> str:
    weight = m.codes(4, 3, 3, 2)
    return _conv(
        m, m.input(1, 3, 9, 8), weight, strides=[2, 1], dilations=[2, 3], pads=[2, 0, 1, 3]
    )


@case("Conv2D")
def _conv_grouped(m: Qdq) -> str:
    return _conv(m, m.input(1, 4, 6, 6), m.codes(6, 2, 3, 3, axis=0), group=2)


@case("Conv2D")
def _conv_same_lower(m: Qdq) -> str:
    weight = m.codes(4, 2, 2, 3)
    return _conv(m, m.input(1, 2, 6, 7), weight, auto_pad="SAME_LOWER", strides=[2, 2])


@case("Conv2D")
def _conv_same_upper(m: Qdq) -> str:
    return _conv(m, m.input(1, 2, 6, 7), m.codes(4, 2, 2, 4), auto_pad="SAME_UPPER")


@case("DepthwiseConv2D")
def _conv_depthwise(m: Qdq) -> str:
    weight = m.codes(4, 1, 3, 3, axis=0)
    return _conv(m, m.input(1, 4, 6, 5), weight, group=4, pads=[1, 1, 1, 1])


@case("DepthwiseConv2D")
def _conv_depth_multiplier(m: Qdq) -> str:
    return _conv(m, m.input(1, 3, 6, 5), m.codes(6, 1, 3, 3, axis=0), group=3)


@case("Conv2D")
def _conv_one_dimension(m: Qdq) -> str:
    return _conv(m, m.input(1, 3, 12), m.codes(5, 3, 4, axis=0), pads=[2, 1], strides=[2])


@case("Conv2D")
def _conv_relu_fused(m: Qdq) -> str:
    x = m.node("Conv", m.input(1, 3, 5, 5), m.codes(4, 3, 1, 1))
    return m.pair(m.node("Relu", x), 0.05, 0)


@case("Conv2D")
def _conv_relu6_fused(m: Qdq) -> str:
    x = m.node("Conv", m.input(1, 3, 5, 5), m.codes(4, 3, 1, 1))
    clip = m.node("Clip", x, m.store(np.float32(0)), m.store(np.float32(6)))
    return m.pair(clip, 0.03, 10)


@case("Conv2D", "Clip")
def _conv_clip_odd_bounds(m: Qdq) -> str:
    x = m.node("Conv", m.input(1, 3, 5, 5), m.codes(4, 3, 1, 1))
    clip = m.node("Clip", x, m.store(np.float32(-0.77)), m.store(np.float32(1.31)))
    return m.pair(clip, 0.03, 120)


@case("Conv2D", "MaxPool2D", "Reshape")
def _pool_before_quantizer(m: Qdq) -> str:
    x = m.node("Conv", m.input(1, 3, 6, 6), m.codes(4, 3, 3, 3), pads=[1, 1, 1, 1])
    x = m.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return m.pair(m.node("Reshape", x, m.ints(1, 4, 9)), 0.1)


@case("MaxPool2D")
def _max_pool_inherits(m: Qdq) -> str:
    return m.node("MaxPool", m.input(1, 3, 6, 6), kernel_shape=[3, 3], pads=[1, 1, 1, 1])


@case("MaxPool2D")
def _max_pool_ceil(m: Qdq) -> str:
    x = m.input(1, 3, 6, 7)
    return m.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[0, 1, 0, 1])


@case("MaxPool2D")
def _max_pool_one_dimension(m: Qdq) -> str:
    return m.node("MaxPool", m.input(1, 3, 9), kernel_shape=[3], strides=[2])


@case("MaxPool2D")
def _global_max_pool(m: Qdq) -> str:
    return m.node("GlobalMaxPool", m.input(1, 3, 6, 5))


@case("AveragePool2D")
def _average_pool_same_scale(m: Qdq) -> str:
    x = m.input(1, 3, 6, 6)
    y = m.node("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    return m.pair(y, 0.05)


@case("Pad", "AveragePool2D")
def _average_pool_counts_padding(m: Qdq) -> str:
    x = m.input(1, 3, 6, 6, zero=90)
    pads = [1, 1, 1, 1]
    y = m.node("AveragePool", x, kernel_shape=[3, 3], pads=pads, count_include_pad=1)
    return m.pair(y, 0.05, 90)


@case("Mean")
def _global_average_pool(m: Qdq) -> str:
    return m.pair(m.node("GlobalAveragePool", m.input(1, 5, 6, 4)), 0.01, 100)


@case("Mean")
def _mean_over_channels(m: Qdq) -> str:
    x = m.input(1, 5, 6, 4)
    return m.pair(m.node("ReduceMean", x, m.ints(1), keepdims=0), 0.02)


@case("Mean")
def _mean_one_dimension(m: Qdq) -> str:
    return m.pair(m.node("ReduceMean", m.input(1, 5, 8), m.ints(-1), keepdims=1), 0.02)


@case("FullyConnected")
def _gemm(m: Qdq) -> str:
    x = m.input(2, 12)
    return m.pair(m.node("Gemm", x, m.codes(5, 12, axis=0), transB=1), 0.3)


@case("FullyConnected")
def _gemm_plain_matrix(m: Qdq) -> str:
    return m.pair(m.node("Gemm", m.input(1, 12), m.codes(12, 5, axis=1)), 0.3)


@case("FullyConnected")
def _matmul_three_axes(m: Qdq) -> str:
    x = m.input(1, 4, 6)
    y = m.node("MatMul", x, m.codes(6, 5, axis=1))
    return m.pair(m.node("Add", y, m.store(np.linspace(-1, 1, 5, dtype=np.float32))), 0.2)


@case("Transpose", "Transpose", "BatchMatMul")
def _matmul_two_activations(m: Qdq) -> str:
    first, second = m.input(1, 2, 3, 4, name="a"), m.input(1, 2, 4, 5, name="b", zero=100)
    return m.pair(m.node("MatMul", first, second), 0.2)


@case("BatchMatMul")
def _matmul_transposed_operand(m: Qdq) -> str:
    first, second = m.input(2, 3, 4, name="a"), m.input(2, 5, 4, name="b")
    return m.pair(m.node("MatMul", first, m.node("Transpose", second, perm=[0, 2, 1])), 0.2)


@case("Add")
def _add_relu(m: Qdq) -> str:
    total = m.node("Add", m.input(1, 3, 4, 4, name="a"), m.input(1, 3, 4, 4, name="b", scale=0.03))
    return m.pair(m.node("Relu", total), 0.06, 0)


@case("Reshape", "Sub")
def _sub_broadcast(m: Qdq) -> str:
    return m.pair(m.node("Sub", m.input(1, 3, 4, 4, name="a"), m.input(3, 1, 1, name="b")), 0.1)


@case("Mul")
def _mul_squeeze_excite(m: Qdq) -> str:
    gate = m.input(1, 3, 1, 1, name="b", scale=0.01)
    return m.pair(m.node("Mul", m.input(1, 3, 4, 5, name="a"), gate), 0.1)


@case("Mul")
def _mul_by_scalar(m: Qdq) -> str:
    return m.pair(m.node("Mul", m.input(1, 3, 4, 4), m.store(np.float32(-0.37))), 0.02)


@case("Mul")
def _divide_by_scalar(m: Qdq) -> str:
    return m.pair(m.node("Div", m.input(1, 3, 4), m.store(np.float32(8))), 0.01)


@case("Add")
def _add_constant_per_channel(m: Qdq) -> str:
    return m.pair(m.node("Add", m.input(1, 3, 4, 4), m.codes(3, 1, 1, scale=0.02)), 0.05)


@case("HardSwish")
def _hard_swish(m: Qdq) -> str:
    return m.pair(m.node("HardSwish", m.input(1, 3, 4, 4)), 0.04, 20)


@case("HardSwish")
def _hard_swish_by_sigmoid(m: Qdq) -> str:
    x = m.input(1, 3, 4, 4)
    gate = m.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    return m.pair(m.node("Mul", x, gate), 0.04, 20)


@case("HardSwish")
def _hard_swish_decomposed(m: Qdq) -> str:
    x = m.input(1, 3, 4, 4)
    shifted = m.node("Add", x, m.store(np.float32(3)))
    gate = m.node("Clip", shifted, m.store(np.float32(0)), m.store(np.float32(6)))
    return m.pair(m.node("Div", m.node("Mul", x, gate), m.store(np.float32(6))), 0.04, 20)


@case("HardSwish")
def _hard_swish_divided_first(m: Qdq) -> str:
    x = m.input(1, 3, 4, 4)
    shifted = m.node("Add", m.store(np.float32(3)), x)
    gate = m.node("Clip", shifted, m.store(np.float32(0)), m.store(np.float32(6)))
    return m.pair(m.node("Mul", m.node("Div", gate, m.store(np.float32(6))), x), 0.04, 20)


@case("Logistic")
def _sigmoid(m: Qdq) -> str:
    return m.pair(m.node("Sigmoid", m.input(1, 3, 4)), 1 / 256, 0)


@case("Tanh")
def _tanh(m: Qdq) -> str:
    return m.pair(m.node("Tanh", m.input(1, 3, 4, 4)), 1 / 128, 128)


@case("Softmax")
def _softmax(m: Qdq) -> str:
    return m.pair(m.node("Softmax", m.input(1, 10), axis=-1), 1 / 256, 0)


@case("Softmax")
def _softmax_over_channels(m: Qdq) -> str:
    return m.pair(m.node("Softmax", m.input(1, 5, 3, 4), axis=1), 1 / 256, 0)


@case("Transpose", "Softmax", "Transpose")
def _softmax_over_inner_axis(m: Qdq) -> str:
    return m.pair(m.node("Softmax", m.input(2, 5, 3), axis=1), 1 / 256, 0)


@case("Relu")
def _relu_alone_inherits(m: Qdq) -> str:
    return m.node("Relu", m.input(1, 3, 4, 4))


@case("Clip")
def _clip_on_the_grid_inherits(m: Qdq) -> str:
    bounds = [m.store(np.float32(-1.0)), m.store(np.float32(0.5))]
    return m.node("Clip", m.input(1, 3, 4, 4), *bounds)


@case("Quantize", "Relu")
def _relu6_with_new_scale(m: Qdq) -> str:
    clip = m.node("Clip", m.input(1, 8), m.store(np.float32(0)), m.store(np.float32(6)))
    return m.pair(clip, 0.021, 7)


@case("Quantize")
def _requantize(m: Qdq) -> str:
    return m.pair(m.input(1, 8), 0.07, 100)


@case("MaxPool2D", "Quantize")
def _requantize_after_pool(m: Qdq) -> str:
    x = m.node("MaxPool", m.input(1, 3, 6, 6), kernel_shape=[2, 2])
    return m.pair(x, 0.08, 110)


@case("Concat")
def _concat_channels(m: Qdq) -> str:
    return m.node("Concat", m.input(1, 3, 4, 4, name="a"), m.input(1, 2, 4, 4, name="b"), axis=1)


@case("Concat")
def _concat_three_axes(m: Qdq) -> str:
    return m.node("Concat", m.input(1, 3, 4, name="a"), m.input(1, 3, 2, name="b"), axis=-1)


@case("StridedSlice")
def _slice_channels(m: Qdq) -> str:
    x = m.input(1, 6, 4, 5)
    return m.node("Slice", x, m.ints(1, -3), m.ints(5, 99), m.ints(1, 3), m.ints(2, 1))


@case("StridedSlice", "StridedSlice", "Add")
def _split(m: Qdq) -> str:
    x = m.input(1, 6, 4, 5)
    first, second = m.name("first"), m.name("second")
    m.nodes.append(onnx.helper.make_node("Split", [x], [first, second], axis=1, num_outputs=2))
    return m.pair(m.node("Add", first, second), 0.1)


@case("StridedSlice", "Reshape")
def _gather_entry(m: Qdq) -> str:
    return m.node("Gather", m.input(2, 5, 3), m.store(np.array(-2, np.int64)), axis=1)


@case("Pad")
def _pad(m: Qdq) -> str:
    return m.node("Pad", m.input(1, 3, 4, 4, zero=70), m.ints(0, 0, 1, 2, 0, 1, 0, 3))


@case("Pad")
def _pad_with_value(m: Qdq) -> str:
    x = m.input(1, 3, 4, 4)
    padded = m.node("Pad", x, m.ints(1, 2, 1, 0), m.store(np.float32(-1.5)), m.ints(2, 3))
    return m.pair(padded, 0.05)


@case("ResizeNearest")
def _resize_nearest(m: Qdq) -> str:
    return m.node(
        "Resize",
        m.input(1, 3, 4, 5),
        "",
        m.store(np.array([1, 1, 2, 3], np.float32)),
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )


@case("ResizeNearest")
def _resize_nearest_corners(m: Qdq) -> str:
    return m.node(
        "Resize",
        m.input(1, 3, 4, 5),
        "",
        "",
        m.ints(1, 3, 7, 9),
        mode="nearest",
        nearest_mode="round_prefer_ceil",
        coordinate_transformation_mode="align_corners",
    )


def _resize_linear(m: Qdq, mode: str) -> str:
    sizes = m.ints(1, 3, 8, 10)
    x = m.input(1, 3, 4, 5)
    y = m.node("Resize", x, "", "", sizes, mode="linear", coordinate_transformation_mode=mode)
    return m.pair(y, 0.05)


@case("ResizeBilinear")
def _resize_bilinear(m: Qdq) -> str:
    return _resize_linear(m, "half_pixel")


@case("ResizeBilinear")
def _resize_bilinear_corners(m: Qdq) -> str:
    return _resize_linear(m, "align_corners")


@case("ResizeBilinear")
def _resize_bilinear_asymmetric(m: Qdq) -> str:
    return _resize_linear(m, "asymmetric")


@case("Reshape", "Transpose", "BatchMatMul")
def _attention_scores(m: Qdq) -> str:
    x = m.input(1, 6, 8)
    heads = m.node("Transpose", m.node("Reshape", x, m.ints(1, 6, 2, 4)), perm=[0, 2, 1, 3])
    return m.pair(m.node("MatMul", heads, m.node("Transpose", heads, perm=[0, 1, 3, 2])), 0.3)


@case("Conv2D", "FullyConnected")
def _flatten_then_gemm(m: Qdq) -> str:
    x = _conv(m, m.input(1, 3, 4, 5), m.codes(4, 3, 3, 3), pads=[1, 1, 1, 1])
    return m.pair(m.node("Gemm", m.node("Flatten", x), m.codes(7, 80, axis=0), transB=1), 1.0)


@case("Conv2D", "Reshape", "FullyConnected")
def _flatten_with_quantizer(m: Qdq) -> str:
    x = _conv(m, m.input(1, 3, 4, 5), m.codes(4, 3, 3, 3), pads=[1, 1, 1, 1])
    flat = m.pair(m.node("Reshape", x, m.ints(0, -1)), 0.2)
    return m.pair(m.node("Gemm", flat, m.codes(7, 80, axis=0), transB=1), 1.0)


@case("Conv2D", "Reshape", "FullyConnected")
def _image_as_tokens(m: Qdq) -> str:
    x = _conv(m, m.input(1, 3, 4, 5), m.codes(4, 3, 1, 1))
    tokens = m.node("Transpose", m.node("Reshape", x, m.ints(1, 4, 20)), perm=[0, 2, 1])
    return m.pair(m.node("MatMul", tokens, m.codes(4, 6, axis=1)), 0.5)


@case("Conv2D", "Reshape", "Transpose", "Reshape", "Conv2D")
def _channel_shuffle(m: Qdq) -> str:
    x = _conv(m, m.input(1, 3, 4, 5), m.codes(6, 3, 1, 1))
    split = m.node("Reshape", x, m.ints(1, 2, 3, 4, 5))
    mixed = m.node("Reshape", m.node("Transpose", split, perm=[0, 2, 1, 3, 4]), m.ints(1, 6, 4, 5))
    return _conv(m, mixed, m.codes(2, 6, 1, 1))


@case("Mean", "Conv2D", "Logistic", "Mul")
def _squeeze_and_excite(m: Qdq) -> str:
    x = m.input(1, 4, 5, 6)
    pooled = m.pair(m.node("GlobalAveragePool", x), 0.02)
    gate = m.node("Sigmoid", _conv(m, pooled, m.codes(4, 4, 1, 1)))
    return m.pair(m.node("Mul", x, m.pair(gate, 1 / 256, 0)), 0.05)


@pytest.mark.parametrize("opset", [13, 18, 21])
@pytest.mark.parametrize("name", CASES)
def test_operator_agrees_with_onnx_runtime(name: str, opset: int) -> None:
    build, expected = CASES[name]
    model = Qdq(opset)
    proto = model.proto(build(model))
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError:
        assert opset == 13
        pytest.skip("the operator has another form in opset 13")
    data = proto.SerializeToString()
    graph = read_onnx(data)
    assert kinds(graph) == expected
    compare(data, graph)


def test_axes_may_be_attributes() -> None:
    """Before opset 18 ReduceMean names its axes in an attribute, Split its sizes in an input."""
    m = Qdq(13)
    x = m.input(1, 6, 4, 5)
    mean = m.pair(m.node("ReduceMean", x, axes=[2, 3], keepdims=0), 0.02)
    first, second = m.name("first"), m.name("second")
    m.nodes.append(onnx.helper.make_node("Split", [mean, m.ints(2, 4)], [first, second], axis=1))
    data = m.bytes(first, second)
    graph = read_onnx(data)
    assert kinds(graph) == ["Mean", "StridedSlice", "StridedSlice"]
    compare(data, graph)


def test_names_follow_the_quantizers() -> None:
    m = Qdq()
    x = m.input(1, 3, 4, 4, name="input")
    conv = m.node("Conv", x, m.codes(2, 3, 1, 1, name="layer.weight"))
    data = m.bytes(m.pair(m.node("Relu", conv), 0.1, 0, name="layer"))
    graph = read_onnx(data)
    assert graph.inputs == ("input",)
    assert graph.outputs == ("layer",)
    assert graph.ops == (
        ir.Conv2D("layer", ("input", "layer.weight"), ("layer",), activation=ir.Activation.RELU),
    )


def test_inputs_and_outputs_may_be_codes() -> None:
    """A file whose ports are codes reads as one whose ports are reals."""
    m = Qdq()
    m.inputs.append(onnx.helper.make_tensor_value_info("x_q", onnx.TensorProto.UINT8, (1, 2, 3, 3)))
    parameters = [m.store(np.float32(0.1)), m.store(np.uint8(128))]
    x = m.node("DequantizeLinear", "x_q", *parameters, output="x")
    m.pair(m.node("Conv", x, m.codes(2, 2, 1, 1)), 0.2, name="y")
    graph = read_onnx(m.bytes("y_q"))
    assert graph.inputs == ("x",)
    assert graph.outputs == ("y",)
    assert graph["x"].dtype is DType.INT8
    assert graph["x"].q.scalar == (np.float32(0.1), 0)
    assert graph["x"].shape == (1, 3, 3, 2)


def test_layout_says_how_channels_stand() -> None:
    m = Qdq()
    graph = read_onnx(m.bytes(m.node("MaxPool", m.input(1, 3, 4, 5), kernel_shape=[1, 1])))
    nchw = np.arange(120).reshape(2, 1, 3, 4, 5)
    nhwc = graph.from_source("x", nchw)
    np.testing.assert_array_equal(nhwc, nchw.transpose(0, 1, 3, 4, 2))
    back = graph.layout["x"].to_source(nhwc, (1, 3, 4, 5))
    np.testing.assert_array_equal(back, nchw)


def test_shape_arithmetic_of_exports_is_folded() -> None:
    """x.view(x.size(0), -1) as torch exports it: Shape, Gather, Unsqueeze, Concat, Reshape."""
    m = Qdq()
    x = m.input(1, 3, 4, 4)
    size = m.node("Gather", m.node("Shape", x), m.store(np.array(0, np.int64)), axis=0)
    target = m.node("Concat", m.node("Unsqueeze", size, m.ints(0)), m.ints(-1), axis=0)
    flat = m.node("Reshape", x, target)
    data = m.bytes(m.pair(m.node("Gemm", flat, m.codes(5, 48), transB=1), 1.0))
    graph = read_onnx(data)
    assert kinds(graph) == ["FullyConnected"]
    compare(data, graph)


def test_patterns_keep_results_that_others_read() -> None:
    """relu(conv) is not fused where the convolution itself is read too."""
    m = Qdq()
    conv = m.node("Conv", m.input(1, 3, 4, 4), m.codes(3, 3, 1, 1))
    plain, clamped = m.pair(conv, 0.1), m.pair(m.node("Relu", conv), 0.1)
    data = m.bytes(m.pair(m.node("Add", plain, clamped), 0.2))
    graph = read_onnx(data)
    assert kinds(graph) == ["Conv2D", "Relu", "Add"]
    compare(data, graph)


def test_a_gate_that_others_read_is_no_hard_swish() -> None:
    m = Qdq()
    x = m.input(1, 8)
    gate = m.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    swish = m.pair(m.node("Mul", x, gate), 0.04)
    with pytest.raises(UnsupportedError, match=r"HardSigmoid.*stands alone"):
        read_onnx(m.bytes(swish, m.pair(gate, 1 / 256, 0)))


def test_several_readers_share_one_tensor() -> None:
    """A residual: one quantizer, two readers; one move in memory however many ask for it."""
    m = Qdq()
    x = m.input(2, 3, 4)
    turned = m.node("Transpose", x, perm=[0, 2, 1])
    first = m.pair(m.node("MatMul", turned, m.codes(3, 3)), 0.2)
    second = m.pair(m.node("MatMul", turned, m.codes(3, 3)), 0.2)
    data = m.bytes(m.pair(m.node("Add", first, second), 0.3))
    graph = read_onnx(data)
    assert kinds(graph) == ["Transpose", "FullyConnected", "FullyConnected", "Add"]
    compare(data, graph)
