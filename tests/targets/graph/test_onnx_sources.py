"""Whole models as other tools write them: onnxruntime's quantizer, Brevitas, torch, edgesmith."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import Tensor, nn

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.quantize.export import to_onnx
from edgesmith.quantize.ptq import quantize
from edgesmith.targets.base import OpFormat, TargetDescription
from edgesmith.targets.cpu_litert import CpuLiteRT
from edgesmith.targets.graph.ir import DType, Graph
from edgesmith.targets.graph.legalizer import legalize, rewrite
from edgesmith.targets.graph.onnx_reader import read_float_onnx, read_onnx
from edgesmith.targets.graph.onnx_writer import write_onnx
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.tflite_writer import write_tflite
from tests.oracles import run_litert
from tests.quantize.nets import NETS, make
from tests.quantize.test_export import OPTIONS, cases
from tests.targets.graph.qdq import (
    EXACT_KINDS,
    codes_of,
    kinds,
    run_onnx,
    samples,
    teacher_forced,
)

KINDS = (
    *("Conv2D", "DepthwiseConv2D", "FullyConnected", "BatchMatMul", "Add", "Sub", "Mul"),
    *("AveragePool2D", "MaxPool2D", "Mean", "Relu", "Clip", "HardSwish", "Logistic", "Tanh"),
    *("Softmax", "Concat", "Reshape", "Transpose", "Pad", "StridedSlice", "ResizeNearest"),
    *("ResizeBilinear", "Quantize"),
)
WEIGHTED = ("Conv2D", "DepthwiseConv2D", "FullyConnected")
TFLITE = TargetDescription(
    "tflite",
    "TFLite",
    "",
    {
        kind: (
            OpFormat("int8", "int8", "int32", per_channel=True),
            OpFormat("int8", "int4", "int32", per_channel=True),
            OpFormat("int16", "int8", "int64", per_channel=True),
        )
        if kind in WEIGHTED
        else (OpFormat("int8"), OpFormat("int16"))
        for kind in KINDS
    },
    "litert-reference",
)


class Residual(nn.Module):
    """Convolutions of every kind, a residual, hard-swish, pools, attention and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.tokens = nn.Linear(8, 8)
        self.head = nn.Linear(8 * 16, 10)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        self.bn.running_var = torch.full((8,), 0.7)
        self.bn.running_mean = torch.full((8,), 0.2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.bn(self.first(x)))
        x = x + nn.functional.hardswish(self.depthwise(x))
        x = nn.functional.max_pool2d(x, 2)
        z = self.tokens(x.flatten(2).transpose(1, 2)).softmax(-1)
        return self.head(x.view(x.size(0), -1)), z


def export(model: nn.Module, *shape: int, opset: int = 18) -> bytes:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model.eval(), (torch.zeros(*shape),), path, dynamo=False, opset_version=opset
        )
        return path.read_bytes()


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, model: bytes) -> None:
        proto = onnx.load_from_string(model)
        found = samples(proto, count=4, seed=1, spread=1.0)
        self.rows: Iterator[dict[str, Any]] = iter(
            [{name: array[index] for name, array in found.items()} for index in range(4)]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self.rows, None)


def quantized_by_onnxruntime(model: bytes, folder: Path, **options: Any) -> bytes:
    source, target = folder / "float.onnx", folder / "quantized.onnx"
    source.write_bytes(model)
    logging.disable(logging.WARNING)
    try:
        quantize_static(source, target, Calibration(model), quant_format=QuantFormat.QDQ, **options)
    finally:
        logging.disable(logging.NOTSET)
    return target.read_bytes()


def check_against_onnxruntime(data: bytes, graph: Graph) -> None:
    """Teacher-forced: movement exact, everything else at most 1 LSB."""
    found = teacher_forced(graph, run_onnx(data, samples(onnx.load_from_string(data), spread=1.0)))
    assert set(graph.outputs) <= set(found)
    wrong = {
        name: value
        for name, value in found.items()
        if value[1] > (0 if value[0] in EXACT_KINDS else 1)
    }
    assert not wrong


@pytest.mark.parametrize(
    "options",
    [
        {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True},
        {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8},
        {
            "activation_type": QuantType.QUInt8,
            "weight_type": QuantType.QUInt8,
            "extra_options": {"WeightSymmetric": True},
        },
        {"activation_type": QuantType.QInt16, "weight_type": QuantType.QInt8, "per_channel": True},
        {
            "activation_type": QuantType.QUInt8,
            "weight_type": QuantType.QInt8,
            "extra_options": {"DedicatedQDQPair": True},
        },
    ],
    ids=["uint8-per-channel", "int8", "uint8-weights", "int16", "dedicated-pairs"],
)
def test_models_of_quantize_static(options: dict[str, Any], tmp_path: Path) -> None:
    data = quantized_by_onnxruntime(export(Residual(), 1, 3, 16, 16), tmp_path, **options)
    graph = read_onnx(data)
    if options["activation_type"] == QuantType.QInt16:
        # ONNX Runtime quantizes hard-swish to int16, which no TFLite kernel takes.
        biases = [tensor for tensor in graph.constants() if tensor.dtype is DType.INT64]
        assert len(biases) == 3
    else:
        legal = legalize(graph, TFLITE)
        check_against_onnxruntime(data, legal)
        write_tflite(legal)
    expected = ["Conv2D", "DepthwiseConv2D", "HardSwish", "Add", "MaxPool2D"]
    assert kinds(graph)[:5] == expected
    assert kinds(graph).count("Transpose") == 0


def test_asymmetric_weights_are_refused(tmp_path: Path) -> None:
    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}
    data = quantized_by_onnxruntime(export(Residual(), 1, 3, 16, 16), tmp_path, **options)
    with pytest.raises(UnsupportedError, match="not symmetric") as caught:
        read_onnx(data)
    assert str(caught.value).count("not symmetric") == 4, "every weight is listed"
    assert "WeightSymmetric" in str(caught.value)


def _brevitas_model() -> nn.Module:
    import brevitas.nn as qnn
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Int32Bias

    common = {"weight_quant": Int8WeightPerChannelFloat, "bias": True, "bias_quant": Int32Bias}
    out = {"output_quant": Int8ActPerTensorFloat, "return_quant_tensor": True}
    torch.manual_seed(0)
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=True),
        qnn.QuantConv2d(3, 8, 3, padding=1, weight_bit_width=4, **common),
        qnn.QuantReLU(return_quant_tensor=True),
        qnn.QuantConv2d(8, 8, 3, padding=1, groups=8, **common, **out),
        nn.Flatten(),
        qnn.QuantLinear(8 * 64, 10, **common, **{**out, "return_quant_tensor": False}),
    )


@pytest.fixture(scope="module")
def brevitas_onnx(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from brevitas.export import export_onnx_qcdq

    path = tmp_path_factory.mktemp("brevitas") / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _brevitas_model().train()
        x = torch.randn(4, 3, 8, 8)
        model(x)
        export_onnx_qcdq(
            model.eval(), args=x[:1], export_path=str(path), dynamo=False, opset_version=17
        )
    return path.read_bytes()


def test_models_of_brevitas(brevitas_onnx: bytes) -> None:
    graph = read_onnx(brevitas_onnx)
    assert kinds(graph) == ["Conv2D", "DepthwiseConv2D", "FullyConnected"]
    weights = [graph[op.inputs[1]] for op in graph.ops]
    assert [weight.dtype for weight in weights] == [DType.INT4, DType.INT8, DType.INT8]
    assert [weight.q.axis for weight in weights] == [0, 3, 0]
    check_against_onnxruntime(brevitas_onnx, graph)


def test_brevitas_integers_are_kept_bit_for_bit(brevitas_onnx: bytes) -> None:
    stored = {
        item.name: onnx.numpy_helper.to_array(item)
        for item in onnx.load_from_string(brevitas_onnx).graph.initializer
    }
    graph = read_onnx(brevitas_onnx)
    weight = graph[graph.ops[0].inputs[1]]
    assert weight.data is not None
    np.testing.assert_array_equal(weight.data.transpose(0, 3, 1, 2), stored[weight.name])
    scales = {array.tobytes() for array in stored.values() if array.dtype == np.float32}
    for tensor in graph.tensors.values():
        scale = tensor.q.scale
        assert scale.tobytes() in scales or tensor.dtype is DType.INT32


@pytest.mark.parametrize(("net", "options"), cases())
def test_models_of_edgesmith(net: str, options: str) -> None:
    """Every searched tensor is there under its own name, with its own format and codes."""
    model, data = make(net)
    quantized = quantize(model, data, OPTIONS[options], seed=0)
    exported = to_onnx(quantized).SerializeToString()
    graph = rewrite(read_onnx(exported), TFLITE)
    for searched in quantized.searched().tensors:
        tensor = graph[searched.name]
        assert tensor.dtype == searched.dtype
        assert tensor.q.scale.tobytes() == searched.scale.tobytes()
        np.testing.assert_array_equal(tensor.q.zero_point, searched.zero_point)
        if searched.codes is not None:
            assert tensor.data is not None
            np.testing.assert_array_equal(
                np.sort(tensor.data, axis=None), np.sort(searched.codes, axis=None)
            )
    check_against_onnxruntime(exported, graph)


@pytest.mark.parametrize("net", NETS)
def test_writing_and_reading_again_changes_nothing(net: str) -> None:
    model, data = make(net)
    graph = read_onnx(to_onnx(quantize(model, data, OPTIONS["int8"], seed=0)).SerializeToString())
    again = read_onnx(write_onnx(graph))
    assert again.inputs == graph.inputs
    assert again.outputs == graph.outputs
    random = np.random.default_rng(0)
    inputs = [
        random.integers(-128, 128, (5, *graph[n].shape)).astype(np.int8) for n in graph.inputs
    ]
    profile = PROFILES["tflite-micro"]
    first, second = (execute(item, inputs, profile, trace=True) for item in (graph, again))
    for name in graph.outputs:
        np.testing.assert_array_equal(first[name], second[name])
    for name in first.keys() & second.keys():
        assert graph[name].q.same_as(again[name].q)


def test_float_twin_computes_what_onnxruntime_does() -> None:
    """Written as TFLite and run by LiteRT, batch norm folded, padding made explicit."""
    data = export(Residual(), 1, 3, 16, 16)
    graph = read_float_onnx(data)
    assert {tensor.dtype for tensor in graph.tensors.values()} == {DType.FLOAT32}
    assert "Mul" not in kinds(graph), "the batch norm is folded"
    legal = rewrite(graph, TFLITE)
    inputs = samples(onnx.load_from_string(data), spread=1.0)
    reals = run_onnx(data, inputs)
    fed = [legal.from_source(name, inputs[name]) for name in legal.inputs]
    ordered = list(run_litert(write_tflite(legal), fed, reference=True).values())
    for position, name in enumerate(legal.outputs):
        found = np.asarray(ordered[position], np.float32)
        np.testing.assert_allclose(found, np.asarray(reals[name]), rtol=1e-4, atol=1e-4)


def test_float_batch_norm_that_follows_nothing_becomes_product_and_sum() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean = torch.tensor([0.1, -0.2, 0.3])
    norm.running_var = torch.tensor([0.5, 1.5, 2.5])
    data = export(nn.Sequential(nn.ReLU(), norm), 1, 3, 4, 4)
    graph = read_float_onnx(data)
    assert kinds(graph) == ["Relu", "Mul", "Add"]
    inputs = samples(onnx.load_from_string(data))
    reals = run_onnx(data, inputs)[graph.outputs[0]]
    fed = [graph.from_source(name, inputs[name]) for name in graph.inputs]
    run = run_litert(write_tflite(graph), fed, reference=True)
    found = np.asarray(next(iter(run.values())), np.float32)
    expected = np.asarray(reals.transpose(0, 1, 3, 4, 2), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


class SqueezeExcite(nn.Module):
    """A channel gate as MobileNetV3 has it, behind a hard-swish."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 2

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(x)
        gate = torch.relu(self.reduce(nn.functional.adaptive_avg_pool2d(x, 1)))
        return x * nn.functional.hardsigmoid(self.expand(gate))


def check_float_twin(data: bytes, folder: Path, expected_kinds: list[str]) -> np.ndarray:
    """The twin, written by a target and run by LiteRT, against ONNX Runtime; what it gives."""
    assert kinds(read_float_onnx(data)) == expected_kinds
    source = folder / "float.onnx"
    source.write_bytes(data)
    written = CpuLiteRT().float_baseline(source, folder)
    assert written is not None
    graph = read_float_onnx(data)
    inputs = samples(onnx.load_from_string(data), count=8)
    expected = run_onnx(data, inputs)[graph.outputs[0]]
    fed = [graph.from_source(name, inputs[name]) for name in graph.inputs]
    found = next(iter(run_litert(written.read_bytes(), fed, reference=True).values()))
    reals = np.asarray(graph.from_source(graph.outputs[0], expected), np.float32)
    np.testing.assert_allclose(np.asarray(found, np.float32), reals, rtol=1e-5, atol=1e-5)
    return reals


def test_float_squeeze_excite_gates_with_product_sum_and_clip(tmp_path: Path) -> None:
    data = export(SqueezeExcite(), 1, 6, 5, 5)
    assert "HardSigmoid" in {node.op_type for node in onnx.load_from_string(data).graph.node}
    gate = ["Mean", "Conv2D", "Conv2D", "Mul", "Add", "Clip"]
    check_float_twin(data, tmp_path, ["HardSwish", *gate, "Mul"])


@pytest.mark.parametrize(("alpha", "beta"), [(1 / 6, 0.5), (0.2, 0.5), (-0.7, 0.1), (0.0, 2.0)])
def test_float_hard_sigmoid_of_any_slope(alpha: float, beta: float, tmp_path: Path) -> None:
    """One that stands alone, and one that gates its own input; only a slope of 1/6 is a swish."""
    for gated in (False, True):
        x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (2, 40))
        y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (2, 40))
        name = "gate" if gated else "y"
        nodes = [onnx.helper.make_node("HardSigmoid", ["x"], [name], alpha=alpha, beta=beta)]
        nodes += [onnx.helper.make_node("Mul", ["x", "gate"], ["y"])] if gated else []
        proto = onnx.helper.make_graph(nodes, "gate", [x], [y])
        opset = onnx.helper.make_opsetid("", 18)
        model = onnx.helper.make_model(proto, opset_imports=[opset], ir_version=10)
        swish = gated and alpha == 1 / 6
        written = ["HardSwish"] if swish else ["Mul", "Add", "Clip", *["Mul"] * gated]
        reals = check_float_twin(model.SerializeToString(), tmp_path, written)
        if not gated:
            assert reals.min() >= 0
            assert reals.max() <= 1


def test_quantized_and_float_models_are_not_confused(brevitas_onnx: bytes) -> None:
    with pytest.raises(UnsupportedError, match="is quantized already"):
        read_float_onnx(brevitas_onnx)
    with pytest.raises(UnsupportedError, match="is a float model"):
        read_onnx(export(nn.Linear(4, 4), 1, 4))


def test_codes_of_reals_is_the_inverse_of_dequantizing() -> None:
    graph = read_onnx(
        to_onnx(quantize(*make("plain"), OPTIONS["int8"], seed=0)).SerializeToString()
    )
    tensor = graph[graph.inputs[0]]
    codes = np.arange(-128, 128, dtype=np.int8)
    np.testing.assert_array_equal(codes_of(tensor, tensor.q.dequantize(codes)), codes)
