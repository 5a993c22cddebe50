"""What a candidate is scored by is what ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesmith.nas import evaluation
from edgesmith.nas.evaluation import Evaluator, Evidence
from edgesmith.nas.remeasure import deployed
from edgesmith.nas.space import Choice
from edgesmith.nas.statistics import recalibrated
from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.pipeline.evaluation import predictions
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.training.trainer import accuracy
from edgesmith.pipeline.values import Kind
from edgesmith.prune.surgery import apply_plan
from edgesmith.quantize import ptq
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.ptq import QuantizedModel, quantize
from edgesmith.quantize.ranges import find_ranges
from edgesmith.targets.cost import Metric, cost_model
from edgesmith.targets.graph.ir import Graph
from edgesmith.targets.graph.legalizer import legalize
from tests.nas.joint.worlds import classifier, joint
from tests.nas.nets import make
from tests.prune.nets import batch, blobs

TRAIN, CALIBRATION, SELECTION = blobs(192, 0), blobs(64, 1), blobs(96, 2)
EVIDENCE = Evidence(TRAIN.inputs, CALIBRATION.inputs, SELECTION)


def evaluator(costs: Path | None = None, target: str = "cpu-litert") -> Evaluator:
    _, found = classifier()
    chosen = get_target(target)
    table = None if costs is None else cost_model(chosen, costs)
    return Evaluator(found, EVIDENCE, PTQOptions(), chosen, table, seed=7)


def test_the_integers_that_are_scored_are_those_that_ship() -> None:
    """The quantize stage gets the plan, the weights and the rules, and makes them again."""
    scoring = evaluator()
    found = scoring._joint
    rng = np.random.default_rng(0)
    for _ in range(3):
        choices = found.genes.space.choices(found.genes.space.drawn(rng))
        metrics = scoring(choices)
        plan = found.elastic.plan(found.genes.architecture(choices))
        shipped = apply_plan(found.model, plan)
        shipped.load_state_dict(scoring.module(choices).state_dict())
        options = PTQOptions(overrides=found.genes.overrides(choices))
        made = quantize(shipped.eval(), CALIBRATION.inputs, options, seed=7)
        scored = scoring.quantized(choices).searched().tensors
        assert len(made.searched().tensors) == len(scored)
        assert all(
            one.same_as(other) for one, other in zip(made.searched().tensors, scored, strict=True)
        )
        right = predictions(made.predict(SELECTION.inputs)) == SELECTION.labels
        assert metrics["accuracy"] == 100.0 * float(right.mean())
        chances = torch.softmax(torch.from_numpy(made.predict(SELECTION.inputs)), 1)
        own = chances[range(len(SELECTION)), SELECTION.labels].clamp_min(1 / 512)
        assert metrics["loss"] == pytest.approx(float(-own.log().mean()), rel=1e-5)


@pytest.mark.parametrize("name", ["encoder", "vit", "resnet8"])
def test_a_plan_makes_the_sub_network_out_of_the_model_as_it_was_trained(name: str) -> None:
    """Attention that may lose heads was converted for the search; the plan converts it again."""
    found, (model, shape) = joint(name), make(name)
    rng = np.random.default_rng(0)
    drawn = [found.elastic.drawn(rng) for _ in range(4)]
    for architecture in (found.elastic.whole(), found.elastic.smallest(), *drawn):
        module = found.network.extract(architecture)
        made = apply_plan(model, found.plan(architecture)).eval()
        made.load_state_dict(module.state_dict())
        with torch.no_grad():
            assert torch.equal(made(batch(shape)), module(batch(shape)))


def test_scores_are_the_same_each_time() -> None:
    scoring = evaluator()
    choices = scoring._joint.genes.uniform("int4", "int8")
    assert scoring(choices) == scoring(choices) == evaluator()(choices)


def test_ranges_are_found_once_for_candidates_that_differ_in_weights_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[Network] = []

    def counting(network: Network, *given: Any) -> dict[str, Affine]:
        counted.append(network)
        return find_ranges(network, *given)

    monkeypatch.setattr(ptq, "find_ranges", counting)
    found = classifier()[1]
    made = [found.genes.uniform(weight, "int8") for weight in found.genes.offered.weights]
    scoring = evaluator()
    together = [scoring.quantized(each).searched().tensors for each in made]
    assert len(made) > 1
    assert len(counted) == 1
    alone = [evaluator().quantized(each).searched().tensors for each in made]
    assert len(counted) == 1 + len(made)
    for ours, theirs in zip(together, alone, strict=True):
        assert all(one.same_as(other) for one, other in zip(ours, theirs, strict=True))


def test_what_does_not_fit_is_costed_all_the_same(tmp_path: Path) -> None:
    """By how much it is too large tells a search where to go."""
    target = "cortex-m4,ram=400"
    for tool in get_target(target).tools():
        if tool.find() is None:
            pytest.skip(f"{target} needs {tool.name}: {tool.install}")
    scoring = evaluator(tmp_path, target)
    genes = scoring._joint.genes
    whole = scoring(genes.uniform("int8", "int8"))
    assert scoring.memory["arena"] == 400
    assert whole["arena"] > 400
    assert whole["instructions"] > 0


def test_memory_of_other_targets_counts_too(tmp_path: Path) -> None:
    """What fits the one whose costs count may be too large for another of the spec."""
    small = get_target("cortex-m0plus,ram=300")
    for tool in small.tools():
        if tool.find() is None:
            pytest.skip(f"{small.name} needs {tool.name}: {tool.install}")
    main = get_target("cortex-m4")
    beside = [(small, cost_model(small, tmp_path))]
    costs = cost_model(main, tmp_path)
    found = classifier()[1]
    scoring = Evaluator(found, EVIDENCE, PTQOptions(), main, costs, seed=7, beside=beside)
    choices = found.genes.uniform("int8", "int8")
    metrics = scoring(choices)
    alone = cost_model(small, tmp_path).model(
        legalize(evaluation._read(scoring.quantized(choices)), small.describe()), fitting=False
    )
    assert metrics["arena on cortex-m0plus,ram=300"] == alone[Metric.ARENA].value > 300
    assert metrics["flash on cortex-m0plus,ram=300"] == alone[Metric.FLASH].value
    assert scoring.memory["arena on cortex-m0plus,ram=300"] == 300
    assert scoring.memory["arena"] > scoring.memory["arena on cortex-m0plus,ram=300"]
    assert scoring.kinds(choices)["flash on cortex-m0plus,ram=300"] is Kind.SIMULATED


def test_the_trained_model_is_scored_as_it_is() -> None:
    scoring = evaluator()
    genes = scoring._joint.genes
    found = scoring.uniform("int8", "int8")
    made = quantize(scoring._joint.model, CALIBRATION.inputs, PTQOptions(), seed=7)
    right = predictions(made.predict(SELECTION.inputs)) == SELECTION.labels
    assert found["accuracy"] == 100.0 * float(right.mean())
    assert found["weight-bytes"] == scoring(genes.uniform("int8", "int8"))["weight-bytes"]
    assert scoring.float_accuracy() == accuracy(scoring._joint.model, SELECTION)
    assert "weight-bytes" not in scoring.uniform("int5", "int8"), "the search offers none"


def test_a_candidate_that_cannot_be_made_does_not_stop_preparing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring = evaluator(tmp_path)
    good, bad = (scoring._joint.genes.uniform(name, "int8") for name in ("int8", "int4"))
    read = evaluation._read

    def refusing(made: QuantizedModel) -> Graph:
        if any(each.dtype == "int4" for each in made.searched().tensors):
            raise TargetUnsupportedError("no int4 here", fix="none")
        return read(made)

    monkeypatch.setattr(evaluation, "_read", refusing)
    scoring.prepare([bad, good])
    assert scoring(good)["time"] > 0
    with pytest.raises(TargetUnsupportedError):
        scoring(bad)


def test_threads_are_as_they_were() -> None:
    torch.set_num_threads(2)
    scoring = evaluator()
    scoring(scoring._joint.genes.uniform("int8", "int8"))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_costs_are_the_targets_own_and_prepared_together(tmp_path: Path) -> None:
    scoring = evaluator(tmp_path)
    genes = scoring._joint.genes
    smallest: dict[str, Choice] = {**scoring._joint.elastic.smallest()}
    batch = [genes.uniform("int8", "int8"), smallest]
    scoring.prepare(batch)
    files = sorted(tmp_path.rglob("batches/*.json"))
    whole, small = (scoring(choices) for choices in batch)
    assert sorted(tmp_path.rglob("batches/*.json")) == files, "nothing is left to measure"
    assert whole["time"] > 0
    assert small["flash"] < whole["flash"]
    assert small["weight-bytes"] < whole["weight-bytes"]
    assert not scoring.counted


@pytest.mark.parametrize("target", ["cpu-litert", "cortex-m4"])
def test_a_front_member_is_measured_as_it_ships(target: str, tmp_path: Path) -> None:
    chosen = get_target(target)
    for tool in chosen.tools():
        if tool.find() is None:
            pytest.skip(f"{target} needs {tool.name}: {tool.install}")
    scoring = evaluator(tmp_path, target)
    choices = scoring._joint.genes.uniform("int4", "int8")
    member = deployed(scoring.quantized(choices), chosen, tmp_path / "out")
    predicted = scoring(choices)
    found = member.measured
    assert member.compared >= len(scoring.quantized(choices).searched().tensors)
    assert any((tmp_path / "out").iterdir())
    assert found["flash"].value == pytest.approx(predicted["flash"], rel=0.02)
    if target == "cortex-m4":
        assert found["instructions"].value == pytest.approx(predicted["instructions"], rel=0.02)
        assert found["arena"].value <= predicted["arena"]
    else:
        assert found["time"].value > 0


@pytest.mark.parametrize(
    ("name", "target"),
    [("cropped", "cortex-m4"), ("cropped", "cpu-litert"), ("bert", "c-host")],
)
def test_whatever_varies_ships_as_it_was_quantized(name: str, target: str, tmp_path: Path) -> None:
    """The smallest sub-network has the centre of every kernel, one head, and the least widths;
    `deployed` compares its tensors, bit for bit.
    """
    chosen = get_target(target)
    for tool in chosen.tools():
        if tool.find() is None:
            pytest.skip(f"{target} needs {tool.name}: {tool.install}")
    found = joint(name)
    small = found.elastic.smallest()
    module = found.network.extract(small)
    options = PTQOptions(
        overrides=found.genes.overrides({**found.genes.uniform("int4", "int8"), **small})
    )
    made = quantize(module, batch(found.sample_shape, samples=16).numpy(), options, seed=7)
    member = deployed(made, chosen, tmp_path / "out")
    assert member.compared >= len(made.searched().tensors) > 8


def test_statistics_are_measured_anew() -> None:
    scoring = evaluator()
    x = torch.from_numpy(TRAIN.inputs)
    module = recalibrated(scoring._joint.network.extract(scoring._joint.elastic.smallest()), x)
    assert not module.training
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    seen: dict[int, torch.Tensor] = {}
    for norm in norms[:1]:
        norm.register_forward_pre_hook(lambda _, inputs: seen.update({0: inputs[0]}))
    with torch.no_grad():
        module(x)
    mean = norms[0].running_mean
    assert mean is not None
    torch.testing.assert_close(mean, seen[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
