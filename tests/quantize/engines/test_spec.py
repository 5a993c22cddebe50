"""`engine: neural-compressor` from a spec to its report, and what lint says about it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import safetensors.torch

from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.lint import check_source
from edgesmith.pipeline.problems import ProblemCode
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.spec_source import parse_source
from tests.pipeline.test_end_to_end import DATA, MODEL, SPEC, edgesmith, trained

TARGETS = "targets: [cpu-litert, cpu-onnxruntime]"


def written(folder: Path, stage: str) -> str:
    """A folder with a spec whose quantize stage has these parameters; the spec's text."""
    state = {name: value.clone() for name, value in trained().state_dict().items()}
    safetensors.torch.save_file(state, str(folder / "weights.safetensors"))
    (folder / "model.py").write_text(MODEL)
    (folder / "data.py").write_text(DATA)
    entry = f"  - {{stage: quantize, engine: neural-compressor{stage}}}\n"
    text = SPEC.replace(TARGETS, f"{entry}targets: [cpu-litert]")
    (folder / "spec.yaml").write_text(text)
    return text


def test_a_spec_to_its_report(tmp_path: Path) -> None:
    written(tmp_path, "")
    done = edgesmith(tmp_path, "run", "spec.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "auto_accelerator" not in done.stdout + done.stderr
    folder = tmp_path / "runs" / "stripes" / "cpu-litert"
    found = from_json(DeploymentResult, (folder / "result.json").read_bytes())
    assert found.parity is not None
    assert found.parity.different == 0
    assert found.notes[0].startswith("quantized by neural-compressor 3.")
    assert any("left unquantized by the engine" in note for note in found.notes)


def test_tuning_needs_the_selection_split(tmp_path: Path) -> None:
    text = written(tmp_path, ", neural_compressor: {tune: {max_trials: 2}}")
    lines = text.splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("  selection:"))
    source = parse_source(text, str(tmp_path / "spec.yaml"))
    problems = check_source(source, Registries.discovered())[1]
    assert [problem.code for problem in problems] == [ProblemCode.MISSING_KEY]
    assert "`tune` compares recipes on it" in problems[0].message


def test_naming_the_engine_imports_nothing_heavy() -> None:
    code = (
        "import json, sys; import edgesmith.pipeline.stages.quantize as q;"
        "q.Quantize(engine='neural-compressor');"
        "print(json.dumps([m for m in ('torch', 'neural_compressor', 'torchao')"
        " if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == []
