"""The exported QDQ ONNX computes what was scored, and carries its integers bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgesmith.pipeline.errors import QuantizationError, UnsupportedError
from edgesmith.quantize.export import FLOAT_INPUT, export_qdq, to_onnx
from edgesmith.quantize.options import LearnedRounding, Override, PTQOptions
from edgesmith.quantize.ptq import QuantizedModel, quantize
from edgesmith.quantize.searched import SearchedTensor
from tests.quantize.nets import NETS, FloatArray, make

OPTIONS = {
    "int8": PTQOptions(),
    "int8-per-tensor": PTQOptions(weights="int8-per-tensor", ranges="min-max"),
    "int4": PTQOptions(weights="int4", ranges="percentile"),
    "int4-learned": PTQOptions(weights="int4", learned_rounding=LearnedRounding(iterations=20)),
    "int16": PTQOptions(activations="int16"),
    "mixed": PTQOptions(
        overrides=(
            Override(op="linear", activations="int16", weights="int4-per-tensor"),
            Override(op="*conv*", weights="int4"),
        )
    ),
}


def cases() -> list[tuple[str, str]]:
    """Every network in int8; every other option on some networks."""
    nets = [(net, "int8") for net in NETS]
    others = [option for option in OPTIONS if option not in ("int8", "mixed")]
    nets += [(net, option) for option in others for net in ("plain", "waves", "transformer")]
    return [*nets, ("plain", "mixed"), ("waves", "mixed"), ("squeeze-excite", "mixed")]


@pytest.fixture(scope="module", params=cases(), ids="-".join)
def quantized(request: pytest.FixtureRequest) -> tuple[QuantizedModel, FloatArray]:
    model, data = make(request.param[0])
    return quantize(model, data, OPTIONS[request.param[1]], seed=0), data


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def test_onnxruntime_computes_what_the_module_computes(
    quantized: tuple[QuantizedModel, FloatArray],
) -> None:
    """At most 1 LSB, where float32 sums in different order fall on two sides of a tie.

    Differing outputs of 512 samples, measured: int8 activations none, but for the
    network with an average pooling (whose sums of four often tie), 1.1 %; int16
    activations 0.07 to 0.25 %.
    """
    model, data = quantized
    runs = session(to_onnx(model))
    shipped = np.concatenate([runs.run(None, {FLOAT_INPUT: x[None]})[0] for x in data])
    lsb = np.abs(shipped - model.predict(data)) / model.searched()[model.module.output].scale[0]
    differing = float((lsb > 0.5).mean())
    assert lsb.max() < 1.01
    assert differing <= 0.02


def test_every_intermediate_tensor_is_in_the_file_and_agrees(
    quantized: tuple[QuantizedModel, FloatArray],
) -> None:
    model, data = quantized
    proto = onnx.shape_inference.infer_shapes(to_onnx(model))
    names = [tensor.name for tensor in model.searched().tensors if tensor.role == "activation"]
    infos = {info.name: info for info in proto.graph.value_info}
    proto.graph.output.extend(infos[name] for name in names if name != model.module.output)
    found = session(proto).run(names, {FLOAT_INPUT: data[:1]})
    expected = model.trace(data[:1])
    assert list(expected) == names
    for name, value in zip(names, found, strict=True):
        assert value.size == expected[name].size
        # Of one sample the order is the same wherever the batch axis is.
        lsb = (
            np.abs(value.reshape(expected[name].shape) - expected[name])
            / model.searched()[name].scale[0]
        )
        assert lsb.max() < (12 if model.searched()[name].dtype == "int16" else 2.01), name


def codes(tensor: onnx.TensorProto) -> npt.NDArray[np.int64]:
    return numpy_helper.to_array(tensor).astype(np.int64)


def test_every_initializer_is_what_was_searched(
    quantized: tuple[QuantizedModel, FloatArray],
) -> None:
    model, _ = quantized
    proto = to_onnx(model)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    names = {dtype: number for number, dtype in enumerate_types()}
    for tensor in model.searched().tensors:
        scale = numpy_helper.to_array(stored[f"{tensor.name}/scale"])
        assert scale.dtype == np.float32
        assert scale.tobytes() == tensor.scale.tobytes()
        np.testing.assert_array_equal(
            codes(stored[f"{tensor.name}/zero_point"]).reshape(-1), tensor.zero_point
        )
        if tensor.codes is not None:
            dtype = stored_type(model, tensor)
            assert stored[tensor.name].data_type == names[dtype]
            np.testing.assert_array_equal(codes(stored[tensor.name]), tensor.codes)


def stored_type(model: QuantizedModel, tensor: SearchedTensor) -> str:
    """ONNX has no int64 DequantizeLinear, and one of int16 only late: those are kept as int32."""
    wide = tensor.dtype == "int64" or tensor.name in model.placement.parameters
    return "int32" if wide else tensor.dtype


def enumerate_types() -> list[tuple[int, str]]:
    return [(number, name.lower()) for name, number in onnx.TensorProto.DataType.items()]


def test_form_of_the_file(quantized: tuple[QuantizedModel, FloatArray]) -> None:
    """One pair per activation under the documented names, static shapes, valid, loadable."""
    model, _ = quantized
    proto = to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    produced = {output: node for node in proto.graph.node for output in node.output}
    for tensor in model.searched().tensors:
        if tensor.role == "activation":
            assert produced[f"{tensor.name}_q"].op_type == "QuantizeLinear"
            assert produced[tensor.name].op_type == "DequantizeLinear"
            assert produced[tensor.name].input[0] == f"{tensor.name}_q"
    assert [node.name for node in proto.graph.node] == [n.output[0] for n in proto.graph.node]
    dims = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, *model.sample_shape]
    wide = {stored_type(model, each) for each in model.searched().tensors} & {"int4", "int16"}
    curved = any(step.op.kind == "gelu" for step in model.placement.steps)
    assert proto.opset_import[0].version == (21 if wide else 20 if curved else 18)


def test_same_integers_give_the_same_bytes(tmp_path: Path) -> None:
    model, data = make("separable")
    for name in ("a.onnx", "b.onnx"):
        export_qdq(quantize(model, data, PTQOptions(), seed=0), tmp_path / name, (1, 3, 16, 16))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_another_example_shape_is_refused(tmp_path: Path) -> None:
    model, data = make("plain")
    made = quantize(model, data, PTQOptions(), seed=0)
    with pytest.raises(QuantizationError, match=r"\(1, 1, 14, 14\), not \(2, 1, 14, 14\)"):
        export_qdq(made, tmp_path / "model.onnx", (2, 1, 14, 14))
    assert not (tmp_path / "model.onnx").exists()


def test_a_bias_beyond_32_bits_is_refused(tmp_path: Path) -> None:
    model, data = make("plain")
    made = quantize(model, data, PTQOptions(activations="int16"), seed=0)
    bias = made.searched()["0.bias"]
    assert bias.codes is not None
    bias.codes[0] = 2**31
    with pytest.raises(UnsupportedError, match=r"bias '0\.bias' has codes beyond 32 bits"):
        export_qdq(made, tmp_path / "model.onnx")


def test_quantize_linear_rounds_ties_to_even_before_the_zero_point() -> None:
    """The rule that the fake quantizer follows, as ONNX Runtime itself computes it."""
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])],
        "ties",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT8, [5])],
        [
            numpy_helper.from_array(np.array(1, np.float32), "s"),
            numpy_helper.from_array(np.array(3, np.int8), "z"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (found,) = session(made).run(None, {"x": values})
    np.testing.assert_array_equal(found, [3, 5, 5, 3, 1])
