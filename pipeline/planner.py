"""What a run would do, and why: follows cached records, runs nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgesmith.pipeline.cache import Cache, Damage, StageRecord, key_of
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.spec import Spec
from edgesmith.pipeline.steps import (
    INPUT_PART,
    Step,
    StepId,
    changes,
    forced_ids,
    key_parts,
    steps_of,
)

_NEVER = "it never ran for this spec"


class Status(StrEnum):
    """What would happen to a step."""

    CACHED = "cached"
    RUN = "run"
    DEPENDS = "depends"  # on the outputs of steps that will run


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan. `why` is empty for a cached step."""

    stage: str
    target: str | None
    status: Status
    why: tuple[str, ...]


def plan(
    spec: Spec,
    targets: Sequence[str],
    registries: Registries,
    cache: Cache,
    *,
    start: str | None = None,
    force: Sequence[str] = (),
) -> tuple[PlannedStep, ...]:
    """What `run` with the same arguments would do.

    Cached files are compared by name and size; `run` hashes them as well.

    Raises:
        SpecError, PluginError: as `steps_of`.
        CacheError: the cache cannot be read.
    """
    steps = steps_of(spec, targets, registries)
    forced = forced_ids(steps, start, force)
    records: dict[StepId, StageRecord] = {}
    planned = []
    for step in steps:
        found = _plan_step(step, spec, registries, cache, records, forced.get(step.id))
        if isinstance(found, StageRecord):
            records[step.id] = found
            planned.append(PlannedStep(*step.id, Status.CACHED, ()))
        else:
            planned.append(found)
    return tuple(planned)


def inputs_of(step: Step, records: Mapping[StepId, StageRecord]) -> dict[str, str]:
    """Output digests of a step's needs, by stage; of those that have a record."""
    return {need[0]: records[need].digest for need in step.needs if need in records}


def why_it_runs(
    step: Step, spec: Spec, cache: Cache, parts: Mapping[str, str], damage: Damage | None
) -> tuple[str, ...]:
    """Why a step has no usable result, by comparison with the last one of this spec."""
    if damage is not None:
        return (f"its cached result is damaged: {damage.reason}",)
    last = cache.latest(spec.name, step.stage.name, step.target)
    if last is None:
        return (_NEVER,)
    return changes(last.parts, parts) or ("its cached result is gone",)


def _plan_step(
    step: Step,
    spec: Spec,
    registries: Registries,
    cache: Cache,
    records: Mapping[StepId, StageRecord],
    forced: str | None,
) -> StageRecord | PlannedStep:
    parts = key_parts(step, spec, registries, inputs_of(step, records))
    pending = tuple(need[0] for need in step.needs if need not in records)
    if forced is not None:
        return PlannedStep(*step.id, Status.RUN, (forced,))
    if pending:
        return _plan_pending(step, spec, cache, parts, pending)
    found = cache.lookup(key_of(parts), verify=False)
    if isinstance(found, StageRecord):
        return found
    return PlannedStep(*step.id, Status.RUN, why_it_runs(step, spec, cache, parts, found))


def _plan_pending(
    step: Step, spec: Spec, cache: Cache, parts: Mapping[str, str], pending: tuple[str, ...]
) -> PlannedStep:
    """A step some of whose inputs are not known yet: it may still turn out cached."""
    depends = f"depends on {', '.join(pending)}, which will run"
    last = cache.latest(spec.name, step.stage.name, step.target)
    if last is None:
        return PlannedStep(*step.id, Status.RUN, (_NEVER,))
    unknown = {INPUT_PART + name for name in pending}
    before = {name: value for name, value in last.parts.items() if name not in unknown}
    changed = changes(before, parts)
    status = Status.RUN if changed else Status.DEPENDS
    return PlannedStep(*step.id, status, (*changed, depends))
