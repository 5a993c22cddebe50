"""The search benchmark: its table, what it makes of one, and how its rows are judged."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from edgesmith.nas.genes import offered
from edgesmith.nas.joint import joint_of
from edgesmith.nas.values import ACCURACY
from edgesmith.pipeline.lint import load_spec
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.results import AccuracyRow, DeploymentResult
from edgesmith.pipeline.target_facts import get_target
from edgesmith.quantize.options import PTQOptions
from tests.benchmarks.loading import benchmark
from tests.reports.sample import Sample, measured
from tests.reports.search_sample import searched_result

bench = benchmark("search")
curves = benchmark("searching.curves")
devices = benchmark("searching.devices")
example = benchmark("searching.example")
ray_workers = benchmark("searching.ray_workers")
recorded = benchmark("searching.recorded")
sampled = benchmark("searching.samplers")
predicted = benchmark("searching.predictors")
step = benchmark("searching.step")
deployments = benchmark("deployments")

REGISTRIES = Registries.discovered()
BITS = {"int8": 8, "int4": 4}


def made_up(candidate: tuple[int, ...]) -> dict[str, float]:
    """Accuracy that every choice costs something of, and costs that add up."""
    chosen = recorded.SPACE.choices(candidate)
    widths = {
        name: int(chosen[f"width:{name}"]) / most[0] for name, most in recorded.WIDTHS.items()
    }
    bits = sum(BITS[str(chosen[name])] for name in recorded.LAYERS)
    size = sum(widths.values()) + int(chosen["depth:features.1"])
    lost = sum((1 - share) ** 2 for share in widths.values()) + (24 - bits) / 20
    return {
        ACCURACY: 90 - 8 * lost,
        "instructions": 1e6 * size,
        "flash": 1e3 * size * bits,
        "macs": 1e6 * size,
        "bit-operations": 1e6 * size * bits,
        "weight-bytes": 1e2 * size * bits,
    }


@pytest.fixture(scope="module")
def problem() -> Any:
    rows = [made_up(each) for each in recorded.candidates()]
    metrics = tuple(sorted(rows[0]))
    values = np.array([[row[name] for name in metrics] for row in rows])
    return sampled.Problem.of(recorded.Table(metrics, values))


def test_every_candidate_of_the_table_is_one_of_the_super_network() -> None:
    model = deployments.example("models").image_classification()
    target = get_target(recorded.TARGET).describe()
    formats = offered(recorded.FORMATS, ("int8",), [target])
    joint = joint_of(
        model.eval(), (3, 32, 32), formats, PTQOptions(), divisor=target.channel_divisor
    )
    every = recorded.candidates()
    assert len(every) == 6804
    own = {joint.genes.space.of(recorded.choices(each)) for each in every}
    assert len(own) == len(every)
    whole = recorded.choices((0,) * len(recorded.SPACE.genes))
    assert joint.genes.space.of(whole) == (0,) * len(joint.genes.space.genes)
    named = {layer for layers in recorded.LAYERS.values() for layer in layers}
    assert named == set(joint.genes.layers), "no layer's format is left out"


def test_a_table_that_is_missing_or_another_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is missing"):
        recorded.Table.read(tmp_path / "none.npz")
    recorded.Table(("accuracy",), np.zeros((3, 1))).write(tmp_path / "few.npz")
    with pytest.raises(SystemExit, match="has 3 rows"):
        recorded.Table.read(tmp_path / "few.npz")


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((len(recorded.candidates()), 2))
    recorded.Table(("accuracy", "flash"), values, {"source": "abc"}).write(tmp_path / "all.npz")
    table = recorded.Table.read(tmp_path / "all.npz")
    assert table.recorded == {"source": "abc"}
    assert np.array_equal([list(row.values()) for row in table.rows.values()], values)


def test_the_front_has_all_of_its_hypervolume_and_uniform_formats_less(problem: Any) -> None:
    assert problem.reached(problem.front) == pytest.approx(1.0)
    assert problem.reached(problem.losses) == pytest.approx(1.0)
    for weight in recorded.FORMATS:
        assert 0 < problem.uniform(weight) < 1


def test_linas_is_above_its_baselines_on_what_was_recorded() -> None:
    """One seed of the benchmark's five, and fewer evaluations."""
    problem = sampled.Problem.of(recorded.Table.read())
    ours, *theirs = (
        problem.curve(name, 0, evaluations=100)[-1]
        for name in ("linas", "sequential", "nsga2", "random")
    )
    assert ours > max(theirs)
    assert ours > problem.uniform("int8")


def test_searches_climb_and_are_asked_nothing_that_is_not_in_the_table(
    problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled, "EVALUATIONS", 60)
    task = problem.task(0, 60)
    curve = sampled._searched(sampled.samplers().get("random")(), task, problem.rows)
    assert curve.shape == (60, 3)
    climbed = [problem.reached(curve[:count]) for count in (10, 30, 60)]
    assert climbed == sorted(climbed)


def test_curves_are_plotted(tmp_path: Path) -> None:
    runs = {"linas": [[0.1, 0.5], [0.2, 0.6]], "random": [[0.1, 0.2], [0.1, 0.3]]}
    path = curves.plot(runs, {"best in uniform int8": 0.4}, tmp_path / "plot.html")
    text = path.read_text()
    assert "best in uniform int8" in text
    assert 'src="http' not in text, "it opens offline"


def test_evaluations_are_counted_to_a_share_of_the_front() -> None:
    assert sampled._needed([0.1, 0.8, 0.9, 0.95]) == 3
    assert sampled._needed([0.1, 0.2]) == 3, "never"


def test_predictors_are_judged_on_what_they_have_not_seen(
    problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicted, "SEEDS", range(1))
    rows = {row.id: row for row in predicted._rows(problem)}
    assert len(rows) == 4 * len(sampled.OBJECTIVES)
    label = "Kendall's tau of accuracy, learned from 100"
    assert rows[label].value > 0.85
    above = rows[f"{label}, above the proxy"]
    assert above.value == (rows[label].value > rows[f"{label}, of the proxy"].value)


def found(instructions: float, flash: float, percent: float) -> DeploymentResult:
    """A deployment of a search."""
    made = searched_result(Sample(device=True))
    result, device = made.search, made.device
    assert result is not None
    assert result.chosen is not None
    assert device is not None
    trials = tuple(
        replace(each, metrics={**each.metrics, "weight-bytes": 100.0}) for each in result.trials
    )
    again = measured("instructions", 1.0, "instructions", 1)
    result = replace(
        result,
        trials=trials,
        remeasured={result.chosen: {"instructions": again}},
        references={"uniform int8": {"weight-bytes": 400.0}},
    )
    row = AccuracyRow("deployed", measured("accuracy", percent, "%", 1000))
    device = replace(
        device,
        instructions=measured("instructions", instructions, "instructions", 1),
        flash=measured("flash", flash, "bytes", 1),
    )
    return replace(made, accuracy=(row,), search=result, device=device)


INT8 = (4e6, 4e4, 99.0)  # instructions, bytes of flash, percent
GOOD = (2e6, 2e4, 99.0)


@pytest.mark.parametrize(
    ("group", "small", "missed"),
    [
        ("keywords", [GOOD, GOOD, GOOD], []),
        ("keywords", [(2e6, 2e4, 98.0), (2e6, 2e4, 99.5), (2e6, 2e4, 99.5)], []),
        ("keywords", [(2e6, 2e4, 98.5), GOOD, (2e6, 2e4, 99.4)], ["below full INT8"]),
        ("keywords", [GOOD, (2.1e6, 2e4, 99.0), (1e6, 2e4, 99.0)], ["has fewer instructions"]),
        (
            "keywords",
            [GOOD, GOOD, (2.1e6, 2.1e4, 98.9)],
            ["below full INT8", "has fewer instructions", "has smaller"],
        ),
        ("images", [(2.6e6, 2e4, 98.5)], []),
        ("images", [(2.7e6, 2e4, 98.4)], ["below full INT8", "has fewer instructions"]),
    ],
)
def test_what_a_search_brings_is_judged_by_the_mean_accuracy_and_the_least_gain(
    group: str,
    small: list[tuple[float, float, float]],
    missed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specs = []

    def deploy(spec: Path, folder: Path) -> dict[str, DeploymentResult]:
        read = load_spec(spec, REGISTRIES)
        specs.append((read.seed, read.has_stage("search")))
        return {devices.CORE: found(*(small[read.seed] if specs[-1][1] else INT8))}

    monkeypatch.setattr(devices, "deploy", deploy)
    rows = list(getattr(devices, group)(tmp_path))
    names = [row.id.partition(": found ")[2] for row in rows if row.missed]
    assert names == missed
    assert specs == [(seed, searched) for seed in range(len(small)) for searched in (False, True)]
    assert sum("seed" in row.id for row in rows) == (2 * len(small) if len(small) > 1 else 0)


def test_the_example_is_copied_without_what_runs_left(tmp_path: Path) -> None:
    folder = example._copied(tmp_path / "once")
    assert load_spec(folder / example.SPEC, REGISTRIES).has_stage("search")
    assert not list(folder.rglob(".edgesmith"))
    assert not example._killed(tmp_path / "none", 30.0), "a run that ends is not killed"


def test_held_memory_is_what_lives_at_the_same_time() -> None:
    def one_after_the_other() -> None:
        for _ in range(4):
            torch.zeros(1 << 20)

    def together() -> None:
        [torch.zeros(1 << 20) for _ in range(4)]

    assert step._held(one_after_the_other) == 4 << 20
    assert step._held(together) == 16 << 20


@pytest.mark.parametrize("kind", step.KINDS)
def test_an_epoch_is_measured_in_a_process_of_its_own(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the environment that a run with a search has, where it trains a super-network."""
    noted = tmp_path / "noted.py"
    noted.write_text(
        "import json, os, sys\n"
        "name = 'ONEDNN_PRIMITIVE_CACHE_CAPACITY'\n"
        "print(json.dumps({'seconds': 1.0, 'peak': float(os.environ.get(name, 0))}))\n"
    )
    monkeypatch.setattr(step, "__file__", str(noted))
    expected = 32.0 if kind == step.SHARED else 0.0
    assert step._measured("KWS", kind) == {"seconds": 1.0, "peak": expected}


def test_peaks_and_seconds_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def epoch() -> None:
        torch.ones(1 << 24)  # 64 MB

    monkeypatch.setattr(step, "_epoch", lambda *_: epoch)
    found = step._trained("KWS", step.PLAIN)
    assert 60_000 < found["growth"] <= found["peak"]
    assert found["seconds"] > 0


def test_one_slow_process_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor when the machine is slow for a while: both kinds take turns."""
    slow = iter([1.0, 1.0, 9.0, 1.0, 1.0, 9.0, 3.0, 3.0, 1.0, 1.0])

    def measured(name: str, kind: str) -> dict[str, float]:
        return {"seconds": next(slow) * (1.0 if kind == step.PLAIN else 4.0)}

    monkeypatch.setattr(step, "_measured", measured)
    assert step._ratios("KWS") == {"seconds": 4.0}


def test_workers_of_a_cluster_share_the_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudpickle: Any = pytest.importorskip("ray.cloudpickle")
    module = sys.modules[ray_workers.__name__]
    cloudpickle.register_pickle_by_value(module)  # workers do not find it otherwise
    for name, value in {"WORKERS": 2, "SLEEP_MS": 1, "TASKS_PER_WORKER": 2}.items():
        monkeypatch.setattr(ray_workers, name, value)
    try:
        (row,) = ray_workers.ray_workers(tmp_path)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert 0.1 < row.value < 2.5
    assert not ray.is_initialized()


def test_an_unknown_group_is_said() -> None:
    with pytest.raises(SystemExit, match="no group nothing"):
        bench.main(["nothing"])
