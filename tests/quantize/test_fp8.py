"""8-bit floats from the quantizer to ONNX Runtime: what was searched is what ships and runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, numpy_helper

from edgesmith.pipeline.errors import (
    KernelMismatchError,
    ModelFileError,
    ParityError,
    TargetUnsupportedError,
)
from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.lint import check_source
from edgesmith.pipeline.lowering import deploy_exported
from edgesmith.pipeline.onnx_form import run_exported, trace_exported
from edgesmith.pipeline.problems import ProblemCode
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.spec_source import parse_source
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import FLOAT8_STORAGE, FP8_E4M3, FP8_E5M2, QFormat, minifloat
from edgesmith.quantize.export import export_qdq
from edgesmith.quantize.fakequant import round_to_float
from edgesmith.quantize.formats import encode, round_to
from edgesmith.quantize.options import Override, PTQOptions
from edgesmith.quantize.ptq import QuantizedModel, load, quantize
from edgesmith.quantize.searched import Searched
from edgesmith.targets.graph.agreement import require_same_outputs
from edgesmith.targets.graph.exported import read_exported
from edgesmith.targets.graph.ir import DType
from tests.pipeline.test_end_to_end import DATA, MODEL, SPEC, edgesmith, trained
from tests.quantize.nets import FloatArray, make
from tests.quantize.test_formats import FLOATS, probes

TARGET = "cpu-onnxruntime-fp8"
E4M3 = PTQOptions(weights="fp8-e4m3", activations="fp8-e4m3")
E5M2 = PTQOptions(weights="fp8-e5m2", activations="fp8-e5m2", power_of_two_scales=True)
MIXED = PTQOptions(
    weights="e3m2",
    activations="fp8-e4m3",
    overrides=(Override(activations="fp8-e5m2"), Override(op="linear", weights="fp8-e5m2")),
)
OPTIONS = {"e4m3": E4M3, "e5m2": E5M2, "mixed": MIXED}


def quantized(name: str, options: PTQOptions) -> tuple[QuantizedModel, FloatArray]:
    model, data = make(name)
    return quantize(model, data, options, seed=0), data


@pytest.mark.parametrize("fmt", FLOATS, ids=lambda fmt: fmt.name)
def test_the_fake_quantizer_rounds_as_the_reference(fmt: QFormat) -> None:
    given = probes(fmt)
    given = given[np.abs(given) <= fmt.largest]
    x = torch.from_numpy(given).requires_grad_()
    rounded = round_to_float(x, fmt)
    np.testing.assert_array_equal(rounded.detach().numpy(), round_to(given, fmt).astype(np.float32))
    rounded.sum().backward()
    assert x.grad is not None
    assert (x.grad == 1).all()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", ["residual", "separable", "waves", "transformer"])
def test_onnxruntime_computes_what_the_module_computes(
    name: str, options: PTQOptions, tmp_path: Path
) -> None:
    """With and without optimizations; rare values between two codes fall to the other one."""
    made, data = quantized(name, options)
    export_qdq(made, tmp_path / "model.onnx")
    expected, found = made.predict(data), run_exported(tmp_path / "model.onnx", data)
    difference = np.abs(found - expected).reshape(len(data), -1).max(axis=1)
    assert np.median(difference) < 1e-5
    assert np.mean(difference < 1e-5) > 0.8
    traced = trace_exported(tmp_path / "model.onnx", data[:8])
    mine = made.trace(data[:8])
    assert set(traced) == {t.name for t in made.searched().tensors if t.role == "activation"} - {
        name
        for name in mine
        if made.placement.format_of(name).is_float32 and name != made.module.output
    }
    for tensor, values in traced.items():
        assert np.mean(np.abs(values - mine[tensor]) > 1e-5) < 0.02, tensor


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_constant_of_the_file_is_what_was_searched(
    options: PTQOptions, tmp_path: Path
) -> None:
    made, _ = quantized("residual", options)
    export_qdq(made, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert model.opset_import[0].version >= 19
    stored = {item.name: item for item in model.graph.initializer}
    types = {TensorProto.FLOAT8E4M3FN: "float8e4m3fn", TensorProto.FLOAT8E5M2: "float8e5m2"}
    compared = 0
    for tensor in made.searched().tensors:
        if tensor.codes is None:
            continue
        item = stored[tensor.name]
        if tensor.role == "bias":
            values = numpy_helper.to_array(item)
            assert values.tobytes() == tensor.dequantized().tobytes()
            continue
        assert types[item.data_type] == tensor.dtype
        np.testing.assert_array_equal(
            np.frombuffer(item.raw_data, np.uint8), tensor.codes.reshape(-1)
        )
        scale = numpy_helper.to_array(stored[f"{tensor.name}/scale"])
        assert scale.tobytes() == tensor.scale.tobytes()
        fmt = FLOAT8_STORAGE[tensor.dtype]
        reals = np.asarray(tensor.dequantized(), np.float64)
        again = encode(reals / tensor.scale.reshape(-1, *[1] * (reals.ndim - 1)), fmt)
        np.testing.assert_array_equal(again & 0x7F, tensor.codes & 0x7F)
        compared += 1
    assert compared >= 5


def test_minifloat_weights_lie_on_their_grid() -> None:
    made, _ = quantized("plain", PTQOptions(weights="e2m1"))
    for step in made.floating.layer_steps():
        values = made.searched()[f"{step.name}.weight"]
        reals = values.dequantized()
        steps = reals / values.scale.reshape(-1, *[1] * (reals.ndim - 1))
        np.testing.assert_allclose(steps, round_to(steps, minifloat(2, 1)), rtol=1e-6)
        assert values.dtype == "float8e4m3fn"


def test_only_what_layers_read_is_quantized() -> None:
    """Shen et al.: the network's input is left out; everything else leaves layers in float32."""
    made, _ = quantized("residual", E4M3)
    formats = {name: made.placement.format_of(name).name for name in made.placement.groups}
    assert formats["input"] == formats["fc"] == "float32"
    assert formats["layer1.0.conv2"] == "float32"
    assert formats["stem.0"] == formats["layer1.0.add"] == "fp8-e4m3"
    options = replace(E4M3, overrides=(Override(activations="fp8-e4m3"),))
    made, _ = quantized("residual", options)
    assert {made.placement.format_of(name) for name in made.placement.groups} == {FP8_E4M3}


def test_accuracy_of_formats_has_their_order() -> None:
    model, data = make("residual")
    floating = make("residual")[0](torch.from_numpy(data)).detach().numpy()
    errors = [
        float(np.square(quantize(model, data, options, seed=0).predict(data) - floating).mean())
        for options in (E4M3, replace(E5M2, power_of_two_scales=False))
    ]
    assert errors[0] < errors[1]


def test_saved_and_loaded_models_are_the_same(tmp_path: Path) -> None:
    model, data = make("residual")
    made = quantize(model, data, E4M3, seed=0)
    made.save(tmp_path)
    again = load(tmp_path, model)
    assert again.searched().same_as(made.searched())
    np.testing.assert_array_equal(again.predict(data), made.predict(data))


@pytest.mark.parametrize("name", ["residual", "transformer"])
def test_parity_compares_every_tensor_and_finds_a_changed_one(name: str, tmp_path: Path) -> None:
    made, _ = quantized(name, E4M3)
    made.save(tmp_path)
    path = tmp_path / "model.onnx"
    export_qdq(made, path)
    target, searched = get_target(TARGET), Searched.load(tmp_path)
    _, parity = deploy_exported(path.read_bytes(), searched, target, tmp_path / "out")
    assert parity.different == 0
    assert parity.compared >= len(made.searched().tensors)
    assert (tmp_path / "out" / "model.onnx").read_bytes() == path.read_bytes()
    model = onnx.load(path)
    weights = [item for item in model.graph.initializer if item.name.endswith(".weight")]
    bias = next(item for item in model.graph.initializer if item.name.endswith(".bias"))
    scale = next(item for item in model.graph.initializer if item.name.endswith("weight/scale"))
    for item in (weights[-1], bias, scale):
        before = item.raw_data
        item.raw_data = bytes([before[0] ^ 1]) + before[1:]
        changed = model.SerializeToString()
        with pytest.raises(ParityError, match=item.name.partition("/")[0]):
            deploy_exported(changed, searched, target, tmp_path / "out")
        item.raw_data = before


def test_layers_of_an_exported_file(tmp_path: Path) -> None:
    made, _ = quantized("residual", E4M3)
    export_qdq(made, tmp_path / "model.onnx")
    graph = read_exported((tmp_path / "model.onnx").read_bytes(), "model")
    kinds = {op.name: op.kind for op in graph.ops}
    assert kinds["stem.0"] == "Conv"
    assert kinds["layer1.0.add"] == "Add"
    assert kinds["fc"] == "Gemm"
    assert graph["stem.0.weight"].dtype is DType.FLOAT8E4M3FN
    stem = next(op for op in graph.ops if op.name == "stem.0")
    assert stem.inputs[0] == "input"
    assert stem.macs == graph["stem.0"].elements * 27  # type: ignore[attr-defined]
    with pytest.raises(ModelFileError, match="no QDQ file"):
        read_exported(b"\xff\xff", "broken")


def test_a_kernel_that_drops_something_is_found() -> None:
    """As ONNX Runtime 1.31 drops a Relu before a float8 QuantizeLinear, if it is let."""
    reference = np.random.default_rng(0).normal(size=(50, 10))
    rare = reference.copy()
    rare[::5] += 0.3
    require_same_outputs(rare, reference, TARGET)
    with pytest.raises(KernelMismatchError, match="differ from the same file"):
        require_same_outputs(reference + 0.1, reference, TARGET)


def test_a_spec_to_its_report(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "data.py").write_text(DATA)
    state = {name: value.clone() for name, value in trained().state_dict().items()}
    safetensors.torch.save_file(state, str(tmp_path / "weights.safetensors"))
    formats = "  - {stage: quantize, weights: fp8-e4m3, activations: fp8-e4m3}\n"
    text = SPEC.replace("targets: [cpu-litert, cpu-onnxruntime]", f"{formats}targets: [{TARGET}]")
    (tmp_path / "spec.yaml").write_text(text)
    done = edgesmith(tmp_path, "run", "spec.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "stripes" / TARGET
    found = from_json(DeploymentResult, (folder / "result.json").read_bytes())
    accuracy = {row.form: row.accuracy.value for row in found.accuracy}
    assert len(accuracy) == 5
    assert accuracy["deployed"] == accuracy["reference"] == accuracy["fake-quantized"]
    assert found.parity is not None
    assert found.parity.different == 0
    assert [row.op for row in found.layers if row.macs] == ["Conv", "Conv", "Gemm"]
    assert {row.weight_bits for row in found.layers if row.macs} == {8}
    assert found.latency is not None
    same = (folder / "model.onnx").read_bytes() == (folder / "qdq.onnx").read_bytes()
    assert same


def test_integers_and_model_files_are_refused(tmp_path: Path) -> None:
    text = SPEC.replace("[cpu-litert, cpu-onnxruntime]", f"[{TARGET}]")
    for name, content in (("model.py", MODEL), ("data.py", DATA), ("weights.safetensors", "")):
        (tmp_path / name).write_text(content)
    source = parse_source(text, str(tmp_path / "spec.yaml"))
    (problem,) = check_source(source, Registries.discovered())[1]
    assert problem.code == ProblemCode.LACKING_FORMAT
    assert "lacks int8 activations" in problem.message
    assert problem.suggestion == "it takes fp8-e4m3, fp8-e5m2, float32"
    assert problem.line == text.splitlines().index(f"targets: [{TARGET}]") + 1
    with pytest.raises(TargetUnsupportedError, match="quantized here"):
        deploy_exported(b"", None, get_target(TARGET), tmp_path)
    assert FP8_E5M2.storage == "float8e5m2"
