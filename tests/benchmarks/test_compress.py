"""The compression benchmark: every spec that it writes is valid, and its rows are judged."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgesmith.pipeline.lint import load_spec
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.results import (
    AccuracyRow,
    DeploymentResult,
    LayerFormats,
    LayerRow,
    Parity,
)
from edgesmith.quantize.options import ACTIVATION_FORMATS, WEIGHT_FORMATS
from tests.benchmarks.loading import benchmark
from tests.reports.sample import bare_result, measured

compress = benchmark("compress")
formats = benchmark("compression.formats")
mixed = benchmark("compression.mixed")
pruning = benchmark("compression.pruning")
qat = benchmark("compression.qat")
trained = benchmark("compression.trained")
deployments = benchmark("deployments")

REGISTRIES = Registries.discovered()
FORMATS = LayerFormats("int8", "int8", "int8", True, 576, 0, 576)
LAYER = LayerRow(0, "conv", "Conv2D", (1, 4, 4, 8), 8, 8, 1000, 600, formats=FORMATS)


def made_up(floating: float = 75.0, deployed: float = 75.0, scored: float = 75.0) -> Any:
    forms = {"float": floating, "fake-quantized": scored, "deployed": deployed}
    accuracy = tuple(
        AccuracyRow(form, measured("accuracy", value, "%", 5000)) for form, value in forms.items()
    )
    return replace(bare_result(), accuracy=accuracy, parity=Parity(9, 0, ()), layers=(LAYER,))


class Deployments:
    """In place of `deploy`: checks the spec, and gives what was made up."""

    def __init__(self, result: DeploymentResult) -> None:
        self.result = result
        self.names: list[str] = []

    def __call__(self, spec: Path, folder: Path, *targets: str) -> dict[str, DeploymentResult]:
        loaded = load_spec(spec, REGISTRIES)
        assert spec.stem == loaded.name
        self.names.append(loaded.name)
        return dict.fromkeys(loaded.targets, self.result)


def test_what_ships_is_compared_with_the_targets_own_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = made_up(scored=75.2)
    exact = AccuracyRow("fixed-point", measured("accuracy", 75.0, "%", 5000))
    result = replace(other, accuracy=(*other.accuracy, exact))
    made, _ = rows(formats.formats, result, monkeypatch, tmp_path)
    found = {row.id: row for row in made}
    (judged,) = [row for name, row in found.items() if "the target's rounding" in name]
    (ideal,) = [row for name, row in found.items() if "ONNX's rounding" in name]
    assert judged.value == 0
    assert judged.goal == 0.1
    assert ideal.value == pytest.approx(0.2)


def rows(group: Any, result: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    deploy = Deployments(result)
    monkeypatch.setattr(sys.modules[group.__module__], "deploy", deploy)
    made = list(group(folder))
    return made, deploy.names


def test_all_formats_are_valid_specs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, names = rows(formats.formats, made_up(), monkeypatch, tmp_path)
    assert len(names) == len(set(names)) == 2 * len(formats.JUDGED) + len(formats.SWEEP)
    assert not any(row.missed for row in made)
    assert next(row for row in made if row.id.endswith("tensors compared")).value == 9 * len(names)


def test_every_format_of_specs_is_deployed() -> None:
    stages = [each.stage for each in (*formats.JUDGED.values(), *formats.SWEEP)]
    assert {stage["weights"] for stage in stages} == set(WEIGHT_FORMATS)
    assert {stage["activations"] for stage in stages} >= set(ACTIVATION_FORMATS)


@pytest.mark.parametrize(
    ("result", "missed"),
    [
        (made_up(floating=75.4), 4),
        (made_up(floating=77.0), 6),
        (made_up(scored=75.2), 1),
        (replace(made_up(), parity=Parity(9, 1, ())), 1),
    ],
)
def test_losses_and_differences_miss_their_goals(
    result: Any, missed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = rows(formats.formats, result, monkeypatch, tmp_path)
    assert len([row for row in made if row.missed]) == missed


def test_a_deployment_without_parity_is_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="without a parity report"):
        rows(formats.formats, replace(made_up(), parity=None), monkeypatch, tmp_path)


def test_mixed_precision_runs_every_seed_of_learned_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, names = rows(mixed.mixed, made_up(), monkeypatch, tmp_path)
    assert sum("mixed-learned" in name for name in names) == len(mixed.SEEDS)
    # The same bytes as INT8 are no share of 60 %.
    assert {row.id.rpartition(": ")[2] for row in made if row.missed} == {
        "mixed, share of INT8's weight bytes"
    }


def test_qat_is_judged_against_the_float_model_that_it_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "ic.safetensors"
    checkpoint.write_bytes(b"")
    start = trained.Trained(None, checkpoint, None, None, None, 80.0, 5.0)
    monkeypatch.setattr(qat, "trained", lambda folder: start)
    made, _ = rows(qat.qat, made_up(floating=80.0, deployed=79.4), monkeypatch, tmp_path)
    assert [row.id for row in made if row.missed] == ["IC: W4A8, QAT, below float"]
    made, _ = rows(qat.qat, made_up(floating=80.0, deployed=79.6), monkeypatch, tmp_path)
    assert not any(row.missed for row in made)


def test_pruning_measures_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "ic.safetensors"
    checkpoint.write_bytes(b"")
    start = trained.Trained(None, checkpoint, None, None, None, 80.0, 5.0)
    deploy = Deployments(made_up())
    monkeypatch.setattr(pruning, "deploy", deploy)
    pruning._pruned(tmp_path, start)
    pruning._unpruned(tmp_path, start)
    assert deploy.names == ["ic-pruned", "ic-whole"]
    assert pruning.OPTIONS.trials is not None
    assert (tmp_path / "ic-pruned.yaml").read_text().count(str(checkpoint)) == 1


def test_a_variant_reads_the_examples_own_files(tmp_path: Path) -> None:
    stages = [{"stage": "quantize"}]
    path = deployments.variant("ic", "ic-a", tmp_path, stages, ["cpu-litert"], seed=3)
    spec = load_spec(path, REGISTRIES)
    assert spec.seed == 3
    assert str(deployments.EXAMPLES) in path.read_text()


def test_unknown_groups_and_missing_data_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no group formatz; choose of formats, mixed"):
        compress.main(["formatz"])
    monkeypatch.delenv("EDGESMITH_DATA", raising=False)
    with pytest.raises(SystemExit, match="EDGESMITH_DATA"):
        compress.main([])
