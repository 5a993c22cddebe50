"""`cuda-fp8`: its facts, what it says without a GPU, and a whole deployment computed by the CPU.

What needs the hardware is skipped where there is none, and says so.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import safetensors.torch
import torch
from rich.console import Console

from edgesmith.pipeline.cache import Cache
from edgesmith.pipeline.errors import TargetUnavailableError
from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.lint import check_source, load_spec
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.run_folder import write_overview
from edgesmith.pipeline.runner import Runner, RunOptions, RunRecord
from edgesmith.pipeline.spec_source import parse_source
from edgesmith.pipeline.summary import print_summary, print_targets
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import BuildProducts
from edgesmith.targets.cuda_fp8 import CudaFp8
from tests.pipeline.test_end_to_end import DATA, MODEL, SPEC, trained
from tests.pipeline.test_runner import Notes

FORMATS = "  - {stage: quantize, weights: fp8-e4m3, activations: fp8-e4m3}\n"
REASON = get_target("cuda-fp8").unavailable()
hardware = pytest.mark.skipif(bool(REASON), reason=REASON)


def project(folder: Path, targets: str) -> Path:
    (folder / "model.py").write_text(MODEL)
    (folder / "data.py").write_text(DATA)
    state = {name: value.clone() for name, value in trained().state_dict().items()}
    safetensors.torch.save_file(state, str(folder / "weights.safetensors"))
    text = SPEC.replace("targets: [cpu-litert, cpu-onnxruntime]", f"{FORMATS}targets: [{targets}]")
    (folder / "spec.yaml").write_text(text)
    return folder / "spec.yaml"


def run(folder: Path, targets: tuple[str, ...], notes: Notes | None = None) -> RunRecord:
    registries = Registries.discovered()
    spec = load_spec(project(folder, ", ".join(targets)), registries)
    with Cache(folder / "cache") as cache:
        runner = Runner(spec, registries, cache, folder / "runs", notes or Notes())
        return runner.run(targets, RunOptions())


def test_a_pair_that_no_gpu_multiplies_is_refused_before_anything_runs(tmp_path: Path) -> None:
    path = project(tmp_path, "cuda-fp8")
    text = path.read_text().replace("weights: fp8-e4m3, activations: fp8-e4m3", "%s")
    for formats, wrong in (
        ("weights: fp8-e5m2, activations: fp8-e5m2", True),
        ("weights: fp8-e5m2, activations: fp8-e4m3", False),
        ("weights: fp8-e4m3, activations: fp8-e5m2", False),
    ):
        source = parse_source(text % formats, str(path))
        problems = check_source(source, Registries.discovered())[1]
        assert bool(problems) is wrong
        if wrong:
            assert "lacks fp8-e5m2 weights beside fp8-e5m2 activations" in problems[0].message


class OldGpu:
    """A CUDA device without FP8."""

    def is_available(self) -> bool:
        return True

    def get_device_capability(self) -> tuple[int, int]:
        return (8, 6)

    def get_device_name(self) -> str:
        return "Old GPU"


class NewGpu(OldGpu):
    def get_device_capability(self) -> tuple[int, int]:
        return (9, 0)


def test_the_probe_names_the_device_and_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", OldGpu())
    assert CudaFp8().unavailable() == (
        "no CUDA device with FP8: 'Old GPU' has 8.6, not compute capability 8.9 or newer"
    )
    monkeypatch.setattr(torch, "cuda", NewGpu())
    assert CudaFp8().unavailable() == ""


@pytest.mark.skipif(not REASON, reason="this machine has the hardware")
def test_without_a_gpu_the_run_goes_on_and_everything_says_so(tmp_path: Path) -> None:
    notes = Notes()
    record = run(tmp_path, ("cpu-onnxruntime-fp8", "cuda-fp8"), notes)
    assert record.exit_code == 0
    done, skipped = record.targets
    assert done.ok
    assert done.skipped is None
    assert skipped.skipped == REASON
    assert skipped.error is None
    assert skipped.folder is None
    assert REASON.startswith("no CUDA device with FP8")
    assert any(f"cuda-fp8 skipped: {REASON}" in message for message in notes.messages)
    place = tmp_path / "runs" / "stripes"
    assert sorted(path.name for path in (place / "cuda-fp8").iterdir()) == [
        "junit.xml",
        "report.html",
    ]
    suite = ET.parse(place / "cuda-fp8" / "junit.xml").getroot()  # noqa: S314 - our own file
    assert (suite.get("tests"), suite.get("skipped"), suite.get("failures")) == ("1", "1", "0")
    message = suite.find(".//skipped")
    assert message is not None
    assert message.get("message") == f"skipped: {REASON}"
    assert f"skipped: {REASON}" in (place / "cuda-fp8" / "report.html").read_text()
    console = Console(file=io.StringIO(), width=300)
    print_summary(record, console)
    print_targets(Registries.discovered(), console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"cuda-fp8: skipped: {REASON}" in said
    assert re.search(r"cuda-fp8.*skipped ", said)
    assert re.search(rf"skipped here *│ {re.escape(REASON)}", said)
    page = write_overview(record.name, record.targets, place).read_text()
    assert REASON in page
    assert "cpu-onnxruntime-fp8/report.html" in page


@pytest.mark.skipif(not REASON, reason="this machine has the hardware")
def test_a_run_of_nothing_else_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailableError, match="no CUDA device with FP8") as caught:
        run(tmp_path, ("cuda-fp8",))
    assert caught.value.code == "ES502"
    assert caught.value.exit_code == 3
    assert "add a target" in caught.value.fix
    assert not (tmp_path / "runs").exists()


def test_a_whole_deployment_with_the_cpu_in_place_of_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CudaFp8, "device_name", "cpu")
    monkeypatch.setattr(CudaFp8, "unavailable", lambda self: "")
    record = run(tmp_path, ("cuda-fp8",))
    assert record.exit_code == 0, record.targets
    folder = tmp_path / "runs" / "stripes" / "cuda-fp8"
    found = from_json(DeploymentResult, (folder / "result.json").read_bytes())
    accuracy = {row.form: row.accuracy.value for row in found.accuracy}
    assert accuracy["deployed"] == accuracy["reference"] == accuracy["fake-quantized"]
    assert found.parity is not None
    assert found.parity.different == 0
    assert found.latency is not None
    assert found.latency.float_baseline is None
    assert found.latency.deployed.median.samples == 100
    assert (folder / "model.onnx").read_bytes() == (folder / "qdq.onnx").read_bytes()


@hardware
def test_the_gpu_computes_what_the_cpu_does(tmp_path: Path) -> None:
    """The gates of the run: outputs, and the bit patterns of quantized tensors."""
    record = run(tmp_path, ("cuda-fp8",))
    assert record.exit_code == 0
    products = BuildProducts(str(tmp_path / "runs" / "stripes" / "cuda-fp8"), "model.onnx")
    memory = CudaFp8().peak_memory_bytes(products)
    assert memory is not None
    assert memory > 0
