"""The MLPerf Tiny models against the official files; loading of weights and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgesmith.pipeline.errors import CheckpointError, DataError, FactoryError
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.training.trainer import accuracy
from edgesmith.targets.graph.ir import Conv2D, DepthwiseConv2D, FullyConnected, Graph
from edgesmith.targets.graph.tflite_reader import read_tflite
from tests.examples.loading import Floats, data_folder, example, outputs
from tests.oracles import run_litert

EXAMPLE = "mlperf_tiny"
MODELS = {
    "ic": "image_classification",
    "kws": "keyword_spotting",
    "vww": "visual_wake_words",
    "ad": "anomaly_detection",
}
SHAPES = {"ic": (3, 32, 32), "kws": (1, 49, 10), "vww": (3, 96, 96), "ad": (640,)}
ARCHIVES = {
    "ic": "ic_resnet8_weights.npz",
    "kws": "kws_dscnn_weights.npz",
    "vww": "vww_mobilenetv1_025_96_weights.npz",
    "ad": "ad_autoencoder_weights.npz",
}
SAMPLES = 10


def build(name: str, **args: int) -> Any:
    return example(EXAMPLE, f"models.py:{MODELS[name]}")(**args)


def official(name: str) -> nn.Module:
    """A model with its official weights."""
    data_folder()
    model: nn.Module = build(name)
    example(EXAMPLE, "weights.py:load_official")(model)
    return model


def load(model: nn.Module, path: Path, **options: Any) -> None:
    example(EXAMPLE, "weights.py:load")(model, path, **options)


def tflite_float(name: str, inputs: Floats) -> Floats:
    """Outputs of the official float file in LiteRT, for channels-first inputs."""
    model = (data_folder() / "mlperf_tiny" / f"{name}_float32.tflite").read_bytes()
    channels_last = inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs
    (values,) = run_litert(model, [channels_last[:, None]], reference=False).values()
    return values[:, 0].astype(np.float32)


def uniform(name: str, low: float, high: float) -> Floats:
    rng = np.random.default_rng(0)
    return rng.uniform(low, high, (SAMPLES, *SHAPES[name])).astype(np.float32)


@pytest.mark.parametrize(("name", "low", "high"), [("ic", 0, 255), ("vww", 0, 1), ("ad", -1, 1)])
def test_output_equals_the_official_float_file(name: str, low: float, high: float) -> None:
    inputs = uniform(name, low, high)
    difference = np.abs(outputs(official(name), inputs) - tflite_float(name, inputs))
    assert difference.max() <= 1e-4


def test_anomaly_detection_equals_the_official_float_file_on_the_scale_of_decibels() -> None:
    # outputs reach 70 there, and LiteRT itself is 2e-4 away from the same sums in float64
    inputs = uniform("ad", -85, 15)
    expected = tflite_float("ad", inputs)
    difference = np.abs(outputs(official("ad"), inputs) - expected)
    assert difference.max() <= 1e-5 * np.abs(expected).max()


def test_keyword_spotting_computes_what_the_official_int8_file_computes() -> None:
    """There is no float file, and the archive is of another training run than the int8 file.

    So the int8 file's own weights go into the module, which then must give the
    file's outputs up to quantization: the topology and the padding are right.
    """
    content = (data_folder() / "mlperf_tiny" / "kws_int8.tflite").read_bytes()
    graph = read_tflite(content, "kws")
    features, _ = example(EXAMPLE, "data.py:spoken_digits")("calibration")
    source, result = (graph.tensors[name].q for name in (graph.inputs[0], graph.outputs[0]))
    scale, zero_point = source.scalar
    codes = np.clip(np.round(features / scale) + zero_point, -128, 127).astype(np.int8)
    (expected,) = run_litert(
        content, [codes.transpose(0, 2, 3, 1)[:, None]], reference=True
    ).values()
    expected = result.dequantize(expected[:, 0])
    difference = np.abs(outputs(dequantized(graph), source.dequantize(codes)) - expected)
    assert difference.mean() <= 0.005
    assert difference.max() <= 0.2


def dequantized(graph: Graph) -> nn.Module:
    """The keyword model with the weights of an int8 graph; its batch norms do nothing."""
    model: nn.Module = build("kws")
    layers = [each for each in model.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    kinds = (Conv2D, DepthwiseConv2D, FullyConnected)
    ops = [op for op in graph.ops if isinstance(op, kinds)]
    with torch.no_grad():
        for layer, op in zip(layers, ops, strict=True):
            weight, bias = (torch.from_numpy(real_values(graph, name)) for name in op.inputs[1:])
            if isinstance(layer, nn.Conv2d):
                channels_first = (3, 0, 1, 2) if layer.groups > 1 else (0, 3, 1, 2)
                weight = weight.permute(channels_first)
            layer.weight.copy_(weight)
            assert layer.bias is not None
            layer.bias.copy_(bias)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.fill_((1 + norm.eps) ** 0.5)
    return model


def real_values(graph: Graph, name: str) -> Floats:
    tensor = graph.tensors[name]
    assert tensor.data is not None
    return tensor.q.dequantize(tensor.data)


def test_spoken_digits_are_unknown_words_to_the_official_keyword_model() -> None:
    """Digits are none of the ten keywords: the features are right if most are called unknown."""
    unknown = 11
    data_folder()
    features, _ = example(EXAMPLE, "data.py:spoken_digits")("test")
    predicted = outputs(official("kws"), features).argmax(1)
    assert (predicted == unknown).mean() >= 0.95


@given(size=st.integers(1, 100), kernel=st.integers(1, 11), stride=st.integers(1, 4))
def test_same_padding_gives_the_size_that_it_is_named_after(
    size: int, kernel: int, stride: int
) -> None:
    before, after = example(EXAMPLE, "models.py:same_padding")(size, kernel, stride)
    assert 0 <= before <= after <= before + 1
    outputs_with_padding = (size + before + after - kernel) // stride + 1
    if size + before + after >= kernel:
        assert outputs_with_padding == -(-size // stride)


@pytest.mark.parametrize("name", MODELS)
def test_loading_twice_gives_the_same_weights_and_leaves_inference_mode(name: str) -> None:
    first, second = official(name), official(name)
    assert not first.training
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def archive(folder: Path, name: str, **changes: Floats | None) -> Path:
    """A copy of an official archive with arrays replaced, or removed where None is given."""
    with np.load(data_folder() / "mlperf_tiny" / ARCHIVES[name]) as arrays:
        held = {each: arrays[each] for each in arrays.files}
    for each, value in changes.items():
        held.pop(each, None)
        if value is not None:
            held[each] = value
    path = folder / "changed.npz"
    np.savez(path, **held)
    return path


def test_an_archive_that_lacks_an_array_is_refused_by_name(tmp_path: Path) -> None:
    path = archive(tmp_path, "ic", **{"conv2d_3/bias:0": None})
    with pytest.raises(CheckpointError, match="no array 'conv2d_3/bias'"):
        load(build("ic"), path)


def test_an_archive_with_one_array_too_many_is_refused_by_name(tmp_path: Path) -> None:
    path = archive(tmp_path, "ic", **{"conv2d_9/bias:0": np.zeros(4, np.float32)})
    with pytest.raises(CheckpointError, match=r"1 arrays .* not use.*conv2d_9/bias"):
        load(build("ic"), path)


@pytest.mark.parametrize(
    "kernel", [np.zeros((64, 11), np.float32), np.zeros((64, 10)), np.zeros(640, np.float32)]
)
def test_an_array_of_another_shape_or_type_is_refused_and_the_model_unchanged(
    tmp_path: Path, kernel: Floats
) -> None:
    path = archive(tmp_path, "ic", **{"dense/kernel:0": kernel})
    model = build("ic")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"dense\.weight is .* does not become float32"):
        load(model, path)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"not a zip archive", b"PK\x03\x04 truncated"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a NumPy archive"):
        load(build("ad"), path)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, **{"dense/kernel:0": np.array([{"code": 1}], object)}, allow_pickle=True)
    with pytest.raises(CheckpointError, match="is not a NumPy archive"):
        load(build("ad"), path)


def test_a_skipped_layer_keeps_its_weights_and_may_have_another_size() -> None:
    data_folder()
    model = build("kws", classes=10)
    before = model.dense.weight.detach().clone()
    example(EXAMPLE, "weights.py:load_official")(model, skip=("dense",))
    assert torch.equal(model.dense.weight, before)


def test_without_the_data_folder_the_error_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EDGESMITH_DATA", raising=False)
    with pytest.raises(DataError, match="EDGESMITH_DATA") as caught:
        example(EXAMPLE, "weights.py:load_official")(build("ic"))
    assert "set EDGESMITH_DATA" in caught.value.fix
    monkeypatch.setenv("EDGESMITH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no file 'mlperf_tiny/ic_resnet8_weights\.npz'"):
        example(EXAMPLE, "weights.py:load_official")(build("ic"))


def test_fine_tuning_on_images_begins_at_the_official_weights_and_repeats() -> None:
    official_weights = official("ic").state_dict()
    load, train = example(EXAMPLE, "data.py:cifar10"), example(EXAMPLE, "training.py:images")
    few = Split(*load("train", per_class=20))
    found = []
    for _ in range(2):
        model = build("ic")
        train(model, few, few, 3, SilentProgress())
        assert not model.training
        assert accuracy(model, few) > accuracy(official("ic"), few)
        found.append(model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    # Two hundred images ten times move weights by little; random ones would be far away.
    weight = next(name for name in found[0] if found[0][name].ndim == 4)
    moved = (found[0][weight] - official_weights[weight]).norm() / official_weights[weight].norm()
    assert 0 < moved < 0.2


def test_fine_tuning_refuses_a_model_of_another_kind() -> None:
    digits = example(EXAMPLE, "training.py:digits")
    with pytest.raises(FactoryError, match="trains a DSCNN with 10 classes, not this ResNet8"):
        digits(build("ic"), None, None, 0, None)
    with pytest.raises(FactoryError, match="trains a DSCNN with 10 classes, not this DSCNN"):
        digits(build("kws"), None, None, 0, None)
