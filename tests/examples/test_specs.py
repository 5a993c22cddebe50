"""Every spec of the examples is one that edgesmith takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesmith.pipeline.lint import load_spec
from edgesmith.pipeline.registry import Registries

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SPECS = sorted(EXAMPLES.rglob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_spec_has_no_problems(path: Path) -> None:
    spec = load_spec(path, Registries.discovered())
    assert spec.targets


def test_there_are_specs() -> None:
    assert {
        "ic",
        "ic-mixed",
        "ic-pruned",
        "ic-search",
        "joint_search",
        "kws",
        "kws-search",
        "spec",
    } <= {path.stem for path in SPECS}
