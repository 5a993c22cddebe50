"""The stage `allocate` in whole runs: what it writes, what `quantize` makes of it, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch

from edgesmith.pipeline.errors import (
    EdgesmithError,
    QuantizationError,
    SpecError,
    UnreachableBudgetError,
)
from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.lint import load_spec
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.results import Parity
from edgesmith.pipeline.run_folder import read_result
from edgesmith.quantize.allocation.allocate import Allocation
from edgesmith.quantize.allocation.values import Figure
from edgesmith.quantize.searched import Searched
from tests.pipeline.test_end_to_end import DATA, MODEL, edgesmith, trained

SPEC = """
spec_version: 1
name: stripes
model:
  {{kind: torch, factory: model.py:make, checkpoint: weights.safetensors, input_shape: [1, 8, 8]}}
data:
  train: {{factory: data.py:split, args: {{seed: 0}}}}
  calibration: {{factory: data.py:split, args: {{seed: 1}}}}
  selection: {{factory: data.py:split, args: {{seed: 2}}}}
  test: {{factory: data.py:split, args: {{seed: 3}}}}
stages:
  - {{stage: measure, runs: 100, warmups: 10}}
  - {{stage: quantize, ranges: min-max{quantize}}}
  - {{stage: allocate{allocate}}}
targets: [cpu-litert]
"""


@pytest.fixture(scope="module")
def weights() -> dict[str, object]:
    return {name: value.clone() for name, value in trained().state_dict().items()}


def project(folder: Path, weights: dict[str, object], allocate: str, quantize: str = "") -> Path:
    (folder / "model.py").write_text(MODEL)
    (folder / "data.py").write_text(DATA)
    (folder / "spec.yaml").write_text(SPEC.format(allocate=allocate, quantize=quantize))
    safetensors.torch.save_file(weights, str(folder / "weights.safetensors"))  # type: ignore[arg-type]
    return folder


def output(folder: Path, name: str) -> Path:
    """What a stage left; files that later stages copied are equal."""
    return min((folder / ".edgesmith").rglob(name))


def test_allocated_formats_are_quantized_deployed_and_reported(
    tmp_path: Path, weights: dict[str, object]
) -> None:
    given = ", budget_share: {weight-bytes: 0.7}, measure_front: true, points: null"
    folder = project(tmp_path, weights, given)
    ran = edgesmith(folder, "run", "spec.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = from_json(Allocation, output(folder, "allocation.json").read_bytes())
    figure = from_json(Figure, output(folder, "figure.json").read_bytes())
    assert found.figure == figure
    assert all(each.accuracy is not None for each in (*figure.front, *figure.uniform))
    searched = Searched.load(output(folder, "searched.json").parent)
    stored = 0
    for name, formats in found.policy.groups.items():
        if formats.weight is not None:
            tensor = searched[f"{name}.weight"]
            assert tensor.dtype == formats.weight.name
            assert tensor.codes is not None
            stored += tensor.codes.size * formats.weight.bits // 8
    assert stored == found.solution.costs["weight-bytes"] <= found.budget["weight-bytes"]
    parity = from_json(Parity, output(folder, "parity.json").read_bytes())
    assert parity.compared > 0
    result = read_result(folder / "runs" / "stripes" / "cpu-litert")
    assert result.allocation == figure
    shown = {row.name: row.formats for row in result.layers if row.formats and row.weight_bits}
    for name, chosen in found.policy.groups.items():
        if chosen.weight is not None:
            deployed = next(each for layer, each in shown.items() if layer.startswith(name))
            codes = searched[f"{name}.weight"].codes
            assert codes is not None
            assert deployed.weight == chosen.weight.name
            assert (deployed.weights, deployed.zeros) == (codes.size, int((codes == 0).sum()))
    page = (folder / "runs" / "stripes" / "cpu-litert" / "report.html").read_text()
    assert 'id="plot-front"' in page
    assert 'id="plot-formats"' in page
    assert 'id="plot-targets"' in (folder / "runs" / "stripes" / "overview.html").read_text()
    again = edgesmith(folder, "report", "runs/stripes")
    assert "overview.html" in again.stdout


def test_training_keeps_the_allocated_formats(tmp_path: Path, weights: dict[str, object]) -> None:
    given = ", budget_share: {weight-bytes: 0.7}"
    folder = project(tmp_path, weights, given, ", qat: {epochs: 1}")
    ran = edgesmith(folder, "run", "spec.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = from_json(Allocation, output(folder, "allocation.json").read_bytes())
    measured = [each for each in found.figure.front if each.accuracy is not None]
    assert len(measured) == min(5, len(found.figure.front))  # without being asked for
    chosen = {n: f.weight.name for n, f in found.policy.groups.items() if f.weight is not None}
    assert set(chosen.values()) == {"int4", "int8"}
    trained = Searched.load(output(folder, "qat.json").parent)
    assert {name: trained[f"{name}.weight"].dtype for name in chosen} == chosen
    assert from_json(Parity, output(folder, "parity.json").read_bytes()).different == 0


def test_the_accuracy_bound_is_measured_on_the_selection_split(
    tmp_path: Path, weights: dict[str, object]
) -> None:
    folder = project(tmp_path, weights, ", least_accuracy_percent: 90")
    ran = edgesmith(folder, "run", "spec.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = from_json(Allocation, output(folder, "allocation.json").read_bytes())
    assert found.bisection is not None
    assert found.bisection.met
    assert found.bisection.accuracy >= 90


@pytest.mark.parametrize(
    ("allocate", "quantize", "error", "message"),
    [
        (", budget: {weight-bytes: 5}", "", UnreachableBudgetError, "nearest reachable is"),
        (
            "",
            ", overrides: [{name: '*', weights: int4}]",
            QuantizationError,
            "would choose formats",
        ),
    ],
)
def test_what_a_run_refuses(
    tmp_path: Path,
    weights: dict[str, object],
    allocate: str,
    quantize: str,
    error: type[EdgesmithError],
    message: str,
) -> None:
    ran = edgesmith(project(tmp_path, weights, allocate, quantize), "run", "spec.yaml")
    assert ran.returncode == int(error.exit_code)
    assert error.code in ran.stderr
    assert message in ran.stderr


@pytest.mark.parametrize(
    ("allocate", "message"),
    [
        (", weights: [int8, fp8-e4m3]", "lacks fp8-e4m3 weights"),
        (", weights: []", "`weights` is empty"),
        (", budget: {bytes: 5}", "weight-bytes"),
    ],
)
def test_what_lint_refuses(
    tmp_path: Path, weights: dict[str, object], allocate: str, message: str
) -> None:
    folder = project(tmp_path, weights, allocate)
    with pytest.raises(SpecError, match=message):
        load_spec(folder / "spec.yaml", Registries.discovered())
