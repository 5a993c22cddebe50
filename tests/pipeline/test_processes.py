"""Real processes: killed in mid-stage, two at once on one cache, commands and their exit codes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgesmith.pipeline.errors import ExitCode
from tests.pipeline.world import SPEC, behave, ran, write_spec

ROOT = Path(__file__).parents[2]
ALL = ["make", "count", "fit@plain-board", "report@plain-board"]


def _interruptible() -> None:
    """A parent in the background leaves SIGINT ignored; its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.command", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_interruptible,  # noqa: PLW1509 (one thread here)
    )


def command(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_spec(tmp_path)
    return tmp_path


def test_run_makes_the_run_folder_and_says_so(folder: Path) -> None:
    code, out, err = command(folder, "run", "spec.yaml", "--explain")
    assert (code, err) == (ExitCode.OK, "")
    assert "it never ran for this spec" in out
    assert "plain-board" in out
    assert "runs/small/plain-board/report.html" in out
    place = folder / "runs/small"
    assert {path.name for path in (place / "plain-board").iterdir()} == {
        "result.json",
        "report.html",
        "artifact.bin",
    }
    run = json.loads((place / "run.json").read_text())
    assert [step["stage"] for step in run["steps"]] == ["make", "count", "fit", "report"]
    assert run["targets"][0]["ok"] is True
    code, out, _ = command(folder, "run", "spec.yaml")
    assert code == ExitCode.OK
    assert out.count("cached") == 4


def test_kill_9_in_mid_stage_and_the_same_command_goes_on(folder: Path) -> None:
    behave(folder, "count:hang")
    process = start(folder, "run", "spec.yaml")
    wait_for(folder / "hanging")
    half = list((folder / ".edgesmith/cache/tmp").rglob("half-written"))
    assert len(half) == 1
    process.kill()
    process.communicate()
    assert ran(folder) == ["make", "count"]
    assert half[0].exists()
    behave(folder, "")
    code, _, err = command(folder, "run", "spec.yaml")
    assert (code, err) == (ExitCode.OK, "")
    assert ran(folder) == ["count", "fit@plain-board", "report@plain-board"]
    assert list((folder / ".edgesmith/cache/tmp").iterdir()) == []
    assert not list(folder.rglob("half-written"))


@pytest.mark.parametrize("step", ALL)
def test_kill_9_at_any_step(folder: Path, step: str) -> None:
    behave(folder, f"{step}:kill")
    code, _, _ = command(folder, "run", "spec.yaml")
    assert code == -signal.SIGKILL
    behave(folder, "")
    before = ran(folder)
    assert command(folder, "run", "spec.yaml")[0] == ExitCode.OK
    assert before + ran(folder) == [*ALL[: ALL.index(step)], step, *ALL[ALL.index(step) :]]


def test_two_runs_at_once_do_the_work_once(folder: Path) -> None:
    behave(folder, "make:slow")
    processes = [start(folder, "run", "spec.yaml") for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (ExitCode.OK, "")
    assert sorted(ran(folder)) == sorted(ALL)
    assert (folder / "runs/small/plain-board/report.html").is_file()


def test_a_running_process_keeps_its_place_while_another_starts(folder: Path) -> None:
    behave(folder, "count:hang")
    first = start(folder, "run", "spec.yaml")
    wait_for(folder / "hanging")
    other = SPEC.replace("text: abc", "text: longer")
    (folder / "other.yaml").write_text(other)
    behave(folder, "")
    assert command(folder, "run", "other.yaml", "--out", "other-runs")[0] == ExitCode.OK
    assert len(list((folder / ".edgesmith/cache/tmp").rglob("half-written"))) == 1
    first.kill()
    first.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_said_clearly(folder: Path, number: signal.Signals) -> None:
    behave(folder, "count:hang")
    process = start(folder, "run", "spec.yaml")
    wait_for(folder / "hanging")
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == ExitCode.STAGE_FAILED
    assert err.startswith("interrupted; finished stages are kept")
    assert "Traceback" not in err
    assert list((folder / ".edgesmith/cache/tmp").iterdir()) == []


def test_a_file_size_limit_is_a_full_disk(folder: Path) -> None:
    behave(folder, "make:big")
    process = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.command", "run", "spec.yaml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18)),
    )
    assert process.returncode == ExitCode.STAGE_FAILED
    assert "error ES600: no space left" in process.stderr
    assert "Traceback" not in process.stderr
    behave(folder, "")
    assert command(folder, "run", "spec.yaml")[0] == ExitCode.OK


def test_a_read_only_folder(folder: Path) -> None:
    cache = folder / ".edgesmith"
    if os.geteuid() == 0:  # permissions do not bind root: a file in its place does
        cache.write_text("")
    else:
        cache.mkdir(mode=0o555)
    code, _, err = command(folder, "run", "spec.yaml")
    assert code == ExitCode.STAGE_FAILED
    assert err.startswith("error ES600: cannot use ")
    assert "--cache" in err


def test_exit_codes(folder: Path) -> None:
    missed = SPEC.replace("{accuracy_drop_points: 0.5", "{size_bytes: 1, accuracy_drop_points: 0.5")
    (folder / "missed.yaml").write_text(missed)
    (folder / "wrong.yaml").write_text(SPEC.replace("seed: 7", "sede: 7"))
    assert command(folder, "run", "missed.yaml")[0] == ExitCode.BUDGET_MISSED
    code, out, err = command(folder, "run", "wrong.yaml")
    assert (code, out) == (ExitCode.SPEC_WRONG, "")
    assert "wrong.yaml:19:1: ES105: unknown key `sede` in the spec" in err
    code, out, _ = command(folder, "lint", "wrong.yaml")
    assert code == ExitCode.SPEC_WRONG
    assert out.startswith("wrong.yaml:19:1: ES105")
    assert command(folder, "lint", "spec.yaml")[:2] == (ExitCode.OK, "spec.yaml: no problems\n")
    assert command(folder, "run")[0] == ExitCode.SPEC_WRONG
    assert command(folder, "run", "none.yaml")[0] == ExitCode.SPEC_WRONG
    code, _, err = command(folder, "run", "spec.yaml", "--target", "x")
    assert code == ExitCode.SPEC_WRONG
    assert "there is no target 'x'" in err
    behave(folder, "make:raise")
    code, _, err = command(folder, "run", "spec.yaml", "--force", "make")
    assert code == ExitCode.STAGE_FAILED
    assert "RuntimeError: something [bold]odd[/bold]" in err


def test_plan_says_what_would_run(folder: Path) -> None:
    code, out, _ = command(folder, "plan", "spec.yaml")
    assert code == ExitCode.OK
    assert out.splitlines()[0].split() == [
        *("make", "run", "it", "never", "ran", "for", "this", "spec")
    ]
    command(folder, "run", "spec.yaml")
    out = command(folder, "plan", "spec.yaml", "--force", "count")[1]
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["make", "cached"],
        ["count", "run"],
        ["fit", "[plain-board]"],
        ["report", "[plain-board]"],
    ]
    assert "depends on count, which will run" in out


def test_report_renders_again(folder: Path) -> None:
    command(folder, "run", "spec.yaml")
    page = folder / "runs/small/plain-board/report.html"
    page.unlink()
    code, out, err = command(folder, "report", "runs/small")
    assert (code, err) == (ExitCode.OK, "")
    pages = ["runs/small/plain-board/report.html", "runs/small/overview.html"]
    assert out.split() == pages
    assert page.read_text().startswith("<!")
    (page.parent / "result.json").write_text("{}")
    code, _, err = command(folder, "report", "runs/small/plain-board")
    assert code == ExitCode.STAGE_FAILED
    assert "ES600" in err
    assert "is no result" in err
    assert command(folder, "report", "nowhere")[0] == ExitCode.STAGE_FAILED


def test_targets_schema_and_version(folder: Path) -> None:
    code, out, _ = command(folder, "targets")
    assert code == ExitCode.OK
    assert "plain-board: A board" in out
    assert "Add" in out
    code, out, _ = command(folder, "schema")
    assert code == ExitCode.OK
    assert '"stage:make"' in out
    code, out, _ = command(folder, "version")
    assert code == ExitCode.OK
    assert out.startswith("edgesmith ")


HEAVY = (
    "import sys\n"
    "from edgesmith.pipeline import cli\n"
    "sys.argv = ['edgesmith', *{arguments!r}]\n"
    "try:\n"
    "    cli.main()\n"
    "finally:\n"
    "    heavy = {{'torch', 'onnx', 'plotly', 'onnxruntime', 'brevitas', 'scipy', 'tensorflow'}}\n"
    "    print('heavy:', sorted(heavy & set(sys.modules)))\n"
)


@pytest.mark.parametrize("arguments", [["lint", "spec.yaml"], ["plan", "spec.yaml"], ["schema"]])
def test_light_commands_import_nothing_heavy(folder: Path, arguments: list[str]) -> None:
    """With the real stages and targets: all that are discovered must be light to import."""
    real = SPEC.replace("stages:\n  - stage: make\n    text: abc\n", "").replace(
        "plain-board", "cpu-litert"
    )
    (folder / "spec.yaml").write_text(real)
    found = subprocess.run(
        [sys.executable, "-c", HEAVY.format(arguments=arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == ExitCode.OK, found.stderr
    assert found.stdout.rstrip().endswith("heavy: []")


SPINS = (
    "import os, sys\n"
    "from edgesmith.pipeline import cli\n"
    "sys.argv = ['edgesmith', 'version']\n"
    "try:\n"
    "    cli.main()\n"
    "finally:\n"
    "    print('spins:', os.environ[cli.SPINNING[0]], 'torch' in sys.modules)\n"
)


@pytest.mark.parametrize(("given", "spins"), [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5")])
def test_waiting_threads_sleep_soon(given: dict[str, str], spins: str) -> None:
    """It is said before torch reads it, and users have the last word."""
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | given
    found = subprocess.run(
        [sys.executable, "-c", SPINS],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"spins: {spins} False" in found.stdout
