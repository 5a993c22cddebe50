"""Checkpoints and factories: what fits loads, everything else says what is wrong."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgesmith.pipeline.errors import (
    CheckpointError,
    FactoryError,
    NonFiniteWeightsError,
    UnsafeCheckpointError,
    UnsupportedError,
)
from edgesmith.pipeline.spec import TorchModel
from edgesmith.pipeline.torch_model import (
    build,
    export_float,
    load_weights,
    predict,
    read_checkpoint,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


@pytest.fixture(params=["weights.safetensors", "weights.pt", "wrapped.pt"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    state = network().state_dict()
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, str(path))
    else:
        torch.save({"state_dict": state} if "wrapped" in path.name else state, path)
    return path


def test_every_form_of_checkpoint_loads(checkpoint: Path) -> None:
    model = network()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    load_weights(model, read_checkpoint(checkpoint), "it")
    assert not model.training
    expected = network().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_a_truncated_checkpoint(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"cannot be read|pickled"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_an_empty_checkpoint_is_said_to_be_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=rf"ES220.*{name} cannot be read: it is empty"):
        read_checkpoint(tmp_path / name)


def saved(*, zipped: bool) -> bytes:
    stream = io.BytesIO()
    state = network().state_dict()
    torch.save(state, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


SAVED = tuple(saved(zipped=zipped) for zipped in (True, False))
STARTS = st.sampled_from([b"", b"PK\x03\x04", b"\x80", b"\x80\x02", b"\x80\x02}q\x00("])


def refused_or_read(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        refusal = error
    else:
        return
    assert refusal.fix
    assert "weights_only" not in str(refusal)
    assert len(refusal.message.splitlines()) == 1


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=300, deadline=None)
@given(start=STARTS, rest=st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: bytes
) -> None:
    refused_or_read(tmp_path_factory.getbasetemp() / "random.pt", start + rest)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SAVED), st.data())
def test_a_damaged_checkpoint_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(content)
    places = st.integers(0, 700) | st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=5)):
        damaged[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    refused_or_read(tmp_path_factory.getbasetemp() / "damaged.pt", bytes(damaged[:end]))


def test_text_is_no_torch_file(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_text("version https://example.org/pointer")
    with pytest.raises(CheckpointError, match=r"ES220.*it is no torch file"):
        read_checkpoint(tmp_path / "w.pt")


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    for name in ("no.pt", "no.safetensors"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_checkpoint(tmp_path / name)


class Exploit:
    """Unpickling this would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_pickled_code_is_refused_and_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    torch.save({"weight": Exploit(trace)}, tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Exploit(trace)))
    for name in ("evil.pt", "raw.pt"):
        with pytest.raises(UnsafeCheckpointError, match=r"ES221.*pickled objects") as caught:
            read_checkpoint(tmp_path / name)
        assert "weights_only" not in str(caught.value)
    assert not trace.exists()


def test_something_else_than_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="is no state dict"):
        read_checkpoint(tmp_path / "list.pt")


def test_a_checkpoint_of_another_model_names_what_does_not_fit() -> None:
    weights = network().state_dict()
    weights["3.weight"] = torch.zeros(5, 8)
    weights["extra"] = weights.pop("3.bias")
    with pytest.raises(CheckpointError) as caught:
        load_weights(network(), weights, "checkpoint 'x.pt'")
    message = str(caught.value)
    assert "no weights for '3.bias'" in message
    assert "unknown weights 'extra'" in message
    assert "'3.weight' is [5, 8] in the checkpoint, [3, 8] in the model" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float) -> None:
    weights = network().state_dict()
    weights["0.weight"][0, 0, 0, 0] = value
    with pytest.raises(NonFiniteWeightsError, match=r"ES222.*'0.weight' has NaN or infinite"):
        load_weights(network(), weights, "checkpoint 'x.pt'")


def spec_model(factory: str) -> TorchModel:
    return TorchModel(kind="torch", factory=factory, checkpoint="w.pt", input_shape=(1, 4, 4))


def test_a_factory_that_returns_no_module(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def make():\n    return {'layers': 3}\n")
    with pytest.raises(FactoryError, match="returned dict"):
        build(spec_model("m.py:make"), tmp_path)


def test_a_factory_that_raises(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def make():\n    raise RuntimeError('no such width')\n")
    with pytest.raises(FactoryError, match="no such width"):
        build(spec_model("m.py:make"), tmp_path)


def test_the_float_export_computes_the_same(tmp_path: Path) -> None:
    model = network().eval()
    path = tmp_path / "float.onnx"
    export_float(model, (1, 4, 4), path)
    inputs = np.random.default_rng(0).normal(size=(5, 1, 4, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run(None, {"input": x[None]})[0] for x in inputs])
    assert np.allclose(found, predict(model, inputs, batch=2), atol=1e-5)


def test_a_wrong_input_shape_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"cannot export.*\n.*input_shape"):
        export_float(network().eval(), (3, 9, 9), tmp_path / "float.onnx")


def test_a_trainer_that_raises_is_named(tmp_path: Path) -> None:
    from edgesmith.pipeline.splits import Split, write_split
    from edgesmith.pipeline.torch_model import prepare_model

    (tmp_path / "m.py").write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Linear(2, 2)\n"
        "def train(model, train, selection, seed, progress):\n    raise ValueError('diverged')\n"
    )
    split = Split(np.zeros((2, 2), np.float32), np.zeros(2, np.int64))
    for name in ("train", "selection"):
        write_split(tmp_path, name, split)
    model = TorchModel(kind="torch", factory="m.py:make", trainer="m.py:train", input_shape=(2,))
    context: Any = SimpleNamespace(
        spec=SimpleNamespace(folder=tmp_path),
        inputs={"data": tmp_path},
        seed=0,
        progress=None,
        folder=tmp_path,
    )
    with pytest.raises(FactoryError, match=r"trainer 'm.py:train' raised ValueError: diverged"):
        prepare_model(model, context)
