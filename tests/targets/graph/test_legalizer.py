"""Legalizing: the same function in what a target takes, or one error that lists why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.pipeline.errors import ModelFileError, TargetUnsupportedError
from edgesmith.targets.base import OpFormat, TargetDescription
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import (
    Activation,
    Array,
    DType,
    Graph,
    Op,
    Padding,
    Quantization,
    Tensor,
)
from edgesmith.targets.graph.legalizer import check, legalize, rewrite, takes, used_format
from edgesmith.targets.graph.onnx_reader import read_onnx
from edgesmith.targets.graph.padding import PaddingScheme
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.rewrites.padding import padding_scheme
from edgesmith.targets.graph.rewriting import without_dead_code
from edgesmith.targets.graph.validate import verify
from tests.targets.graph.qdq import Qdq, compare, kinds
from tests.targets.graph.test_onnx_sources import TFLITE

EXPLICIT = replace(TFLITE, explicit_padding=True)
Q8 = Quantization.per_tensor(0.05, 3)


def activation(name: str, *shape: int, q: Quantization = Q8, dtype: DType = DType.INT8) -> Tensor:
    return Tensor(name, shape, dtype, q)


def chain(source: Tensor, *steps: tuple[Callable[..., Op], Tensor, dict[str, object]]) -> Graph:
    """Operators one after the other: (kind, output tensor, attributes)."""
    tensors, ops = {source.name: source}, []
    current = source.name
    for kind, result, fields in steps:
        extra = fields.pop("constants", ())
        assert isinstance(extra, tuple)
        tensors |= {result.name: result, **{tensor.name: tensor for tensor in extra}}
        names = (current, *(tensor.name for tensor in extra))
        ops.append(kind(result.name, names, (result.name,), **fields))
        current = result.name
    return verify(Graph("g", tensors, tuple(ops), (source.name,), (current,)))


def run(graph: Graph, seed: int = 0, count: int = 4) -> Array:
    random = np.random.default_rng(seed)
    fed = []
    for name in graph.inputs:
        tensor = graph[name]
        low, high = tensor.dtype.qmin, tensor.dtype.qmax + 1
        codes = random.integers(low, high, (count, *tensor.shape))
        fed.append(codes.astype(tensor.dtype.numpy))
    return execute(graph, fed, PROFILES["tflite-micro"])[graph.outputs[0]]


def conv(size: int, kernel: int, stride: int, dilation: int, padding: Padding, kind: str) -> Graph:
    random = np.random.default_rng(1)
    reach = (kernel - 1) * dilation + 1
    out_h = (size + padding.top + padding.bottom - reach) // stride + 1
    out_w = (size + 1 + padding.left + padding.right - reach) // stride + 1
    source = activation("x", 1, size, size + 1, 3)
    result = activation("y", 1, out_h, out_w, 3, q=Quantization.per_tensor(0.3, -5))
    fields: dict[str, object] = {"stride": (stride, stride), "padding": padding}
    if kind == "MaxPool2D":
        result = replace(result, quantization=Q8)
        return chain(source, (ir.MaxPool2D, result, {**fields, "kernel": (kernel, kernel)}))
    shape = (3, kernel, kernel, 3) if kind == "Conv2D" else (1, kernel, kernel, 3)
    axis = 0 if kind == "Conv2D" else 3
    weight = Tensor(
        "w",
        shape,
        DType.INT8,
        Quantization.per_channel([0.01, 0.02, 0.03], axis),
        random.integers(-127, 128, shape).astype(np.int8),
    )
    return chain(
        source,
        (
            getattr(ir, kind),
            result,
            {**fields, "dilation": (dilation, dilation), "constants": (weight,)},
        ),
    )


PADS = st.integers(0, 2)


@given(
    st.sampled_from(["Conv2D", "DepthwiseConv2D", "MaxPool2D"]),
    st.integers(5, 9),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.tuples(PADS, PADS, PADS, PADS),
)
def test_padding_made_explicit_changes_nothing(
    kind: str, size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int, int, int]
) -> None:
    if kind == "MaxPool2D":
        dilation = 1
        pads = tuple(min(pad, kernel - 1) for pad in pads)  # type: ignore[assignment]
    graph = conv(size, kernel, stride, dilation, Padding(*pads), kind)
    legal = legalize(graph, TFLITE)
    window = legal.ops[-1]
    assert isinstance(window, ir.Conv2D | ir.DepthwiseConv2D | ir.MaxPool2D)
    assert padding_scheme(window, legal) is not None
    np.testing.assert_array_equal(run(legal), run(graph))
    assert kinds(legalize(graph, EXPLICIT)) == [kind]


def test_unused_padding_is_dropped_first() -> None:
    """torch's padding 1 with stride 2 on an even size: the last row and column are never read."""
    graph = conv(6, 3, 2, 1, Padding(1, 1, 1, 1), "Conv2D")
    pad, _ = legalize(graph, TFLITE).ops
    assert pad == ir.Pad("y/padded", ("x",), ("y/padded",), before=(0, 1, 1, 0), after=(0, 0, 1, 0))
    same = conv(6, 2, 2, 1, Padding(0, 1, 0, 1), "MaxPool2D")
    legal = legalize(same, TFLITE)
    assert kinds(legal) == ["MaxPool2D"]
    assert isinstance(legal.ops[0], ir.MaxPool2D)
    assert padding_scheme(legal.ops[0], legal) is PaddingScheme.SAME or (
        legal.ops[0].padding == Padding(0, 0, 0, 1)
    )


def test_max_pool_pads_with_the_lowest_code() -> None:
    pad, pool = legalize(conv(6, 3, 2, 1, Padding(1, 1, 1, 1), "MaxPool2D"), TFLITE).ops
    assert isinstance(pad, ir.Pad)
    assert pad.value == -128
    assert isinstance(pool, ir.MaxPool2D)
    assert pool.padding == Padding()


def test_float_max_pool_pads_with_the_lowest_float() -> None:
    source = Tensor("x", (1, 6, 6, 1), DType.FLOAT32)
    result = Tensor("y", (1, 3, 3, 1), DType.FLOAT32)
    fields: dict[str, object] = {
        "kernel": (3, 3),
        "stride": (2, 2),
        "padding": Padding(1, 1, 1, 1),
    }
    pad = legalize(chain(source, (ir.MaxPool2D, result, fields)), TFLITE).ops[0]
    assert isinstance(pad, ir.Pad)
    assert pad.value is not None
    assert np.float32(pad.value) == np.finfo(np.float32).min


def test_average_pool_with_odd_padding_is_refused() -> None:
    fields: dict[str, object] = {"kernel": (3, 3), "stride": (2, 2), "padding": Padding(1, 0, 1, 0)}
    graph = chain(
        activation("x", 1, 6, 6, 2), (ir.AveragePool2D, activation("y", 1, 3, 3, 2), fields)
    )
    for description in (TFLITE, EXPLICIT):
        with pytest.raises(TargetUnsupportedError, match=r"AveragePool2D 'y' pads.*SAME nor VALID"):
            legalize(graph, description)


def test_average_pool_with_a_new_scale_rounds_once() -> None:
    """As a depthwise convolution with ones; ONNX Runtime rounds once as well."""
    m = Qdq()
    x = m.node("AveragePool", m.input(1, 3, 8, 8), kernel_shape=[3, 3], strides=[2, 2])
    data = m.bytes(m.pair(x, 0.011, 100, name="y"))
    legal = legalize(read_onnx(data), TFLITE)
    assert kinds(legal) == ["DepthwiseConv2D"]
    compare(data, legal)
    kept = {kind: forms for kind, forms in TFLITE.ops.items() if kind != "DepthwiseConv2D"}
    without = legalize(read_onnx(data), replace(TFLITE, ops=kept))
    assert kinds(without) == ["AveragePool2D", "Quantize"]
    compare(data, without, budget=3)


SHARING: dict[str, tuple[Callable[[Qdq], str], list[str]]] = {
    "bilinear": (
        lambda m: m.node("Resize", m.input(1, 3, 4, 4), "", "", m.ints(1, 3, 8, 8), mode="linear"),
        ["ResizeBilinear", "Quantize"],
    ),
    "padded average": (
        lambda m: m.node(
            "AveragePool",
            m.input(1, 3, 7, 7),
            kernel_shape=[3, 3],
            strides=[1, 1],
            pads=[1, 1, 1, 1],
        ),
        ["AveragePool2D", "Quantize"],
    ),
    "concat": (
        lambda m: m.node("Concat", m.input(1, 3), m.input(1, 3, name="b", scale=0.08), axis=1),
        ["Quantize", "Quantize", "Concat"],
    ),
    "sigmoid": (lambda m: m.node("Sigmoid", m.input(1, 8)), ["Logistic", "Quantize"]),
    "softmax": (lambda m: m.node("Softmax", m.input(1, 8)), ["Softmax", "Quantize"]),
    "tanh": (lambda m: m.node("Tanh", m.input(1, 8)), ["Tanh", "Quantize"]),
}


@pytest.mark.parametrize("name", SHARING)
def test_kernels_that_fix_or_share_scales(name: str) -> None:
    build, expected = SHARING[name]
    m = Qdq()
    data = m.bytes(m.pair(build(m), 0.05, 120, name="y"))
    legal = legalize(read_onnx(data), TFLITE)
    assert kinds(legal) == expected
    compare(data, legal)


def test_concatenated_constants_are_requantized_here() -> None:
    m = Qdq()
    x, constant = m.input(1, 3), m.codes(1, 3, scale=0.02, name="c")
    data = m.bytes(m.pair(m.node("Concat", x, constant, axis=1), 0.05, 128, name="y"))
    legal = legalize(read_onnx(data), TFLITE)
    assert kinds(legal) == ["Concat"]
    compare(data, legal, budget=0)


@pytest.mark.parametrize(
    ("kind", "dtype", "scale", "zero"),
    [
        (ir.Logistic, DType.INT8, 1 / 256, -128),
        (ir.Softmax, DType.INT8, 1 / 256, -128),
        (ir.Tanh, DType.INT8, 1 / 128, 0),
        (ir.Logistic, DType.INT16, 1 / 32768, 0),
        (ir.Softmax, DType.INT16, 1 / 32768, 0),
        (ir.Tanh, DType.INT16, 1 / 32768, 0),
    ],
)
def test_fixed_output_scales(kind: type[Op], dtype: DType, scale: float, zero: int) -> None:
    plain = Quantization.per_tensor(0.01, 0)
    source = activation("x", 1, 8, q=plain, dtype=dtype)
    other = chain(source, (kind, activation("y", 1, 8, q=plain, dtype=dtype), {}))
    legal = legalize(other, TFLITE)
    assert kinds(legal) == [kind.__name__, "Quantize"]
    assert legal[legal.ops[0].output].q.scalar == (np.float32(scale), zero)
    assert legal.outputs == ("y",)
    fixed = Quantization.per_tensor(scale, zero)
    right = chain(source, (kind, activation("y", 1, 8, q=fixed, dtype=dtype), {}))
    assert legalize(right, TFLITE) is right or kinds(legalize(right, TFLITE)) == [kind.__name__]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.0, 6.0), ir.Relu("y", ("x",), ("y",), Activation.RELU6)),
        ((0.0, 5.99), ir.Relu("y", ("x",), ("y",), Activation.RELU6)),
        ((0.0, 100.0), ir.Relu("y", ("x",), ("y",), Activation.RELU)),
        ((-1.0, 1.0), ir.Relu("y", ("x",), ("y",), Activation.RELU_N1_TO_1)),
        ((-2.0, 1.0), ir.Clip("y", ("x",), ("y",), -2.0, 1.0)),
        ((-100.0, 100.0), ir.Reshape("y", ("x",), ("y",), (1, 8))),
    ],
)
def test_clips_become_the_relu_with_the_same_codes(
    bounds: tuple[float, float], expected: Op
) -> None:
    fields: dict[str, object] = {"low": bounds[0], "high": bounds[1]}
    graph = chain(activation("x", 1, 8), (ir.Clip, activation("y", 1, 8), fields))
    legal = legalize(graph, TFLITE)
    assert legal.ops == (expected,)
    np.testing.assert_array_equal(run(legal, count=40), run(graph, count=40))


def test_a_clip_that_a_target_lacks_is_refused() -> None:
    kept = {kind: forms for kind, forms in TFLITE.ops.items() if kind != "Clip"}
    fields: dict[str, object] = {"low": -2.0, "high": 1.0}
    graph = chain(activation("x", 1, 8), (ir.Clip, activation("y", 1, 8), fields))
    with pytest.raises(TargetUnsupportedError, match="Clip 'y' is not among its operators"):
        legalize(graph, replace(TFLITE, ops=kept))


def movement() -> Graph:
    """reshape, transpose, transpose back, transpose of units, reshape."""
    return chain(
        activation("x", 2, 12),
        (ir.Reshape, activation("a", 2, 3, 4), {"shape": (2, 3, 4)}),
        (ir.Transpose, activation("b", 4, 2, 3), {"permutation": (2, 0, 1)}),
        (ir.Transpose, activation("c", 2, 3, 4), {"permutation": (1, 2, 0)}),
        (ir.Reshape, activation("d", 2, 1, 12), {"shape": (2, 1, 12)}),
        (ir.Transpose, activation("e", 1, 2, 12), {"permutation": (1, 0, 2)}),
        (ir.Quantize, activation("f", 1, 2, 12), {}),
        (ir.Reshape, activation("y", 3, 8), {"shape": (3, 8)}),
    )


def test_movement_collapses_where_names_may_go() -> None:
    graph = movement()
    legal = legalize(graph, TFLITE, keep=())
    assert legal.ops == (ir.Reshape("y", ("x",), ("y",), (3, 8)),)
    assert set(legal.tensors) == {"x", "y"}
    np.testing.assert_array_equal(run(legal), run(graph))


def test_named_tensors_are_kept() -> None:
    graph = movement()
    legal = legalize(graph, TFLITE)
    assert set(legal.tensors) == set(graph.tensors)
    np.testing.assert_array_equal(run(legal), run(graph))
    some = legalize(graph, TFLITE, keep=("b",))
    assert "b" in some.tensors
    assert len(some.ops) < len(graph.ops)
    np.testing.assert_array_equal(run(some), run(graph))


def test_dead_code_goes() -> None:
    graph = movement()
    shorter = without_dead_code(replace(graph, outputs=("b",)))
    assert [op.name for op in shorter.ops] == ["a", "b"]
    assert set(shorter.tensors) == {"x", "a", "b"}


def weighted(weight: DType, bias: DType, activation_type: DType, *, per_channel: bool) -> Graph:
    zero = np.zeros(3, np.int64)
    w = Quantization.per_channel([0.01, 0.02, 0.03], 0)
    b = Quantization(np.float32(0.05) * w.scale, zero, 0)
    if not per_channel:
        w = Quantization.per_tensor(0.01)
        b = Quantization.per_tensor(float(np.float32(0.05) * np.float32(0.01)))
    constants = (
        Tensor("w", (3, 4), weight, w, np.ones((3, 4), np.int8)),
        Tensor("b", (3,), bias, b, np.ones(3, bias.numpy)),
    )
    zero_point = Quantization.per_tensor(0.05, 0)
    return chain(
        activation("x", 1, 4, q=zero_point, dtype=activation_type),
        (
            ir.FullyConnected,
            activation("y", 1, 3, q=zero_point, dtype=activation_type),
            {"constants": constants},
        ),
    )


def only(*forms: OpFormat) -> TargetDescription:
    return TargetDescription("tiny", "Tiny", "", {"FullyConnected": forms}, "tflite-micro")


def test_formats_are_matched_one_by_one() -> None:
    int8 = OpFormat("int8", "int8", "int32", per_channel=True)
    int4 = OpFormat("int8", "int4", "int32")
    target = only(int8, int4)
    check(weighted(DType.INT8, DType.INT32, DType.INT8, per_channel=True), target)
    check(weighted(DType.INT8, DType.INT32, DType.INT8, per_channel=False), target)
    check(weighted(DType.INT4, DType.INT32, DType.INT8, per_channel=False), target)
    refused = weighted(DType.INT4, DType.INT32, DType.INT8, per_channel=True)
    with pytest.raises(TargetUnsupportedError) as caught:
        check(refused, target)
    text = str(caught.value)
    assert "FullyConnected 'y' uses int8 activations with int4 weights per channel" in text
    assert "int8 activations with int4 weights per tensor and int32 bias" in text
    with pytest.raises(TargetUnsupportedError, match="int16 activations"):
        check(weighted(DType.INT8, DType.INT64, DType.INT16, per_channel=True), target)


def test_takes() -> None:
    offered = OpFormat("int8", "int8", "int32", per_channel=True)
    assert takes(offered, OpFormat("int8", "int8", None))
    assert takes(offered, OpFormat("int8", "int8", "int32"))
    assert not takes(OpFormat("int8", "int8"), OpFormat("int8", "int8", "int32"))
    assert not takes(replace(offered, per_channel=False), offered)
    assert not takes(offered, OpFormat("int16", "int8", "int32"))
    widening = OpFormat("int8", output="int16")
    assert takes(OpFormat("int8"), widening)
    assert takes(widening, widening)
    assert not takes(OpFormat("int8", output="int8"), widening)
    assert not takes(widening, OpFormat("int8", output="int8"))


def test_the_output_is_compared_where_it_may_be_of_another_type() -> None:
    wide = activation("y", 1, 8, dtype=DType.INT16, q=Quantization.per_tensor(0.01))
    graph = chain(activation("x", 1, 8), (ir.Quantize, wide, {}))
    assert used_format(graph.ops[0], graph) == OpFormat("int8", output="int16")
    forms = (OpFormat("int8", output="int8"), OpFormat("int16", output="int8"))
    with pytest.raises(TargetUnsupportedError) as caught:
        check(graph, replace(TFLITE, ops={"Quantize": forms}))
    assert "'y' uses int8 activations in and int16 out" in str(caught.value)
    assert "it takes int8 activations in and int8 out)" in str(caught.value)
    check(graph, replace(TFLITE, ops={"Quantize": (OpFormat("int8"),)}))


def test_every_refusal_is_listed_with_its_fix() -> None:
    graph = chain(
        activation("x", 1, 8),
        (ir.HardSwish, activation("h", 1, 8), {}),
        (ir.Relu, activation("r", 1, 8), {}),
        (ir.HardSwish, activation("y", 1, 8), {}),
    )
    with pytest.raises(TargetUnsupportedError, match="does not take 3 operators") as caught:
        legalize(graph, only())
    for name in ("HardSwish 'h'", "Relu 'r'", "HardSwish 'y'"):
        assert name in str(caught.value)
    assert caught.value.code == "ES411"


def test_misfits_that_no_kernel_takes() -> None:
    wide = activation("y", 1, 8, dtype=DType.INT16, q=Quantization.per_tensor(0.01, 5))
    graph = chain(activation("x", 1, 8), (ir.HardSwish, wide, {}))
    with pytest.raises(TargetUnsupportedError) as caught:
        legalize(graph, TFLITE)
    assert "mixes int16 and int8 activations" in str(caught.value)
    assert "int16 tensor 'y' with a zero point" in str(caught.value)
    good = weighted(DType.INT8, DType.INT32, DType.INT8, per_channel=False)
    other = replace(good["b"], quantization=Quantization.per_tensor(0.001))
    with pytest.raises(TargetUnsupportedError, match="bias 'b' whose scale is not"):
        check(good.with_tensors(other), TFLITE)


def test_float_twins_are_compared_by_kind_alone() -> None:
    source = Tensor("x", (1, 8), DType.FLOAT32)
    graph = chain(source, (ir.HardSwish, replace(source, name="y"), {}))
    check(graph, TFLITE)
    with pytest.raises(TargetUnsupportedError, match="not among its operators"):
        check(graph, only())


def test_a_broken_graph_is_not_rewritten() -> None:
    graph = movement()
    broken = replace(graph, ops=tuple(reversed(graph.ops)))
    with pytest.raises(ModelFileError):
        rewrite(broken, TFLITE)


def test_ports_and_layout_survive() -> None:
    m = Qdq()
    weight = m.codes(4, 3, 3, 3)
    x = m.node("Conv", m.input(1, 3, 6, 6), weight, strides=[2, 2], pads=[1, 1, 1, 1])
    graph = read_onnx(m.bytes(m.pair(x, 0.2, name="y")))
    legal = legalize(graph, TFLITE)
    assert (legal.inputs, legal.outputs) == (graph.inputs, graph.outputs)
    assert legal.layout == graph.layout
    assert kinds(legal) == ["Pad", "Conv2D"]
