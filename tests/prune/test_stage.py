"""The stage `prune` through the command line: a spec to deployed, smaller artifacts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import safetensors.torch

from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.target_facts import get_target
from edgesmith.prune.masks import load_masks
from edgesmith.prune.stored import load_result
from edgesmith.quantize.searched import Searched
from tests.guards.repository import ROOT
from tests.pipeline.test_end_to_end import DATA, edgesmith
from tests.prune.nets import trained

FIND_TESTS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
"""
MODEL = """
from tests.prune.nets import Classifier

def make():
    return Classifier(WIDTH)
"""
PRUNED = """
spec_version: 1
name: bars
model:
  {kind: torch, factory: model.py:make, checkpoint: weights.safetensors, input_shape: [3, 8, 8]}
data:
  train: {factory: data.py:split, args: {seed: 0, count: 192}}
  calibration: {factory: data.py:split, args: {seed: 1}}
  selection: {factory: data.py:split, args: {seed: 2}}
  test: {factory: data.py:split, args: {seed: 3}}
stages:
  - stage: prune
    cost: 0.5
    rounds: 1
    tolerance_points: 20
    samples: 64
    finetune: {epochs: 2, learning_rate: 0.003}
    sparsity: {pattern: "n:m", kept: 2, of: 4, exclude: [fc]}
  - {stage: measure, runs: 100, warmups: 10}
targets: [TARGET]
"""
BARS = """
from tests.prune.nets import blobs

def split(seed, count=96):
    data = blobs(count, seed)
    return data.inputs, data.labels
"""


def project(folder: Path, target: str, width: int = 16) -> Path:
    (folder / "model.py").write_text(FIND_TESTS + MODEL.replace("WIDTH", str(width)))
    (folder / "data.py").write_text(FIND_TESTS + BARS)
    (folder / "spec.yaml").write_text(PRUNED.replace("TARGET", target))
    state = {name: value.clone() for name, value in trained(width).state_dict().items()}
    safetensors.torch.save_file(state, str(folder / "weights.safetensors"))
    return folder


def outputs(folder: Path, stage: str) -> Path:
    """The output folder of a stage in the last run."""
    cache = folder / ".edgesmith/cache"
    digest: str = json.loads((cache / f"latest/bars/{stage}.json").read_text())["digest"]
    return cache / "outputs" / digest[:2] / digest


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    # Wide enough that channels, not calls, take the time.
    folder = project(tmp_path_factory.mktemp("pruned"), "cpu-litert", width=64)
    return folder, edgesmith(folder, "run", "spec.yaml")


def test_a_pruned_model_is_deployed(
    cpu: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = cpu
    assert done.returncode == 0, done.stdout + done.stderr
    path = folder / "runs/bars/cpu-litert/result.json"
    found = from_json(DeploymentResult, path.read_bytes())
    forms = [row.form for row in found.accuracy]
    assert forms == ["float", "pruned", "fake-quantized", "onnxruntime", "reference", "deployed"]
    assert found.parity is not None
    assert found.parity.different == 0
    notes = "\n".join(found.notes)
    assert "pruned for cpu-litert" in notes
    assert load_result(outputs(folder, "prune")).after.unit == "ms"
    assert "median latency on cpu-litert, measured in turns, 300 runs each: " in notes
    assert "not pruned: fc" in notes
    assert "zero weights: no gain on cpu-litert" in notes
    assert "conv1 64 -> " in notes


def test_zeros_reach_the_artifact(
    cpu: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = cpu
    masks = load_masks(outputs(folder, "prune"))
    codes = Searched.load(outputs(folder, "quantize"))["conv1.weight"].codes
    assert codes is not None
    assert (codes[~masks["conv1.weight"].numpy()] == 0).all()
    assert load_result(outputs(folder, "prune")).reached


def test_nothing_unfinished_is_left(
    cpu: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = cpu
    assert not any((folder / ".edgesmith/unfinished").glob("*"))


def test_it_is_measured_on_the_microcontroller(tmp_path: Path) -> None:
    for tool in get_target("cortex-m4").tools():
        if tool.find() is None:
            pytest.skip(f"cortex-m4 needs {tool.name}: {tool.install}")
    folder = project(tmp_path, "cortex-m4")
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    path = folder / "runs/bars/cortex-m4/result.json"
    found = from_json(DeploymentResult, path.read_bytes())
    pruned = load_result(outputs(folder, "prune"))
    assert found.device is not None
    assert pruned.after.unit == "instructions"
    assert pruned.after.value <= 0.5 * pruned.before.value
    assert found.device.instructions.value == pytest.approx(pruned.after.value, rel=0.02)
    assert "zero weights on cortex-m4: flash only" in "\n".join(found.notes)


def test_zeros_have_no_place_in_binary_weights(tmp_path: Path) -> None:
    folder = project(tmp_path, "c-host")
    text = (folder / "spec.yaml").read_text()
    text = text.replace(
        "  - {stage: measure", "  - {stage: quantize, weights: int1}\n  - {stage: measure"
    )
    (folder / "spec.yaml").write_text(text)
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode == 3
    said = " ".join((done.stdout + done.stderr).split())
    assert "weights that were pruned to zero, and the format int1, which has no zero" in said


def test_a_missing_train_split_is_named(tmp_path: Path) -> None:
    folder = project(tmp_path, "cpu-litert")
    text = (folder / "spec.yaml").read_text()
    line = next(each for each in text.splitlines() if each.strip().startswith("train:"))
    (folder / "spec.yaml").write_text(text.replace(line + "\n", ""))
    done = edgesmith(folder, "lint", "spec.yaml")
    assert done.returncode == 2
    assert "lacks the split `train`: pruning fine-tunes on it" in done.stdout + done.stderr


def test_a_misspelled_importance_is_named(tmp_path: Path) -> None:
    folder = project(tmp_path, "cpu-litert")
    text = (folder / "spec.yaml").read_text().replace("rounds: 1", "importance: tailor")
    (folder / "spec.yaml").write_text(text)
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode == 2
    assert "did you mean `taylor`" in " ".join((done.stdout + done.stderr).split())


def test_a_model_file_is_not_pruned(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(DATA)
    (tmp_path / "model.tflite").write_bytes(b"TFL3")
    (tmp_path / "spec.yaml").write_text(
        "spec_version: 1\nname: file\nmodel: {kind: file, path: model.tflite}\n"
        "data:\n  test: {factory: data.py:split, args: {seed: 3}}\n"
        "stages: [{stage: prune}]\ntargets: [cpu-litert]\n"
    )
    done = edgesmith(tmp_path, "run", "spec.yaml")
    assert done.returncode == 3
    assert "a model file cannot be pruned" in done.stdout + done.stderr
