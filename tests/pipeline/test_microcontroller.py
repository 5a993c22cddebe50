"""A model to microcontrollers through the command line: artifacts, figures, limits, mistakes."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
from rich.console import Console

from edgesmith.pipeline.compile import compile_model
from edgesmith.pipeline.errors import DoesNotFitError, ToolFailedError, ToolMissingError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.summary import print_targets
from edgesmith.pipeline.values import Kind
from edgesmith.targets import c_host
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.onnx_writer import write_onnx
from edgesmith.targets.graph.tflite_writer import write_tflite
from edgesmith.targets.mcu.facts import BOARDS
from tests.conformance.cases import all_cases
from tests.pipeline.test_end_to_end import DATA, MODEL, SPEC, edgesmith, trained
from tests.targets.installed import REGISTRY, target_of

ROOT = Path(__file__).parents[2]
CASES = {case.name: case for case in all_cases()}


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    target_of("cortex-m4")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mcu")
    (folder / "model.py").write_text(MODEL)
    (folder / "data.py").write_text(DATA)
    (folder / "spec.yaml").write_text(
        SPEC.replace("[cpu-litert, cpu-onnxruntime]", '[c-host, "cortex-m4@nrf52840-dk"]').replace(
            "agreement_percent: 95", "agreement_percent: 95, flash_bytes: 40000, ram_bytes: 9000"
        )
    )
    state = {name: value.clone() for name, value in trained().state_dict().items()}
    safetensors.torch.save_file(state, str(folder / "weights.safetensors"))
    return folder


@pytest.fixture(scope="module")
def first_run(project: Path) -> subprocess.CompletedProcess[str]:
    return edgesmith(project, "run", "spec.yaml", "--target", "cortex-m4@nrf52840-dk")


def result(project: Path, target: str) -> DeploymentResult:
    path = project / "runs" / "stripes" / target / "result.json"
    return from_json(DeploymentResult, path.read_bytes())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small convolution as a TFLite file."""
    description = REGISTRY.get("cpu-litert")().describe()
    path = tmp_path / "conv.tflite"
    path.write_bytes(write_tflite(legalize(CASES["conv-relu"].graph, description)))
    return path


def test_a_run_counts_on_the_device(
    first_run: subprocess.CompletedProcess[str], project: Path
) -> None:
    assert first_run.returncode == 0, first_run.stdout + first_run.stderr
    found = result(project, "cortex-m4@nrf52840-dk")
    device = found.device
    assert found.ok
    assert device is not None
    assert device.clock_hz == 64_000_000
    assert device.instructions.kind is Kind.SIMULATED
    assert device.instructions.samples == 8
    assert device.cycles is not None
    assert device.cycles.kind is Kind.ESTIMATED
    assert device.time is not None
    assert device.time.value == pytest.approx(1e3 * device.cycles.value / 64e6)
    layers = sum(layer.instructions for layer in device.layers)
    assert 0 < device.instructions.value - layers < 200
    assert device.flash.value == sum(device.flash_sections.values())
    assert device.flash.value == sum(part.bytes for part in device.flash_parts)
    assert device.arena.value >= device.arena_bound
    assert {slot.role for slot in device.slots} >= {"input", "output"}
    assert {check.name for check in found.budgets} >= {
        "flash",
        "RAM",
        "fits in flash",
        "fits in RAM",
    }
    rates = {row.form: row.accuracy.value for row in found.accuracy}
    assert list(rates) == [
        "float",
        "fake-quantized",
        "onnxruntime",
        "fixed-point",
        "reference",
        "deployed",
    ]
    assert rates["fixed-point"] == rates["reference"] == rates["deployed"]
    edges = {each.edge: each for layer in found.layers for each in layer.drift}
    assert edges["fixed-point → reference"].differing == 0


def test_the_report_draws_it(first_run: subprocess.CompletedProcess[str], project: Path) -> None:
    assert first_run.returncode == 0
    folder = project / "runs" / "stripes" / "cortex-m4@nrf52840-dk"
    page = (folder / "report.html").read_text(encoding="utf-8")
    for heading in ("Memory over time", "Instructions per layer", "Flash map"):
        assert heading in page
    assert (folder / "model.h").is_file()
    assert (folder / "model_data.c").is_file()


def test_c_host_needs_no_device(project: Path, first_run: object) -> None:
    done = edgesmith(project, "run", "spec.yaml", "--target", "c-host")
    assert done.returncode == 1, done.stdout + done.stderr  # flash and RAM were not checked
    found = result(project, "c-host")
    assert found.device is None
    assert found.size[0].metric == "deployed constants"
    assert "flash_bytes was not checked" in found.notes[0]


def test_a_missed_flash_budget_is_exit_code_1(project: Path, first_run: object) -> None:
    spec = (project / "spec.yaml").read_text().replace("flash_bytes: 40000", "flash_bytes: 2000")
    (project / "tight.yaml").write_text(spec.replace("name: stripes", "name: tight"))
    done = edgesmith(project, "run", "tight.yaml", "--target", "cortex-m4@nrf52840-dk")
    assert done.returncode == 1
    found = from_json(
        DeploymentResult,
        (project / "runs/tight/cortex-m4@nrf52840-dk/result.json").read_bytes(),
    )
    assert [check.name for check in found.budgets if not check.met] == ["flash"]


def test_too_little_ram_is_exit_code_1_and_says_where(project: Path, first_run: object) -> None:
    done = edgesmith(project, "run", "spec.yaml", "--target", "cortex-m4,ram=60")
    assert done.returncode == 1
    said = " ".join((done.stdout + done.stderr).split())
    assert "ES430" in said
    assert "more than the 60 there are" in said


def test_a_misspelled_board_is_a_problem_of_the_spec(project: Path) -> None:
    (project / "board.yaml").write_text(
        (project / "spec.yaml").read_text().replace("nrf52840-dk", "nrf52804-dk")
    )
    done = edgesmith(project, "lint", "board.yaml")
    assert done.returncode == 2
    assert "board.yaml:" in done.stdout
    assert "did you mean 'nrf52840-dk'" in done.stdout


def test_compile_leaves_a_library_and_says_what_it_costs(model: Path, tmp_path: Path) -> None:
    done = edgesmith(
        tmp_path, "compile", str(model), "--target", "cortex-m4,vectors=2", "--out", "c"
    )
    assert done.returncode == 0, done.stderr
    assert "instructions" in done.stdout
    assert "(simulated)" in done.stdout
    assert "(estimated)" in done.stdout
    assert (tmp_path / "c" / "model_vectors.h").is_file()
    assert done.stdout.startswith("c, include model.h: deployed image ")
    again = edgesmith(tmp_path, "compile", str(model), "--target", "cortex-m4", "--out", "c")
    assert again.returncode == 3
    assert "not empty" in again.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [("ram=100", "more than the 100 there are"), ("flash=100", "more than the 100 there are")],
)
def test_compile_for_too_small_a_device(
    options: str, words: str, model: Path, tmp_path: Path
) -> None:
    command = ("compile", str(model), "--target", f"cortex-m4,{options}", "--out", "c")
    done = edgesmith(tmp_path, *command)
    assert done.returncode == 1
    assert words in done.stderr
    assert list((tmp_path / "c").iterdir()) == []


def test_an_operator_that_a_target_lacks_is_named_before_any_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(write_onnx(CASES["layer-norm"].graph))
    done = edgesmith(tmp_path, "compile", str(path), "--target", "cpu-litert", "--out", "c")
    assert done.returncode == 3
    assert "ES411" in done.stderr
    assert "LayerNorm 'y'" in done.stderr
    assert list((tmp_path / "c").iterdir()) == []
    done = edgesmith(tmp_path, "compile", str(path), "--target", "c-host", "--out", "c")
    assert done.returncode == 0, done.stderr


def test_a_compiler_error_names_the_log(tmp_path: Path) -> None:
    plan = REGISTRY.get("cortex-m4")().build(CASES["conv-valid"].graph)
    broken = replace(plan, files={**plan.files, "model.c": b"int x = ;\n"})
    with pytest.raises(ToolFailedError, match="failed with exit status 1") as caught:
        execute_plan(broken, tmp_path)
    assert str(tmp_path / "build.log") in caught.value.fix
    assert "model.c:1" in (tmp_path / "build.log").read_text()


def test_what_is_counted_keeps_its_range(model: Path, tmp_path: Path) -> None:
    device = compile_model(model, "cortex-m4,vectors=2", tmp_path / "c").device
    assert device is not None
    assert device.time is not None
    for found in (device.instructions, device.time):
        low, high = (float(each.replace(",", "")) for each in found.conditions["range"].split("to"))
        assert low - 1e-3 <= found.value <= high + 1e-3
    assert device.sources["model_vectors.h"].startswith("inputs")
    assert set(device.sources) <= {path.name for path in (tmp_path / "c").iterdir()}


def test_a_stack_beyond_the_board_does_not_fit(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(BOARDS["nucleo-l4r5zi"], ram_bytes=600)
    monkeypatch.setitem(BOARDS, small.name, small)
    with pytest.raises(DoesNotFitError, match=r"more than the 600 there are: .* of stack") as error:
        compile_model(model, "cortex-m4,ram=600", tmp_path / "c")
    assert "more RAM" in error.value.fix
    assert list((tmp_path / "c").iterdir()) == []


def test_a_failed_compiler_leaves_its_log_and_the_folder_usable(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c"
    with monkeypatch.context() as patched:
        patched.setattr(c_host, "_FLAGS", (*c_host._FLAGS, "--no-such-flag"))
        with pytest.raises(ToolFailedError) as error:
            compile_model(model, "c-host", out)
    assert [path.name for path in out.iterdir()] == ["build.log"]
    assert str(out / "build.log") in error.value.fix
    assert "no-such-flag" in (out / "build.log").read_text()
    assert compile_model(model, "c-host", out).parity.different == 0
    assert "no-such-flag" not in (out / "build.log").read_text()


def test_all_missing_tools_are_named_at_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissingError, match=r"arm-none-eabi-gcc.*qemu-system-arm"):
        compile_model(model, "cortex-m4", tmp_path / "c")


def test_targets_are_listed_with_boards_and_options() -> None:
    text = io.StringIO()
    print_targets(Registries.discovered(), Console(file=text, width=200))
    listed = text.getvalue()
    assert "1,024 KB of flash, 256 KB of RAM, 64 MHz" in listed
    assert all(f"@{name}" in listed for name in BOARDS)
    assert listed.count("plan=speed|memory|bands") == 6


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("chromium", "without: the tests of reports in a browser."),
        ("gcc", "without: microcontroller targets with their tests."),
        ("g++", "without: what benchmarks compile of peers."),
    ],
)
def test_make_says_what_is_left_out(missing: str, said: str, tmp_path: Path) -> None:
    programs = {"mkdir", "touch", "id"}
    for name in programs:
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    made = (
        "chromedriver",
        "chromium",
        "gcc",
        "g++",
        "arm-none-eabi-gcc",
        "qemu-system-arm",
        "clang",
    )
    for name in made:
        if name != missing:
            (tmp_path / name).symlink_to("/bin/true")
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    command = [str(shutil.which("make")), "PYTHON=python3", ".setup/system-packages"]
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert said in done.stderr


@pytest.mark.parametrize("target", ["c-host", "c-host,vectors=2", "cortex-m4@nrf52840-dk"])
def test_make_gets_the_tools_of_any_c_target(target: str) -> None:
    command = ["make", "-n", "-W", "Makefile", "-o", ".venv/ready", "deploy", f"TARGET={target}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "qemu-system-arm" in done.stdout
    assert f"--target {target}" in done.stdout
