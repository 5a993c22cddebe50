"""A trained model to its reports through the command line, as a user does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import safetensors.torch
import torch
from torch import nn

from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.results import DeploymentResult, Parity

MODEL = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3),
    )
"""

DATA = """
import numpy as np

def split(seed, count=90):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.normal(0, 0.3, (count, 1, 8, 8)).astype(np.float32)
    for image, label in zip(images, labels):
        image[0, label * 2 : label * 2 + 3] += 1.0
    return images, labels.astype(np.int64)
"""

SPEC = """
spec_version: 1
name: stripes
model:
  {kind: torch, factory: model.py:make, checkpoint: weights.safetensors, input_shape: [1, 8, 8]}
data:
  calibration: {factory: data.py:split, args: {seed: 1}}
  selection: {factory: data.py:split, args: {seed: 2}}
  test: {factory: data.py:split, args: {seed: 3}}
stages:
  - {stage: measure, runs: 100, warmups: 10}
targets: [cpu-litert, cpu-onnxruntime]
budgets: {accuracy_drop_points: 2.0, agreement_percent: 95}
"""


def trained() -> nn.Module:
    """The model, fitted in a second."""
    names: dict[str, object] = {}
    exec(MODEL, names)  # noqa: S102 (the text above)
    exec(DATA, names)  # noqa: S102
    torch.manual_seed(0)
    model: nn.Module = names["make"]()  # type: ignore[operator]
    images, labels = names["split"](0, 300)  # type: ignore[operator]
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "model.py").write_text(MODEL)
    (folder / "data.py").write_text(DATA)
    (folder / "spec.yaml").write_text(SPEC)
    state = {name: value.clone() for name, value in trained().state_dict().items()}
    safetensors.torch.save_file(state, str(folder / "weights.safetensors"))
    return folder


def edgesmith(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgesmith", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def first_run(project: Path) -> subprocess.CompletedProcess[str]:
    return edgesmith(project, "run", "spec.yaml")


def result(project: Path, target: str) -> DeploymentResult:
    path = project / "runs" / "stripes" / target / "result.json"
    return from_json(DeploymentResult, path.read_bytes())


def test_the_run_succeeds(first_run: subprocess.CompletedProcess[str]) -> None:
    assert first_run.returncode == 0, first_run.stdout + first_run.stderr
    assert "cpu-onnxruntime" in first_run.stdout


def test_a_target_from_the_command_line_is_scored_with_its_own_rounding(
    first_run: subprocess.CompletedProcess[str], project: Path
) -> None:
    assert first_run.returncode == 0
    ran = edgesmith(project, "run", "spec.yaml", "--target", "c-host", "--out", "other")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = from_json(
        DeploymentResult, (project / "other" / "stripes" / "c-host" / "result.json").read_bytes()
    )
    rates = {row.form: row.accuracy.value for row in found.accuracy}
    assert rates["fixed-point"] == rates["deployed"]


@pytest.mark.parametrize("target", ["cpu-litert", "cpu-onnxruntime"])
def test_every_target_leaves_a_complete_folder(
    first_run: subprocess.CompletedProcess[str], project: Path, target: str
) -> None:
    assert first_run.returncode == 0
    folder = project / "runs" / "stripes" / target
    found = result(project, target)
    assert found.ok
    assert [row.form for row in found.accuracy] == [
        "float",
        "fake-quantized",
        "onnxruntime",
        "reference",
        "deployed",
    ]
    assert all(row.accuracy.samples == 90 for row in found.accuracy)
    assert found.latency is not None
    assert found.latency.float_baseline is not None
    assert len(found.latency.deployed.samples_ms) == 100
    assert found.parity is not None
    assert found.parity.different == 0
    assert found.parity.compared >= 12
    edges = [edge.edge for edge in found.layers[0].drift]
    assert edges[0] == "float → fake-quantized"
    assert edges[-1] == "reference → deployed"
    for artifact in found.artifacts:
        assert (folder / artifact.path).stat().st_size == artifact.bytes
    suite = ElementTree.parse(folder / "junit.xml").getroot()  # noqa: S314 (our own file)
    assert suite.find(".//failure") is None
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_reference_executor_and_the_artifact_agree(
    first_run: subprocess.CompletedProcess[str], project: Path
) -> None:
    assert first_run.returncode == 0
    last = result(project, "cpu-litert").layers[-1].drift[-1]
    assert last.edge == "reference → deployed"
    assert last.max_lsb <= 2


def test_a_second_run_does_nothing_again(
    first_run: subprocess.CompletedProcess[str], project: Path
) -> None:
    assert first_run.returncode == 0
    before = (project / "runs" / "stripes" / "cpu-litert" / "result.json").read_bytes()
    again = edgesmith(project, "run", "spec.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    after = (project / "runs" / "stripes" / "cpu-litert" / "result.json").read_bytes()
    assert before == after
    record = json.loads((project / "runs" / "stripes" / "run.json").read_text())
    assert "torch" not in again.stderr
    assert record


def test_a_missed_budget_is_exit_code_1(
    first_run: subprocess.CompletedProcess[str], project: Path
) -> None:
    assert first_run.returncode == 0
    strict = SPEC.replace("agreement_percent: 95", "size_bytes: 10")
    (project / "strict.yaml").write_text(strict)
    done = edgesmith(project, "run", "strict.yaml", "--out", "strict", "--target", "cpu-litert")
    assert done.returncode == 1, done.stdout + done.stderr
    missed = from_json(
        DeploymentResult, (project / "strict/stripes/cpu-litert/result.json").read_bytes()
    )
    assert [check.met for check in missed.budgets] == [True, False]
    junit = ElementTree.parse(project / "strict/stripes/cpu-litert/junit.xml").getroot()  # noqa: S314
    assert junit.find(".//failure") is not None


def test_an_unsupported_operator_is_exit_code_3(project: Path) -> None:
    (project / "odd.py").write_text(
        MODEL.replace("nn.ReLU(), nn.Flatten()", "nn.ELU(), nn.Flatten()")
    )
    (project / "odd.yaml").write_text(
        SPEC.replace("model.py:make", "odd.py:make").replace("stripes", "odd")
    )
    done = edgesmith(project, "run", "odd.yaml", "--target", "cpu-litert")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "elu" in (done.stdout + done.stderr).lower()
    assert "fix" in done.stdout + done.stderr


@pytest.mark.parametrize("source", ["model.tflite", "qdq.onnx"])
@pytest.mark.parametrize("target", ["cpu-litert", "cpu-onnxruntime"])
def test_compile_takes_what_a_run_left(
    first_run: subprocess.CompletedProcess[str],
    project: Path,
    source: str,
    target: str,
    tmp_path: Path,
) -> None:
    assert first_run.returncode == 0
    model = project / "runs" / "stripes" / "cpu-litert" / source
    out = tmp_path / "out"
    done = edgesmith(project, "compile", str(model), "--target", target, "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert next(out.glob("model.*")).stat().st_size > 0


def test_compile_refuses_a_folder_with_files(
    first_run: subprocess.CompletedProcess[str], project: Path, tmp_path: Path
) -> None:
    assert first_run.returncode == 0
    (tmp_path / "mine.txt").write_text("precious")
    model = project / "runs" / "stripes" / "cpu-litert" / "model.tflite"
    done = edgesmith(project, "compile", str(model), "-t", "cpu-litert", "--out", str(tmp_path))
    assert done.returncode == 3
    assert "is not empty" in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_model_runs_without_a_float_model(
    first_run: subprocess.CompletedProcess[str], project: Path
) -> None:
    assert first_run.returncode == 0
    (project / "file.yaml").write_text(
        "spec_version: 1\n"
        "name: from-file\n"
        "model: {kind: file, path: runs/stripes/cpu-litert/qdq.onnx}\n"
        "data:\n"
        "  test: {factory: data.py:split, args: {seed: 3}}\n"
        "targets: [cpu-litert]\n"
        "budgets: {size_bytes: 100000}\n"
    )
    done = edgesmith(project, "run", "file.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    path = project / "runs" / "from-file" / "cpu-litert" / "result.json"
    found = from_json(DeploymentResult, path.read_bytes())
    assert [row.form for row in found.accuracy] == ["reference", "deployed"]
    assert found.confusion is None


def test_parity_is_kept_beside_the_report(
    first_run: subprocess.CompletedProcess[str], project: Path
) -> None:
    assert first_run.returncode == 0
    path = project / "runs" / "stripes" / "cpu-litert" / "parity.json"
    assert from_json(Parity, path.read_bytes()).different == 0
