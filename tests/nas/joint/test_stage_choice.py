"""Which member of the front the stage `search` deploys, and what else its options change."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgesmith.nas.front import knee
from edgesmith.nas.stored import load_result
from edgesmith.nas.values import ACCURACY, Constraint, SearchResult
from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.results import DeploymentResult
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


def ran(
    folder: Path, changes: tuple[tuple[str, str], ...], target: str, metric: str
) -> SearchResult:
    """What a search with these changes found; its run succeeded."""
    done = edgesmith(searching(folder, target, metric, changes), "run", "spec.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return load_result(outputs(folder, "search"))


def test_favourites_of_policies_are_seeds_and_the_knee_is_deployed(tmp_path: Path) -> None:
    """Policies learn with the weights; the search begins with what they came to prefer."""
    changes = (
        ("drawn: 1", "strategy: fliqs, drawn: 1"),
        ("tolerance_points: 20", "tolerance_points: null\n    sampler: nsga2"),
    )
    result = ran(tmp_path, changes, "c-host", "weight-bytes")
    assert result.sampler == "nsga2"
    assert any(each.origin.startswith("seed: policy") for each in result.trials)
    members = [result.trials[number].metrics for number in result.front]
    losses = np.array([[-each[ACCURACY], each["weight-bytes"]] for each in members])
    assert result.chosen == result.front[knee(losses)]
    assert not result.constraints


def test_formats_alone_are_searched_on_the_weights_as_they_are(tmp_path: Path) -> None:
    """By integer programs, on the largest sub-network, which is the trained model."""
    changes = (
        (
            "    training: {epochs: 2, batch_size: 32, learning_rate: 0.003, drawn: 1}",
            "    training: null",
        ),
        ("tolerance_points: 20", "tolerance_points: 2\n    sampler: bits-only"),
    )
    result = ran(tmp_path, changes, "c-host", "weight-bytes")
    widths = {
        tuple(v for name, v in each.choices.items() if name.startswith("width:"))
        for each in result.trials
        if not each.origin.startswith("seed: ")
    }
    assert len(widths) == 1
    assert result.trials[0].metrics[ACCURACY] == result.references["uniform int8"][ACCURACY]
    assert result.chosen_metrics["weight-bytes"] < result.references["uniform int8"]["weight-bytes"]


def test_one_choice_is_deployed_to_two_targets_within_a_limit_of_flash(tmp_path: Path) -> None:
    """What either lacks is not offered: LiteRT takes no two-bit weights."""
    changes = (
        ("[int8, int4]}", "[int8, int4, int2]}"),
        ("tolerance_points: 20", "tolerance_points: 20\n    limits: {flash: 12000}"),
        ("targets: [cpu-litert]", "targets: [cpu-litert, c-host]"),
        ("evaluations: 16", "sampler: sequential\n    evaluations: 8"),
    )
    result = ran(tmp_path, changes, "cpu-litert", "flash")
    assert Constraint("flash", "most", 12000.0) in result.constraints
    offered = {str(choice) for each in result.trials for choice in each.choices.values()}
    assert {"int8", "int4"} <= offered
    assert "int2" not in offered
    found = [
        from_json(DeploymentResult, (tmp_path / f"runs/bars/{name}/result.json").read_bytes())
        for name in ("cpu-litert", "c-host")
    ]
    assert all(each.parity is not None and each.parity.different == 0 for each in found)
    right = [
        [row.accuracy.value for row in each.accuracy if row.form == "deployed"] for each in found
    ]
    assert right[0] == right[1]
