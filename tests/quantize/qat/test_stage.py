"""`qat:` of the stage `quantize`, through the command line: from a spec to deployed artifacts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.prune.masks import load_masks
from edgesmith.quantize.qat.values import load_result
from edgesmith.quantize.searched import Searched
from tests.pipeline.test_end_to_end import edgesmith
from tests.prune.test_stage import BARS, FIND_TESTS, outputs
from tests.quantize.qat.bars import model

MODEL = """
from tests.prune.nets import Classifier

def make():
    return Classifier(8)
"""
SPEC = """
spec_version: 1
name: bars
model:
  {kind: torch, factory: model.py:make, checkpoint: weights.safetensors, input_shape: [3, 8, 8]}
data:
  train: {factory: data.py:split, args: {seed: 0, count: 256}}
  calibration: {factory: data.py:split, args: {seed: 1}}
  selection: {factory: data.py:split, args: {seed: 2}}
  test: {factory: data.py:split, args: {seed: 3}}
stages:
PRUNE  - stage: quantize
    weights: WEIGHTS
    activations: ACTIVATIONS
    qat: {epochs: EPOCHS, learning_rate: 0.003}
  - {stage: measure, runs: 100, warmups: 10}
targets: [TARGET]
"""
ZEROS = """  - stage: prune
    cost: null
    finetune: {epochs: 1}
    tolerance_points: 60
    sparsity: {pattern: "n:m", kept: 2, of: 4}
"""


def project(
    folder: Path,
    target: str,
    weights: str,
    activations: str = "int8",
    *,
    prune: str = "",
    epochs: int = 2,
) -> Path:
    """A spec and its files."""
    (folder / "model.py").write_text(FIND_TESTS + MODEL)
    (folder / "data.py").write_text(FIND_TESTS + BARS)
    text = SPEC.replace("TARGET", target).replace("WEIGHTS", weights).replace("PRUNE", prune)
    text = text.replace("ACTIVATIONS", activations).replace("EPOCHS", str(epochs))
    (folder / "spec.yaml").write_text(text)
    state = {name: value.clone() for name, value in model().state_dict().items()}
    safetensors.torch.save_file(state, str(folder / "weights.safetensors"))
    return folder


@pytest.mark.parametrize(
    ("target", "weights", "activations", "prune"),
    [
        ("cpu-litert", "int8", "int8", ""),
        ("cpu-litert", "int4", "int8", ZEROS),
        ("cpu-onnxruntime-fp8", "fp8-e4m3", "fp8-e4m3", ""),
    ],
)
def test_trained_integers_are_deployed(
    tmp_path: Path, target: str, weights: str, activations: str, prune: str
) -> None:
    folder = project(tmp_path, target, weights, activations, prune=prune)
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = from_json(DeploymentResult, (folder / f"runs/bars/{target}/result.json").read_bytes())
    assert found.parity is not None
    assert found.parity.different == 0
    rates = {row.form: row.accuracy.value for row in found.accuracy}
    assert rates["deployed"] == pytest.approx(rates["fake-quantized"], abs=1.1)
    result = load_result(outputs(folder, "quantize"))
    assert result is not None
    assert result.epochs == 2
    assert result.after >= result.before
    assert any("quantization-aware training, 2 epochs" in note for note in found.notes)
    assert not any((folder / ".edgesmith/trainings").glob("*/*.pt"))
    if prune:
        masks = load_masks(outputs(folder, "prune"))
        codes = Searched.load(outputs(folder, "quantize"))["conv1.weight"].codes
        assert codes is not None
        assert (codes[~masks["conv1.weight"].numpy()] == 0).all()
        assert (np.moveaxis(codes, 1, -1).reshape(-1, 4) != 0).sum(1).max() <= 2


def test_a_killed_training_goes_on(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        project(tmp_path / name, "cpu-litert", "int4", epochs=12)
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "edgesmith", "run", "spec.yaml"]
    running = subprocess.Popen(
        command, cwd=killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list((killed / ".edgesmith/trainings").glob("*/*.pt")):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert list((killed / ".edgesmith/trainings").glob("*/*.pt"))
    for folder in (killed, tmp_path / "whole"):
        done = edgesmith(folder, "run", "spec.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
    one, other = (outputs(folder, "quantize") for folder in (killed, tmp_path / "whole"))
    assert Searched.load(one).same_as(Searched.load(other))
    assert load_result(one) == load_result(other)


def test_a_missing_train_split_is_named(tmp_path: Path) -> None:
    folder = project(tmp_path, "cpu-litert", "int8")
    text = (folder / "spec.yaml").read_text()
    line = next(each for each in text.splitlines() if each.strip().startswith("train:"))
    (folder / "spec.yaml").write_text(text.replace(line + "\n", ""))
    done = edgesmith(folder, "lint", "spec.yaml")
    assert done.returncode == 2
    assert "lacks the split `train`: `qat` trains on it" in done.stdout + done.stderr


def test_wrong_options_are_found_by_lint(tmp_path: Path) -> None:
    folder = project(tmp_path, "cpu-litert", "int8")
    text = (folder / "spec.yaml").read_text()
    (folder / "spec.yaml").write_text(text.replace("learning_rate", "learning_rat"))
    done = edgesmith(folder, "lint", "spec.yaml")
    assert done.returncode == 2
    assert "did you mean `learning_rate`" in (done.stdout + done.stderr).lower()
