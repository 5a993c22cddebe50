"""Which stages a spec runs, in which order, and what their cache keys are made of."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

import edgesmith
from edgesmith.pipeline.errors import PluginError, SpecError
from edgesmith.pipeline.jsonvalue import adapter, to_data
from edgesmith.pipeline.own_source import own_source_digest
from edgesmith.pipeline.problems import did_you_mean, listed
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.spec import Spec, canonical_json
from edgesmith.pipeline.stage import Stage, stage_seed

FINAL_STAGE = "report"  # its output becomes the run folder of a target
INPUT_PART = "input "
StepId = tuple[str, str | None]


@dataclass(frozen=True)
class Step:
    """One stage, for one target where it is a per-target stage."""

    stage: Stage
    target: str | None
    needs: tuple[StepId, ...]

    @property
    def id(self) -> StepId:
        return self.stage.name, self.target

    @property
    def label(self) -> str:
        """How messages name it: `quantize`, or `build [cpu-litert]`."""
        return self.stage.name if self.target is None else f"{self.stage.name} [{self.target}]"


def steps_of(spec: Spec, targets: Sequence[str], registries: Registries) -> tuple[Step, ...]:
    """The steps that the final stage and the stages of the spec need; each after its needs.

    Raises:
        SpecError: a target does not exist, or a stage needs parameters.
        PluginError: stages require each other in a circle, or one that does not exist.
    """
    for target in targets:
        registries.targets.get(target)
    order: dict[StepId, Step] = {}
    wanted = [FINAL_STAGE, *(entry.stage for entry in spec.stages)]
    for name in dict.fromkeys(wanted):
        per_target = registries.stages.get(name).per_target
        owners: tuple[str | None, ...] = tuple(targets) if per_target else (None,)
        for owner in owners:
            _add(name, owner, spec, registries, order, ())
    shared = [step for step in order.values() if step.target is None]
    return (*shared, *(step for step in order.values() if step.target is not None))


def _add(
    name: str,
    target: str | None,
    spec: Spec,
    registries: Registries,
    order: dict[StepId, Step],
    path: tuple[str, ...],
) -> StepId:
    """Add a step after everything that it needs, unless it is there."""
    if name in path:
        circle = " -> ".join((*path[path.index(name) :], name))
        raise PluginError(f"stages require each other: {circle}", fix="break the circle")
    kind = registries.stages.get(name)
    if kind.per_target and target is None:
        raise PluginError(
            f"stage {path[-1]!r} runs once but requires {name!r}, which runs per target",
            fix=f"set `per_target` in {path[-1]!r}",
        )
    own_target = target if kind.per_target else None
    if (name, own_target) not in order:
        stage = _configured(kind, name, spec)
        needs = tuple(
            _add(each, own_target, spec, registries, order, (*path, name))
            for each in stage.requires(spec)
        )
        order[name, own_target] = Step(stage, own_target, needs)
    return name, own_target


def _configured(kind: type[Stage], name: str, spec: Spec) -> Stage:
    try:
        return adapter(kind).validate_json(canonical_json(spec.parameters(name)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SpecError(
            f"stage {name!r}: parameter {place!r}: {first['msg']}",
            fix=f"set it under `stages:` in {spec.path}",
        ) from error


def key_parts(
    step: Step, spec: Spec, registries: Registries, inputs: Mapping[str, str]
) -> dict[str, str]:
    """The named parts of a step's key.

    Args:
        inputs: output digests of the stages it needs, by stage; may lack some, for a
            comparison that leaves them out.

    Raises:
        PluginError: the stage names a part as the framework does.
    """
    stage = step.stage
    parts = {
        "stage": stage.name,
        "version": str(stage.version),
        "seed": str(stage_seed(spec.seed, stage.name)),
        "edgesmith": edgesmith.__version__,
        "edgesmith source": own_source_digest(),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    for name, value in to_data(stage).items():
        parts[f"parameter {name}"] = canonical_json(value)
    for name, digest in inputs.items():
        parts[INPUT_PART + name] = digest
    if step.target is not None:
        facts = registries.targets.get(step.target)().describe().facts()
        parts["target name"] = step.target
        for name, value in facts.items():
            parts[f"target {name}"] = canonical_json(value)
    own = stage.key_parts(spec, step.target)
    taken = sorted(parts.keys() & own.keys())
    if taken:
        raise PluginError(
            f"stage {stage.name!r} names the key part {taken[0]!r}, which every key has",
            fix="give its part another name in `key_parts`",
        )
    return {**parts, **own}


def forced_ids(steps: Iterable[Step], start: str | None, force: Iterable[str]) -> dict[StepId, str]:
    """Steps that run whatever the cache holds, and the option that says so.

    Raises:
        SpecError: an option names a stage that the spec does not run.
    """
    steps = tuple(steps)
    names = {step.stage.name for step in steps}
    forced: dict[StepId, str] = {}
    for name in force:
        _check_runs("--force", name, names)
        forced |= {step.id: f"--force {name}" for step in steps if step.stage.name == name}
    if start is None:
        return forced
    _check_runs("--from", start, names)
    for step in steps:  # in order, so needs come first
        after = any(forced.get(need, "").startswith("--from") for need in step.needs)
        if step.stage.name == start or after:
            forced[step.id] = f"--from {start}"
    return forced


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """Which named parts of a key differ, in words."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if before is None or after is None:
            found.append(f"{name}: {'new' if before is None else 'gone'}")
        else:
            found.append(f"{name}: {_short(before)} -> {_short(after)}")
    return tuple(found)


def _check_runs(option: str, name: str, names: set[str]) -> None:
    if name in names:
        return
    guess = did_you_mean(name, names)
    fix = f"did you mean {guess!r}?" if guess else f"its stages: {listed(names)}"
    raise SpecError(f"{option} {name}: this spec runs no such stage", fix=fix)


def _short(text: str) -> str:
    """A value as a message shows it: digests and long values by their digest's start."""
    if len(text) <= 40:
        return text
    hexadecimal = len(text) == 64 and all(char in "0123456789abcdef" for char in text)
    return text[:12] if hexadecimal else hashlib.sha256(text.encode()).hexdigest()[:12]
