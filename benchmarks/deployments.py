"""Specs run in fresh processes, as a user runs them, and variants of the examples' specs."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.values import Measurement

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "mlperf_tiny"


def edgesmith(*arguments: str) -> float:
    """Run the command line in a fresh process; seconds.

    Raises:
        SystemExit: it did not end with 0 or 1.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "edgesmith", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1):
        raise SystemExit(f"edgesmith {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return seconds


def deploy(spec: Path, folder: Path, *targets: str) -> dict[str, DeploymentResult]:
    """Run a spec with its runs in `folder`, and the cache beside it; the result per target.

    Raises:
        SystemExit: it left no result.
    """
    chosen = [word for target in targets for word in ("--target", target)]
    runs, cache = folder / "runs" / spec.stem, folder / "cache"
    edgesmith("run", str(spec), "--cache", str(cache), "--out", str(runs), *chosen)
    loaded = [
        from_json(DeploymentResult, path.read_bytes()) for path in runs.glob("*/*/result.json")
    ]
    if not loaded:
        raise SystemExit(f"edgesmith run {spec} left no result")
    return {result.target: result for result in loaded}


def accuracy(result: DeploymentResult, form: str) -> Measurement:
    """Of one form of the model, on the test split."""
    return next(row.accuracy for row in result.accuracy if row.form == form)


def percent(result: DeploymentResult, form: str) -> float:
    """Accuracy of one form of the model."""
    return accuracy(result, form).value


def example(module: str) -> Any:
    """A module of the MLPerf Tiny examples, such as `models`."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module(module)


def spec_of(example: str) -> Any:
    """A spec of the MLPerf Tiny examples, as YAML has it."""
    return YAML().load((EXAMPLES / f"{example}.yaml").read_text())


def variant(
    example: str,
    name: str,
    folder: Path,
    stages: Sequence[Mapping[str, Any]],
    targets: Sequence[str],
    *,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    checkpoint: Path | None = None,
    seed: int = 0,
) -> Path:
    """A spec of the MLPerf Tiny examples with other stages and targets, written into `folder`.

    Args:
        example: `ic`, `kws` or another of their specs.
        data: split -> arguments of its factory in place of the example's.
        checkpoint: weights in place of the example's trainer.
    """
    spec = spec_of(example)
    spec["name"] = name
    spec["stages"] = [dict(stage) for stage in stages]
    spec["targets"] = list(targets)
    spec["seed"] = seed
    spec.pop("budgets", None)
    if checkpoint is not None:
        del spec["model"]["trainer"]
        spec["model"]["checkpoint"] = str(checkpoint)
    for part in (spec["model"], *(each for each in spec["data"].values() if "factory" in each)):
        for key in ("factory", "trainer"):
            if key in part:
                part[key] = str(EXAMPLES / part[key])
    for split, arguments in (data or {}).items():
        spec["data"][split]["args"] = dict(arguments)
    path = folder / f"{name}.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(spec, file)
    return path
