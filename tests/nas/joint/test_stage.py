"""The stage `search` through the command line: from a trained model to a deployed candidate."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgesmith.nas.stored import load_result
from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.lint import check_source
from edgesmith.pipeline.problems import ProblemCode
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.spec_source import read_source
from edgesmith.pipeline.target_facts import get_target
from edgesmith.quantize.qat.values import load_result as qat_result
from tests.pipeline.test_end_to_end import edgesmith
from tests.prune.test_stage import PRUNED, outputs, project

SEARCH = """
  - stage: search
    target: TARGET
    evaluations: 16
    tolerance_points: 20
    minimize: [METRIC]
    formats: {weights: [int8, int4]}
    elasticity: {widths: 3}
    training: {epochs: 2, batch_size: 32, learning_rate: 0.003, drawn: 1}
"""
FEWER = ("evaluations: 16", "evaluations: 6")
ON_RAY = "executor: ray\n    executor_options: {workers: 2, resources: {CPU: 0.5}}"


def searching(
    folder: Path, target: str, metric: str, changes: tuple[tuple[str, str], ...] = ()
) -> Path:
    """A project whose spec searches where that of pruning prunes."""
    folder.mkdir(exist_ok=True)
    project(folder, target)
    head, _, rest = PRUNED.partition("  - stage: prune")
    measure = rest[rest.index("  - {stage: measure") :]
    text = (head.rstrip() + SEARCH + measure).replace("TARGET", target).replace("METRIC", metric)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "spec.yaml").write_text(text)
    return folder


def needs(target: str) -> None:
    for tool in get_target(target).tools():
        if tool.find() is None:
            pytest.skip(f"{target} needs {tool.name}: {tool.install}")


@pytest.mark.parametrize(
    ("target", "metric"),
    [("cpu-litert", "time"), ("c-host", "weight-bytes"), ("cortex-m4", "instructions")],
)
def test_a_search_ends_in_a_deployed_candidate(target: str, metric: str, tmp_path: Path) -> None:
    needs(target)
    changes = {
        "cpu-litert": (("{widths: 3}", "{widths: 3, overrides: [{name: width:conv1}]}"),),
        "c-host": (("    evaluations", "    executor: pool\n    judge: loss\n    evaluations"),),
    }
    folder = searching(tmp_path, target, metric, changes.get(target, ()))
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = from_json(DeploymentResult, (folder / f"runs/bars/{target}/result.json").read_bytes())
    forms = [row.form for row in found.accuracy]
    assert forms[:3] == ["float", "sub-network", "fake-quantized"]
    assert found.parity is not None
    assert found.parity.different == 0
    result = load_result(outputs(folder, "search"))
    assert len(result.trials) == 16
    assert len({tuple(trial.choices.items()) for trial in result.trials}) == 16
    assert result.objectives[0].metric == ("loss" if target == "c-host" else "accuracy")
    assert result.objectives[1].metric == metric
    assert ("width:conv1" in result.trials[0].choices) == (target != "cpu-litert")
    assert ("conv1" in result.frozen) == (target == "cpu-litert")
    assert result.chosen in result.front
    assert result.chosen in result.remeasured
    assert result.proven.keys() == result.remeasured.keys()
    assert min(result.proven.values()) > 4
    front = folder / f"runs/bars/{target}/front"
    assert {each.name for each in front.iterdir()} == {f"candidate-{n}" for n in result.proven}
    assert all(any(each.iterdir()) for each in front.iterdir())
    chosen, whole = result.trials[result.chosen].metrics, result.references["uniform int8"]
    assert chosen[metric] <= whole[metric]
    assert result.references["float"].keys() == {"accuracy"}
    kinds = {"cpu-litert": "measured", "c-host": "measured", "cortex-m4": "simulated"}
    assert result.kinds[metric] == kinds[target]
    if target == "cortex-m4":
        assert result.kinds["cycles"] == "estimated"
    assert f"searched 16 of 10^{result.log10_size:.0f} candidates" in "\n".join(found.notes)


@pytest.mark.parametrize("finetune", ["null", "{epochs: 2, batch_size: 32}"])
def test_finalists_are_trained_and_the_integers_of_the_choice_ship(
    finetune: str, tmp_path: Path
) -> None:
    """What training gave in the search, the stage `quantize` gives again: the same accuracy of the
    same integers, on the same samples; the choice is not trained twice.
    """
    changes = (
        ("minimize:", f"scored: 48\n    finalists: 2\n    finetune: {finetune}\n    minimize:"),
        ("  - {stage: measure", "  - {stage: quantize, qat: {epochs: 2}}\n  - {stage: measure"),
    )
    folder = searching(tmp_path, "c-host", "weight-bytes", changes)
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    result = load_result(outputs(folder, "search"))
    searched, confirmed, trained = result.rungs
    assert (searched.samples, confirmed.samples, trained.samples) == (48, 96, 96)
    assert set(result.front) <= set(confirmed.accuracy)
    assert result.chosen in trained.accuracy
    assert result.chosen is not None
    after = qat_result(outputs(folder, "quantize"))
    assert after is not None
    assert after.after == trained.accuracy[result.chosen]
    assert trained.loss.keys() == trained.accuracy.keys()
    assert result.chosen_metrics["loss"] == trained.loss[result.chosen]
    # `quantize` found what the search had trained: it began no other training.
    shapes = {
        tuple(value for value in result.trials[number].choices.values() if isinstance(value, int))
        for number in trained.accuracy
    }
    files = [*(folder / ".edgesmith/trainings").glob("*/*.pt")]
    tuned = 0 if finetune == "null" else len(shapes)
    assert len(files) == len(trained.accuracy) + tuned
    run = folder / "runs/bars/c-host"
    member = (run / f"front/candidate-{result.chosen}/model_data.c").read_text()
    assert member.replace("candidate", "model") == (run / "model_data.c").read_text()
    report = (folder / "runs/bars/c-host/report.html").read_text()
    assert "From many candidates to one" in report
    for name in ("trials", "confirmed", "trained"):
        assert (outputs(folder, "search") / f"{name}.jsonl").exists()


def test_a_search_on_a_cluster_finds_what_one_process_finds(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    alone, there = (
        searching(tmp_path / name, "c-host", "weight-bytes", changes)
        for name, changes in (
            ("alone", (FEWER,)),
            ("there", (FEWER, ("    minimize", f"    {ON_RAY}\n    minimize"))),
        )
    )
    for folder in (alone, there):
        done = edgesmith(folder, "run", "spec.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
    first, second = (load_result(outputs(folder, "search")) for folder in (alone, there))
    assert first == second


def checkpoints(folder: Path) -> int:
    """Of super-networks that are in training."""
    return len([*(folder / ".edgesmith/super-networks").glob("*/*/training.pt")])


def evaluated(folder: Path) -> int:
    """Whole lines of trials in the archives."""
    files = (folder / ".edgesmith/super-networks").glob("*/*/evaluations/*/*.jsonl")
    lines = [line for each in files for line in each.read_bytes().splitlines(keepends=True)]
    return sum(line.startswith(b'{"trial"') and line.endswith(b"}\n") for line in lines)


def killed_at(count: int, of: Callable[[Path], int], folder: Path) -> None:
    """Run, and kill as soon as there are so many of something."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgesmith", "run", "spec.yaml"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    ends = time.monotonic() + 120
    while of(folder) < count and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.002)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert of(folder) >= count, "it did not come so far in two minutes"


def test_a_search_that_is_killed_again_and_again_finds_the_same(tmp_path: Path) -> None:
    """While the super-network is trained, and twice among the evaluations; what is done is not done
    again.
    """
    longer = (("{epochs: 2", "{epochs: 4"),)
    once, often = (
        searching(tmp_path / name, "c-host", "weight-bytes", longer) for name in ("once", "often")
    )
    assert edgesmith(once, "run", "spec.yaml").returncode == 0
    killed_at(1, checkpoints, often)
    networks = often / ".edgesmith/super-networks"
    assert not any(networks.glob("*/*/network.safetensors")), "training was over"
    written = b""
    for trials in (2, 6):
        killed_at(trials, evaluated, often)
        assert evaluated(often) < 16, "the search was over"
        (archive,) = networks.glob("*/*/evaluations/*/*.jsonl")
        assert archive.read_bytes().startswith(written)
        written = archive.read_bytes()
    assert edgesmith(often, "run", "spec.yaml").returncode == 0
    assert archive.read_bytes().startswith(written)
    assert evaluated(often) == 16, "none of them twice"
    first, second = (load_result(outputs(folder, "search")) for folder in (once, often))
    assert first == second


def test_limits_can_be_changed_without_another_training(tmp_path: Path) -> None:
    """What nothing keeps is said; the super-network stays for whoever asks for less."""
    limited = ("tolerance_points: 20", "tolerance_points: 20\n    limits: {weight-bytes: 3}")
    part = ("minimize:", "scored: 48\n    minimize:")
    folder = searching(tmp_path, "c-host", "weight-bytes", (limited, part, FEWER))
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "ES365" in said
    assert "the nearest miss has weight-bytes" in said
    (network,) = (folder / ".edgesmith/super-networks").glob("*/*/network.safetensors")
    written = network.stat().st_mtime_ns
    spec = folder / "spec.yaml"
    spec.write_text(spec.read_text().replace("limits: {weight-bytes: 3}", "limits: {macs: 1e9}"))
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [*(folder / ".edgesmith/super-networks").glob("*/*/*.safetensors")] == [network]
    assert network.stat().st_mtime_ns == written
    places = {each.parent for each in network.parent.glob("evaluations/*/*.jsonl")}
    counts = sorted(len([*each.glob("*.jsonl")]) for each in places)
    assert counts == [1, 2], "of the part both, which share evaluations; of all samples the second"


def test_ram_is_a_limit_like_others(tmp_path: Path) -> None:
    """Where nothing fits, the nearest miss says by how much."""
    needs("cortex-m4")
    name = "cortex-m4,ram=100"
    quoted = (f"[{name}]", f'["{name}"]')
    folder = searching(tmp_path, name, "instructions", (quoted, FEWER))
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "ES365" in said
    assert re.search(r"the nearest miss has arena [0-9]+ against 100", said)


def test_a_front_of_exported_files_is_deployed_too(tmp_path: Path) -> None:
    """The target runs the exported file as it is, and builds nothing of its own."""
    folder = searching(
        tmp_path,
        "cpu-onnxruntime-fp8",
        "weight-bytes",
        (
            FEWER,
            ("[int8, int4]}", "[fp8-e4m3, e3m2], activations: [fp8-e4m3]}"),
            (
                "  - {stage: measure",
                "  - {stage: quantize, weights: fp8-e4m3, activations: fp8-e4m3}\n"
                "  - {stage: measure",
            ),
        ),
    )
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    result = load_result(outputs(folder, "search"))
    assert result.chosen in result.remeasured
    assert all(each.keys() == {"flash", "time"} for each in result.remeasured.values())
    assert min(result.proven.values()) > 4
    assert "weight-bytes" in result.references["uniform fp8-e4m3"]
    assert result.references["uniform int8"].keys() == {"accuracy"}, "the target lacks it"


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        (
            (("training:", "sampler_options: {frist: 3}\n    training:"),),
            "its options are",
            "frist",
        ),
        ((("{widths: 3}", "{exclude: ['*']}"),), "ES361", "nothing"),
    ],
)
def test_what_cannot_be_searched_is_said(
    changes: tuple[tuple[str, str], ...], code: str, says: str, tmp_path: Path
) -> None:
    folder = searching(tmp_path, "c-host", "weight-bytes", changes)
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert code in said
    assert says in said


@pytest.mark.parametrize(
    ("old", "new", "guess"),
    [
        ("evaluations: 16", "sampler: linsa", "linas"),
        ("evaluations: 16", "executor: rey", "ray"),
        ("evaluations: 16", "importance: tailor", "taylor"),
        ("drawn: 1", "strategy: fliq", "fliqs"),
    ],
)
def test_lint_names_misspelled_members(tmp_path: Path, old: str, new: str, guess: str) -> None:
    folder = searching(tmp_path, "c-host", "weight-bytes", ((old, new),))
    source = read_source(folder / "spec.yaml")
    spec, (problem,) = check_source(source, Registries.discovered())
    assert spec is None
    assert problem.code is ProblemCode.BAD_VALUE
    there = source.text.splitlines()[problem.line - 1][problem.column - 1 :]
    assert there.startswith(new.partition(": ")[2])
    assert f"did you mean `{guess}`?" in problem.suggestion


def test_lint_names_costs_that_there_are_not(tmp_path: Path) -> None:
    limited = ("tolerance_points: 20", "tolerance_points: 20\n    limits: {flahs: 3}")
    folder = searching(tmp_path, "c-host", "weight-bytes", (limited,))
    source = read_source(folder / "spec.yaml")
    _, (problem,) = check_source(source, Registries.discovered())
    assert problem.code is ProblemCode.UNKNOWN_KEY
    assert problem.message == "unknown key `flahs` in `limits`"
    assert problem.suggestion == "did you mean `flash`?"
    assert source.text.splitlines()[problem.line - 1][problem.column - 1 :].startswith("flahs")


def test_lint_names_a_rule_that_nothing_is_judged_by(tmp_path: Path) -> None:
    """By the objectives of the spec: the loss is none where accuracy judges."""
    for judge, other in (("accuracy", "loss"), ("loss", "accuracy")):
        ruled = ("tolerance_points: 20", f"judge: {judge}\n    choose: best:{other}")
        folder = searching(tmp_path, "c-host", "macs", (ruled,))
        source = read_source(folder / "spec.yaml")
        _, (problem,) = check_source(source, Registries.discovered())
        assert f"`best:{other}` is best in nothing" in problem.message
        assert problem.suggestion == f"write knee or best:{judge} or best:macs"
        there = source.text.splitlines()[problem.line - 1][problem.column - 1 :]
        assert there == f"best:{other}"


def test_lint_names_costs_and_splits_that_are_missing_and_conflicts(tmp_path: Path) -> None:
    folder = searching(tmp_path, "c-host", "instructions")
    done = edgesmith(folder, "lint", "spec.yaml")
    assert done.returncode == 2
    assert "has no cost model, so nothing gives its instructions" in done.stdout + done.stderr
    text = (folder / "spec.yaml").read_text()
    (folder / "spec.yaml").write_text(text.replace("    minimize: [instructions]\n", ""))
    done = edgesmith(folder, "lint", "spec.yaml")
    assert done.returncode == 2
    assert "has no cost model, so nothing says what is small" in done.stdout + done.stderr
    both = text.replace("  - {stage: measure", "  - {stage: allocate}\n  - {stage: measure")
    (folder / "spec.yaml").write_text(both)
    done = edgesmith(folder, "lint", "spec.yaml")
    assert "`search` and `allocate` would both choose" in done.stdout + done.stderr
    line = next(each for each in text.splitlines() if each.strip().startswith("train:"))
    (folder / "spec.yaml").write_text(text.replace(line + "\n", ""))
    done = edgesmith(folder, "lint", "spec.yaml")
    assert "lacks the split `train`: the super-network learns on it" in done.stdout + done.stderr
