"""Formats that a target lacks are refused before anything runs, where the spec has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgesmith.pipeline.errors import QuantizationError, TargetUnsupportedError
from edgesmith.pipeline.lint import check_source, load_spec
from edgesmith.pipeline.problems import Problem, ProblemCode
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.spec_source import parse_source
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.values import Policy
from edgesmith.quantize.options import Override, PTQOptions, overrides_of
from edgesmith.quantize.ptq import quantize
from edgesmith.quantize.target_formats import TakenFormats, refusals
from tests.pipeline.test_end_to_end import edgesmith
from tests.pipeline.world import DATA, MODEL
from tests.quantize.nets import make

SPEC = """\
spec_version: 1
name: small
model: {kind: torch, factory: "model.py:build_model", checkpoint: w.safetensors, input_shape: [4]}
data:
  calibration: {factory: "data.py:split", args: {part: calibration}}
  test: {factory: "data.py:split", args: {part: test}}
stages:
  - stage: score
"""
TRAINING = """\
  selection: {factory: "data.py:split", args: {part: selection}}
  train: {factory: "data.py:split", args: {part: train}}
"""


def problems(
    folder: Path, stages: str, targets: str, others: tuple[str, ...] = (), splits: str = ""
) -> tuple[Problem, ...]:
    (folder / "model.py").write_text(MODEL)
    (folder / "data.py").write_text(DATA)
    (folder / "w.safetensors").write_bytes(b"")
    text = SPEC.replace("stages:\n", f"{splits}stages:\n") + stages + f"targets: [{targets}]\n"
    (folder / "spec.yaml").write_text(text)
    source = parse_source(text, str(folder / "spec.yaml"))
    return check_source(source, Registries.discovered(), others)[1]


@pytest.mark.parametrize(
    ("stages", "targets", "line", "says", "fix"),
    [
        (
            "  - stage: quantize\n    weights: int1\n",
            "cpu-litert",
            10,
            "stage `quantize`: the target `cpu-litert` lacks int1 weights",
            "it takes int3, int4, int5, int6, int7, int8",
        ),
        (
            "  - stage: quantize\n    activations: fp8-e4m3\n",
            "c-host",
            10,
            "lacks fp8-e4m3 activations",
            "it takes int4, int8, int16",
        ),
        (
            "  - stage: quantize\n    overrides:\n      - {op: conv2d, weights: int8}\n"
            "      - {name: fc, weights: e3m2}\n",
            "c-host",
            12,
            "lacks e3m2 weights",
            "it takes int1, int2, int3, int4, int5, int6, int7, int8",
        ),
        (
            "  - stage: quantize\n    weights: int4\n    activations: int16\n",
            "cpu-litert",
            10,
            "lacks int4 weights beside int16 activations",
            "beside these it takes int5, int6, int7, int8",
        ),
    ],
)
def test_lint_says_what_a_target_lacks(
    tmp_path: Path, stages: str, targets: str, line: int, says: str, fix: str
) -> None:
    (problem,) = problems(tmp_path, stages, targets)
    assert (problem.code, problem.line) == (ProblemCode.LACKING_FORMAT, line)
    assert says in problem.message
    assert problem.suggestion == fix


@pytest.mark.parametrize(
    ("stage", "targets", "line", "says", "fix"),
    [
        (
            "  - stage: prune\n    metric: cycles\n",
            "cpu-litert, cortex-m4",
            10,
            "stage `prune`: the cost model of 'cpu-litert' gives no cycles",
            "choose one of time, flash",
        ),
        (
            "  - stage: prune\n    metric: time\n",
            "c-host, cpu-litert",
            10,
            "target 'c-host' has no cost model, so nothing gives its time",
            "leave it out, or name another `target`",
        ),
        (
            "  - stage: allocate\n    target: cpu-litert\n    budget: {instructions: 5.0}\n",
            "cortex-m4, cpu-litert",
            11,
            "stage `allocate`: the cost model of 'cpu-litert' gives no instructions",
            "choose one of time, flash",
        ),
    ],
)
def test_lint_says_which_cost_a_target_lacks(
    tmp_path: Path, stage: str, targets: str, line: int, says: str, fix: str
) -> None:
    (problem,) = problems(tmp_path, stage, targets, splits=TRAINING)
    assert (problem.code, problem.line) == (ProblemCode.LACKING_FORMAT, line + 2)
    assert problem.suggestion == fix
    assert says in problem.message


def test_a_cost_that_another_target_lacks_is_no_problem(tmp_path: Path) -> None:
    stage = "  - stage: prune\n    metric: instructions\n"
    assert not problems(tmp_path, stage, "cortex-m4, cpu-litert", splits=TRAINING)


def test_formats_that_all_targets_take(tmp_path: Path) -> None:
    stages = "  - stage: quantize\n    weights: int2\n    activations: int4\n"
    assert not problems(tmp_path, stages, "c-host, cortex-m4")
    assert not problems(tmp_path, "", "cpu-litert, cpu-onnxruntime, c-host")


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "  - stage: quantize\n    weights: int9\n", "c-host")
    assert problem.code == ProblemCode.BAD_VALUE
    assert problem.message == '`weights` is "int9"'
    assert "`fp8-e4m3`" in problem.suggestion
    assert "did you mean `int" in problem.suggestion


def test_what_is_deployed_to_is_what_counts(tmp_path: Path) -> None:
    """Whoever deploys to one target prunes and searches for it, whatever else the spec lists."""
    stage = "  - stage: prune\n    metric: instructions\n"
    both = "cpu-litert, cortex-m4"
    (problem,) = problems(tmp_path, stage, both, splits=TRAINING)
    assert "the cost model of 'cpu-litert' gives no instructions" in problem.message
    assert not problems(tmp_path, stage, both, ("cortex-m4",), splits=TRAINING)
    (problem,) = problems(tmp_path, stage, "cortex-m4", ("cpu-litert",), splits=TRAINING)
    assert "the cost model of 'cpu-litert' gives no instructions" in problem.message
    found = load_spec(tmp_path / "spec.yaml", Registries.discovered(), ("cortex-m7", "cortex-m4"))
    assert found.targets == ("cortex-m7", "cortex-m4")


def test_targets_of_the_command_line_are_checked(tmp_path: Path) -> None:
    stage = "  - stage: quantize\n    weights: int1\n"
    assert not problems(tmp_path, stage, "cpu-litert", ("c-host",))
    assert not problems(tmp_path, stage, "c-host", ("c-host", "cortex-m4"))
    (problem,) = problems(tmp_path, stage, "c-host", ("cpu-litert",))
    assert "the target `cpu-litert` lacks int1 weights" in problem.message
    for command in ("plan", "run"):
        done = edgesmith(tmp_path, command, "spec.yaml", "--target", "cpu-litert")
        assert done.returncode == 2
        assert "`cpu-litert` lacks int1 weights" in " ".join((done.stdout + done.stderr).split())


def test_every_default_is_taken_by_every_integer_target() -> None:
    for name in ("cpu-litert", "cpu-onnxruntime", "cpu-tflite-runtime", "c-host", "cortex-m4"):
        assert not list(refusals(PTQOptions(), get_target(name).describe()))


def test_a_policy_is_checked_before_calibration() -> None:
    """Through `quantize`, for policies that come from a search rather than from YAML."""
    model, data = make("plain")
    options = PTQOptions(overrides=(Override("9", weights="int2"),))
    assert quantize(model, data, options, seed=0, targets=[get_target("c-host").describe()])
    target = get_target("cpu-litert").describe()
    with pytest.raises(TargetUnsupportedError, match="lacks the formats of 1 group:") as caught:
        quantize(model, data, options, seed=0, targets=[target])
    assert "int2 weights beside int8 activations" in caught.value.message
    assert caught.value.fix == (
        "it takes the activations int4, int8, int16, and the weights int3, int4, int5, int6, int7,"
        " int8"
    )


def test_a_policy_as_overrides_gives_the_policy_again() -> None:
    model, data = make("inception")
    rules = (Override(op="conv2d", weights="int3"), Override(name="*1*", activations="int16"))
    first = quantize(model, data, PTQOptions(overrides=rules), seed=0)
    again = overrides_of(first.placement.policy, first.placement.groups)
    second = quantize(model, data, PTQOptions(overrides=again), seed=0)
    assert second.placement.policy == first.placement.policy
    assert second.searched().same_as(first.searched())
    with pytest.raises(QuantizationError, match="no formats for the group 'other'"):
        overrides_of(Policy({}), ["other"])


def test_a_policy_has_one_kind_of_scales() -> None:
    model, data = make("plain")
    powers = PTQOptions(power_of_two_scales=True)
    made = quantize(model, data, powers, seed=0)
    policy, groups = made.placement.policy, made.placement.groups
    again = replace(powers, overrides=overrides_of(policy, groups))
    assert quantize(model, data, again, seed=0).placement.policy == policy
    first = next(name for name in groups if policy.groups[name].weight is not None)
    usual = quantize(model, data, PTQOptions(), seed=0).placement.policy.groups[first]
    with pytest.raises(QuantizationError, match="powers of two in some groups"):
        overrides_of(Policy({**policy.groups, first: usual}), groups)


def test_taken_formats_of_a_target() -> None:
    taken = TakenFormats.of(get_target("cpu-litert").describe())
    assert taken.activation_names() == ("int4", "int8", "int16")
    assert "int2" not in taken.weight_names()
