"""Which member of the front the stage `search` deploys."""

from __future__ import annotations

from pathlib import Path

from edgesmith.nas.stored import load_result
from edgesmith.nas.values import Constraint
from tests.nas.joint.test_stage import searching
from tests.pipeline.test_end_to_end import edgesmith
from tests.prune.test_stage import outputs

LIMIT = 2400.0
ACCURATE = (
    f"tolerance_points: null\n    choose: best:accuracy\n    limits: {{weight-bytes: {LIMIT}}}"
)


def test_the_most_accurate_candidate_within_the_limits_is_deployed_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    changes = (("tolerance_points: 20", ACCURATE),)
    folder = searching(tmp_path, "c-host", "weight-bytes", changes)
    done = edgesmith(folder, "run", "spec.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    result = load_result(outputs(folder, "search"))
    assert result.constraints == (Constraint("weight-bytes", "most", LIMIT),)
    assert result.chosen in result.front
    within = [each for each in result.trials if each.metrics["weight-bytes"] <= LIMIT]
    beyond = [each for each in result.trials if each.metrics["weight-bytes"] > LIMIT]
    chosen = result.trials[result.chosen].metrics
    best = max(each.metrics["accuracy"] for each in within)
    assert chosen["accuracy"] == best < max(each.metrics["accuracy"] for each in beyond)
    rivals = [each for each in within if each.metrics["accuracy"] == best]
    assert chosen["weight-bytes"] == min(each.metrics["weight-bytes"] for each in rivals)
    members = [result.trials[number].metrics for number in result.front]
    assert members == [each for each in members if each["weight-bytes"] <= LIMIT]
    assert chosen["weight-bytes"] > min(each["weight-bytes"] for each in members)
    run = folder / "runs/bars/c-host"
    built = (run / f"front/candidate-{result.chosen}/model_data.c").read_text()
    assert built.replace("candidate", "model") == (run / "model_data.c").read_text()
