"""Formats are offered where every target takes them: what is left out fails there, and alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from torch import Tensor, nn

from edgesmith.nas.accepted import refused
from edgesmith.nas.genes import ACTIVATIONS, WEIGHTS, Offered, offered
from edgesmith.nas.joint import Joint, joint_of
from edgesmith.nas.options import Formats
from edgesmith.nas.outcome import said_of_formats
from edgesmith.nas.seeds import corners
from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.pipeline.target_facts import get_target
from edgesmith.prune.costs import QUICK, exported, noise
from edgesmith.targets.base import TargetDescription
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.onnx_reader import read_onnx
from tests.prune.nets import settled

SHAPE = (3, 8, 8)


class Hard(nn.Module):
    """A hard-swish, which kernels compute in int8 only, between layers that take int16 too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.Hardswish()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.act(self.first(x))).relu()
        out: Tensor = self.last(y).mean((2, 3))
        return out


def _description(name: str = "c-host") -> TargetDescription:
    return get_target(name).describe()


def _joint(target: TargetDescription, *targets: TargetDescription) -> Joint:
    formats = offered(("int8", "int4"), ("int8", "int16"), [target])
    return joint_of(settled(Hard), SHAPE, formats, QUICK, targets=targets)


def _deployed(found: Joint, target: TargetDescription, choices: dict[str, int | str]) -> None:
    options = dataclasses.replace(QUICK, overrides=found.genes.overrides(choices))
    legalize(read_onnx(exported(found.model, noise(SHAPE), options), "model"), target)


def test_what_an_operator_lacks_is_not_offered_there() -> None:
    host = _description()
    found = _joint(host, host)
    assert found.genes.refused == {ACTIVATIONS + "act": frozenset({"int16"})}
    names = {gene.name for gene in found.genes.space.genes}
    assert ACTIVATIONS + "act" not in names
    assert {ACTIVATIONS + "depthwise", ACTIVATIONS + "first", WEIGHTS + "first"} & names
    wide = found.genes.uniform("int8", "int16")
    assert found.genes.activation_format("act", wide) == "int8"
    assert found.genes.activation_format("depthwise", wide) == "int16"


def test_every_candidate_can_be_deployed() -> None:
    host = _description()
    found = _joint(host, host)
    space, rng = found.genes.space, np.random.default_rng(0)
    for _ in range(10):
        _deployed(found, host, {**space.choices(space.drawn(rng)), **found.elastic.whole()})
    for each in corners(found):
        choices = {**space.choices(each.candidate), **found.elastic.whole()}
        _deployed(found, host, choices)


def test_without_that_candidates_fail() -> None:
    host = _description()
    found = _joint(host)
    with pytest.raises(TargetUnsupportedError, match="HardSwish"):
        _deployed(found, host, found.genes.uniform("int8", "int16"))


def test_layers_lose_weight_formats_alike() -> None:
    """A target whose depthwise kernels take no 4-bit weights."""
    host = _description()
    forms = host.ops["DepthwiseConv2D"]
    narrow = dataclasses.replace(
        host, ops={**host.ops, "DepthwiseConv2D": tuple(f for f in forms if f.weight == "int8")}
    )
    found = _joint(host, narrow)
    assert found.genes.refused[WEIGHTS + "depthwise"] == {"int4"}
    assert WEIGHTS + "first" not in found.genes.refused
    assert found.genes.weight_format("depthwise", found.genes.uniform("int4", "int8")) == "int8"
    _deployed(found, narrow, found.genes.uniform("int4", "int16"))


def test_a_model_that_a_target_does_not_take_is_refused_at_once() -> None:
    host = _description()
    lacking = dataclasses.replace(host, ops={k: v for k, v in host.ops.items() if k != "HardSwish"})
    found = _joint(host)
    with pytest.raises(TargetUnsupportedError, match="HardSwish"):
        refused(found.genes, found.model, SHAPE, [lacking])


def test_what_all_take_costs_a_few_trials_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each pair of formats, however many layers there are."""
    lowered: list[str] = []

    def counted(*arguments: object) -> bytes:
        lowered.append("once")
        return exported(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("edgesmith.nas.accepted.exported", counted)
    host = _description()
    formats = offered(("int8", "int4"), ("int8",), [host])
    joint_of(settled(Hard), SHAPE, formats, QUICK, targets=[host])
    assert len(lowered) == 2


def test_what_is_not_offered_is_said() -> None:
    held = Offered(("int8", "int4", "int2"), ("int8",))
    wanted = Formats(held.weights, held.activations)
    assert [*said_of_formats(wanted, held, {})] == []
    more = Formats((*held.weights, "int1"), ("int16", "int8"))
    (said,) = said_of_formats(more, held, {})
    assert said == (
        "not every target takes weights int1 and activations int16 beside whatever else is offered:"
        " nowhere offered"
    )
    refusals = {f"weights:layer{n}": frozenset({"int4", "int2"}) for n in range(7)}
    (said,) = said_of_formats(wanted, held, refusals)
    assert "at 7 of the choices" in said
    assert "weights:layer0 (int2, int4); weights:layer1" in said
    assert said.endswith("and 2 more")
