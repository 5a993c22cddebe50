"""Bad ONNX files: each gets an error that names the object and the fix, fast."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from edgesmith.pipeline.errors import EdgesmithError, ModelFileError, UnsupportedError
from edgesmith.targets.graph.onnx_reader import read_onnx
from tests.targets.graph.qdq import Qdq


def small(opset: int = 18) -> tuple[Qdq, str]:
    """A convolution, a pool and a product; the name of the result."""
    m = Qdq(opset)
    x = m.pair(m.node("Conv", m.input(1, 3, 6, 6), m.codes(4, 3, 3, 3, name="w")), 0.2)
    x = m.node("Flatten", m.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    return m, m.pair(m.node("Gemm", x, m.codes(5, 16), transB=1), 0.5)


def proto() -> onnx.ModelProto:
    m, out = small()
    return m.proto(out)


def refused(
    model: onnx.ModelProto | bytes, kind: type[EdgesmithError], *words: str
) -> EdgesmithError:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(kind) as caught:
        read_onnx(data, "victim")
    text = str(caught.value)
    for word in words:
        assert word in text
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08", bytes(100), b"TFL3" * 10])
def test_other_files(data: bytes) -> None:
    refused(data, ModelFileError, "victim")


def test_truncated_anywhere() -> None:
    data = proto().SerializeToString()
    for end in range(0, len(data) - 1, 37):
        with pytest.raises(EdgesmithError):
            read_onnx(data[:end])


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(ModelFileError, match="cannot read"):
            read_onnx(path)


def test_dynamic_shapes() -> None:
    model = proto()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    refused(model, UnsupportedError, "'x_f'", "dynamic axes [0]", "fixed batch")


def test_input_without_shape() -> None:
    model = proto()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    refused(model, UnsupportedError, "'x_f'", "no shape", "fixed batch")


@pytest.mark.parametrize("size", [0, -1, 1 << 40])
def test_absurd_sizes(size: int) -> None:
    model = proto()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = size
    refused(model, ModelFileError, "'x_f'", str(size))


def test_absurd_padding_and_folded_constants() -> None:
    m = Qdq()
    x = m.node("Pad", m.input(1, 3, 4, 4), m.ints(0, 0, 0, 0, 0, 0, 1 << 40, 1 << 40))
    refused(m.bytes(x), ModelFileError, "elements")
    m = Qdq()
    big = m.node("ConstantOfShape", m.ints(1 << 20, 1 << 20))
    refused(m.bytes(m.node("Reshape", m.input(1, 4), big)), UnsupportedError, "ConstantOfShape")
    m = Qdq()
    steps = m.node("Range", *(m.store(np.int64(v)) for v in (0, 1 << 60, 1)))
    refused(m.bytes(m.node("Reshape", m.input(1, 4), steps)), UnsupportedError, "Range")


def test_cycle() -> None:
    m = Qdq()
    m.input(1, 4)
    m.node("Add", "x", "second", output="first")
    m.node("Relu", "first", output="second")
    data = helper.make_model(
        helper.make_graph(
            m.nodes, "g", m.inputs, [helper.make_empty_tensor_value_info("second")], m.initializers
        )
    )
    refused(data, ModelFileError, "cycle")


def test_nodes_in_any_order_are_sorted() -> None:
    model = proto()
    nodes = list(model.graph.node)
    expected = read_onnx(model.SerializeToString())
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    found = read_onnx(model.SerializeToString())
    assert {op.name for op in found.ops} == {op.name for op in expected.ops}


def test_unknown_input_and_double_assignment() -> None:
    model = proto()
    model.graph.node[-1].input[0] = "nowhere"
    refused(model, ModelFileError, "'nowhere'", "nothing produces")
    model = proto()
    model.graph.node[-1].output[0] = model.graph.node[0].output[0]
    refused(model, ModelFileError, "second time")


def test_missing_output() -> None:
    model = proto()
    model.graph.output[0].name = "nowhere"
    refused(model, ModelFileError, "'nowhere'", "never produced")


def test_every_unsupported_operator_is_listed() -> None:
    m = Qdq()
    x = m.input(1, 8)
    det = m.node("Det", x, output="e")
    loop = m.node("Loop", det, output="l")
    custom = helper.make_node("Magic", [loop], ["m"], name="wizard", domain="org.custom")
    m.nodes.append(custom)
    mish = m.node("Mish", "m", output="g")
    error = refused(m.proto(mish, infer=False), UnsupportedError, "4 operators")
    for words in ("Det 'node:e'", "control flow", "'org.custom'", "Mish 'node:g'"):
        assert words in str(error)


def test_attributes_of_the_wrong_type() -> None:
    model = proto()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.attribute.append(helper.make_attribute("strides", "two"))
    refused(model, ModelFileError, "'strides'", "wrong type")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("strides", [0, 1]), ("pads", [1, 1]), ("dilations", [1]), ("group", 0), ("group", 2)],
)
def test_attributes_that_do_not_fit(attribute: str, value: object) -> None:
    model = proto()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.attribute.append(helper.make_attribute(attribute, value))
    refused(model, ModelFileError, "Conv")


def with_scale(value: float) -> onnx.ModelProto:
    model = proto()
    quantizer = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    for item in model.graph.initializer:
        if item.name == quantizer.input[1]:
            item.CopyFrom(numpy_helper.from_array(np.array(value, np.float32), item.name))
    return model


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_scales_that_are_no_scales(value: float) -> None:
    words = ["NaN"] if np.isnan(value) else ["scale", "finite and positive"]
    refused(with_scale(value), ModelFileError, *words)


def test_initializers_that_lie_about_their_size() -> None:
    model = proto()
    weight = next(item for item in model.graph.initializer if item.name == "w")
    weight.dims[0] = 400
    refused(model, ModelFileError, "'w'", "does not hold")
    weight.dims[0] = 1 << 45
    refused(model, ModelFileError, "'w'", "shape")


def test_types_without_integer_form() -> None:
    m = Qdq()
    x = m.input(1, 4)
    words = TensorProto(
        name="words", data_type=TensorProto.STRING, dims=[4], string_data=[b"a"] * 4
    )
    m.initializers.append(words)
    refused(m.bytes(m.node("Add", x, "words")), UnsupportedError, "'words'", "STRING")


def test_old_operator_sets_and_sparse_weights() -> None:
    model = proto()
    model.opset_import[0].version = 11
    refused(model, UnsupportedError, "operator set 11", "opset 13")
    model = proto()
    model.graph.sparse_initializer.add()
    refused(model, UnsupportedError, "sparse")


def external(tmp_path: Path, location: str, **fields: int) -> Path:
    model = proto()
    weight = next(item for item in model.graph.initializer if item.name == "w")
    raw = weight.raw_data
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "outside.bin").write_bytes(raw)
    (tmp_path / "model" / "inside.bin").write_bytes(b"1234" + raw)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **fields}.items():
        weight.external_data.add(key=key, value=str(value))
    path = tmp_path / "model" / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_inside_the_folder_is_read(tmp_path: Path) -> None:
    graph = read_onnx(external(tmp_path, "inside.bin", offset=4, length=108))
    expected = read_onnx(proto().SerializeToString())
    first, second = graph["w"].data, expected["w"].data
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", "", "absent.bin", "."])
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(ModelFileError, match="external file"):
        read_onnx(external(tmp_path, location))


def test_external_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    path = external(tmp_path, "link.bin")
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(ModelFileError, match="leaves the model's folder"):
        read_onnx(path)


def test_external_data_of_wrong_length_is_refused(tmp_path: Path) -> None:
    for fields in ({"offset": 4, "length": 400}, {"offset": -4}, {"offset": 100}):
        with pytest.raises(ModelFileError, match="'w'"):
            read_onnx(external(tmp_path, "inside.bin", **fields))


def test_external_data_without_a_folder_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path, "inside.bin", offset=4)
    refused(path.read_bytes(), ModelFileError, "given as bytes")


Build = Callable[[Qdq], str]
REFUSALS: dict[str, tuple[Build, tuple[str, ...]]] = {
    "unquantized result": (
        lambda m: m.node("Conv", m.input(1, 3, 4, 4), m.codes(2, 3, 1, 1)),
        ("Conv2D", "not quantized", "graph output"),
    ),
    "float weight": (
        lambda m: m.pair(
            m.node("Conv", m.input(1, 1, 4, 4), m.store(np.ones((2, 1, 1, 1), np.float32), "w")),
            0.1,
        ),
        ("'w'", "not quantized", "DequantizeLinear"),
    ),
    "float constant operand": (
        lambda m: m.pair(m.node("Add", m.input(1, 4), m.store(np.ones(4, np.float32), "c")), 0.1),
        ("'c'", "not quantized"),
    ),
    "unquantized in between": (
        lambda m: m.pair(
            m.node("Sigmoid", m.node("Add", m.input(1, 4), m.input(1, 4, name="b"))), 0.1
        ),
        ("Add", "Logistic", "reads it as it is"),
    ),
    "lone hard-sigmoid": (
        lambda m: m.pair(m.node("HardSigmoid", m.input(1, 4), alpha=1 / 6, beta=0.5), 0.1),
        ("HardSigmoid", "alone"),
    ),
    "odd hard-sigmoid": (
        lambda m: m.pair(m.node("HardSigmoid", m.input(1, 4)), 0.1),
        ("HardSigmoid", "alpha 0.2"),
    ),
    "activation per channel": (
        lambda m: m.node(
            "QuantizeLinear",
            m.input(1, 3, 4, 4),
            m.store(np.ones(3, np.float32)),
            m.store(np.zeros(3, np.uint8)),
            axis=1,
        ),
        ("3 scales", "per tensor"),
    ),
    "pool of codes": (
        lambda m: m.node("MaxPool", m.input(1, 3, 4, 4) + "_q", kernel_shape=[2, 2]),
        ("integer codes",),
    ),
    "cubic resize": (
        lambda m: m.pair(
            m.node("Resize", m.input(1, 3, 4, 4), "", "", m.ints(1, 3, 8, 8), mode="cubic"), 0.1
        ),
        ("Resize", "cubic"),
    ),
    "nearest at other positions": (
        lambda m: m.node(
            "Resize",
            m.input(1, 3, 4, 4),
            "",
            "",
            m.ints(1, 3, 6, 6),
            mode="nearest",
            nearest_mode="ceil",
            coordinate_transformation_mode="asymmetric",
        ),
        ("Resize", "positions"),
    ),
    "resized batch": (
        lambda m: m.node("Resize", m.input(1, 3, 4, 4), "", "", m.ints(2, 3, 4, 4)),
        ("height and width",),
    ),
    "dilated pool": (
        lambda m: m.node("MaxPool", m.input(1, 3, 9, 9), kernel_shape=[2, 2], dilations=[2, 2]),
        ("dilated",),
    ),
    "3-D convolution": (
        lambda m: m.pair(m.node("Conv", m.input(1, 2, 4, 4, 4), m.codes(2, 2, 1, 1, 1)), 0.1),
        ("5 axes",),
    ),
    "computed weight": (
        lambda m: m.pair(m.node("Conv", m.input(1, 2, 4, 4), m.input(2, 2, 1, 1, name="k")), 0.1),
        ("weight at run time",),
    ),
    "backward slice": (
        lambda m: m.node("Slice", m.input(1, 8), m.ints(7), m.ints(0), m.ints(1), m.ints(-1)),
        ("steps by -1",),
    ),
    "reflected padding": (
        lambda m: m.node("Pad", m.input(1, 8), m.ints(0, 1, 0, 1), mode="reflect"),
        ("reflect",),
    ),
    "padding off the grid": (
        lambda m: m.node("Pad", m.input(1, 8), m.ints(0, 1, 0, 1), m.store(np.float32(0.52))),
        ("0.52", "does not hold"),
    ),
    "clamp off the grid": (
        lambda m: m.node("Clip", m.input(1, 8), m.store(np.float32(-0.52))),
        ("-0.5199", "does not hold"),
    ),
    "concat of scales": (
        lambda m: m.node("Concat", m.input(1, 8), m.input(1, 8, name="b", scale=0.1), axis=1),
        ("different scales",),
    ),
    "two scales wanted": (
        lambda m: m.node(
            "Concat",
            m.pair(m.node("Sigmoid", m.input(1, 8), output="s"), 0.1),
            m.pair("s", 0.2),
            axis=1,
        ),
        ("want different scales",),
    ),
    "softmax of one": (
        lambda m: m.pair(m.node("Softmax", m.input(4, 1), axis=1), 1 / 256, 0),
        ("axis of size 1",),
    ),
    "constant output": (lambda m: m.codes(2, 2), ("is a constant",)),
    "expand": (
        lambda m: m.node("Expand", m.input(1, 8), m.ints(4, 8)),
        ("repeats",),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_has_no_integer_form(name: str) -> None:
    build, words = REFUSALS[name]
    m = Qdq()
    refused(m.proto(build(m), infer=False), UnsupportedError, *words)


@functools.cache
def valid() -> bytes:
    return bytes(proto().SerializeToString())


def survives(data: bytes) -> None:
    """Reading either works or raises an error of ours; anything else fails the test."""
    with contextlib.suppress(EdgesmithError):
        read_onnx(data)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes(flips: list[tuple[int, int]]) -> None:
    data = bytearray(valid())
    for position, value in flips:
        data[position % len(data)] = value
    survives(bytes(data))


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.binary(max_size=40))
def test_inserted_and_cut_bytes(position: int, junk: bytes) -> None:
    data = valid()
    at = position % len(data)
    survives(data[:at] + junk + data[at:])
    survives(data[:at] + junk)
    survives(data[:at] + data[at + 1 + len(junk) :])


VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 7, 64, 1 << 31, 1 << 40]),
)


@settings(max_examples=300)
@given(st.data())
def test_hostile_attributes_shapes_and_edges(data: st.DataObject) -> None:
    """Well-formed protobuf, absurd contents: integers replaced, edges rewired, types changed."""
    model = onnx.load_from_string(valid())
    graph = model.graph
    for _ in range(data.draw(st.integers(1, 3))):
        node = graph.node[data.draw(st.integers(0, len(graph.node) - 1))]
        action = data.draw(st.sampled_from(["attribute", "edge", "op", "dims", "values", "drop"]))
        if action == "attribute":
            name = data.draw(
                st.sampled_from(["axis", "group", "strides", "pads", "kernel_shape", "transB"])
            )
            values = data.draw(st.lists(VALUES, max_size=4))
            kept = [item for item in node.attribute if item.name != name]
            del node.attribute[:]
            node.attribute.extend(kept)
            attribute = AttributeProto(name=name, ints=values, type=AttributeProto.INTS)
            if name in ("axis", "group", "transB"):
                attribute = helper.make_attribute(name, data.draw(VALUES))
            node.attribute.append(attribute)
        elif action == "edge" and node.input:
            names = [name for item in graph.node for name in (*item.input, *item.output)]
            place = data.draw(st.integers(0, len(node.input) - 1))
            node.input[place] = data.draw(st.sampled_from(names))
        elif action == "op":
            node.op_type = data.draw(
                st.sampled_from(
                    ["Add", "Concat", "Reshape", "Transpose", "Softmax", "Split", "Pad"]
                )
            )
        elif action == "dims":
            item = graph.initializer[data.draw(st.integers(0, len(graph.initializer) - 1))]
            item.dims.extend([data.draw(VALUES)])
        elif action == "values":
            item = graph.initializer[data.draw(st.integers(0, len(graph.initializer) - 1))]
            item.data_type = data.draw(st.integers(0, 30))
        elif node.input:
            del node.input[-1]
    survives(model.SerializeToString())
