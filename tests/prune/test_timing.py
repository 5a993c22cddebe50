"""Where a target counts nothing, the pruned model has to be faster by the clock, in turns."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgesmith.pipeline.cli import app
from edgesmith.pipeline.errors import NotFasterError
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import Kind, Measurement
from edgesmith.prune.costs import QUICK, noise
from edgesmith.prune.timing import require_faster, speedup
from edgesmith.prune.values import Speedup
from edgesmith.quantize.options import PTQOptions
from tests.prune.nets import Classifier, settled
from tests.prune.test_stage import project

INPUTS = noise((3, 8, 8))
WIDE, NARROW = (settled(lambda width=width: Classifier(width)) for width in (64, 8))  # type: ignore[misc]


def taken(milliseconds: float) -> Measurement:
    return Measurement("latency median", milliseconds, "ms", Kind.MEASURED, "cpu-litert", 300)


@pytest.mark.parametrize(
    ("target", "formats"),
    [
        ("cpu-litert", QUICK),
        ("cpu-onnxruntime", QUICK),
        (
            "cpu-onnxruntime-fp8",
            PTQOptions(weights="fp8-e4m3", activations="fp8-e4m3", ranges="min-max"),
        ),
    ],
)
def test_both_models_are_timed_as_they_are_deployed(
    target: str, formats: PTQOptions, tmp_path: Path
) -> None:
    """An eighth of the channels is a fiftieth of the work: no noise hides that."""
    found = speedup(get_target(target), WIDE, NARROW, INPUTS, formats, tmp_path)
    assert found is not None
    assert found.after.value < found.before.value
    assert found.before.samples == found.after.samples == 300
    assert found.before.target == found.after.target == target
    require_faster(found, target)


def test_a_target_without_a_clock_has_no_figure(tmp_path: Path) -> None:
    assert speedup(get_target("c-host"), WIDE, NARROW, INPUTS, QUICK, tmp_path) is None
    fp8 = PTQOptions(weights="fp8-e4m3", activations="fp8-e4m3", ranges="min-max")
    target = get_target("cuda-fp8")
    if target.unavailable():
        assert speedup(target, WIDE, NARROW, INPUTS, fp8, tmp_path / "none") is None


@pytest.mark.parametrize("after", [0.2, 0.25])
def test_what_is_not_faster_is_an_error(after: float) -> None:
    require_faster(Speedup(taken(0.2), taken(0.19)), "cpu-litert")
    with pytest.raises(NotFasterError, match=f"takes {after} ms, unpruned 0.2 ms") as caught:
        require_faster(Speedup(taken(0.2), taken(after)), "cpu-litert")
    assert caught.value.code == "ES353"
    assert "lower `cost`" in caught.value.fix


def test_the_run_fails_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project(tmp_path, "cpu-litert", width=64)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        "edgesmith.prune.timing.speedup", lambda *_: Speedup(taken(0.2), taken(0.3))
    )
    done = CliRunner().invoke(app, ["run", "spec.yaml"])
    assert done.exit_code == 3
    assert "ES353" in done.output
    assert "must be faster on the target" in " ".join(done.output.split())
