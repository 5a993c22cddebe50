"""Run the steps of a spec, taking from the cache what is there.

A step that fails for one target does not stop the others; one that all targets
need stops the run. A target that this machine cannot run is skipped, and said to be.
Whatever happens, finished steps stay in the cache and the same command goes on from there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from edgesmith.pipeline.cache import Cache, Damage, StageRecord, key_of
from edgesmith.pipeline.diskfaults import cache_errors, disk_fault
from edgesmith.pipeline.errors import (
    CacheError,
    EdgesmithError,
    ExitCode,
    SpecError,
    StageError,
    TargetUnavailableError,
)
from edgesmith.pipeline.observer import Observer
from edgesmith.pipeline.planner import inputs_of, why_it_runs
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.run_folder import TargetOutcome, publish, publish_skipped
from edgesmith.pipeline.spec import Spec
from edgesmith.pipeline.stage import StageContext, stage_seed
from edgesmith.pipeline.stage_log import stage_log
from edgesmith.pipeline.steps import FINAL_STAGE, Step, StepId, forced_ids, key_parts, steps_of
from edgesmith.pipeline.tools import require_all
from edgesmith.pipeline.versions import installed


@dataclass(frozen=True)
class RunOptions:
    """How a run departs from taking everything from the cache that is there."""

    start: str | None = None
    force: tuple[str, ...] = ()
    explain: bool = False


@dataclass(frozen=True)
class StepOutcome:
    """One step of a run that is over; `log` is the log of the run that made its output."""

    stage: str
    target: str | None
    key: str
    digest: str
    seconds: float
    cached: bool
    log: str


@dataclass(frozen=True)
class RunRecord:
    """What a run did; `run.json`."""

    name: str
    spec_path: str
    spec_sha256: str
    edgesmith_version: str
    started: str
    seconds: float
    steps: tuple[StepOutcome, ...]
    targets: tuple[TargetOutcome, ...]

    @property
    def exit_code(self) -> ExitCode:
        """The worst of its targets; those that were skipped do not count.

        A target that failed has its error's code: 1 where the model does not fit its memory, as
        for any other missed budget, else 2 or 3. Without one: 1 if a budget was missed, else 0.
        """
        failed = [target.exit_code for target in self.targets if target.error is not None]
        if failed:
            return ExitCode(max(failed))
        met = all(target.ok for target in self.targets)
        return ExitCode.OK if met else ExitCode.BUDGET_MISSED


@dataclass
class _State:
    """What a run has so far."""

    records: dict[StepId, StageRecord] = field(default_factory=dict)
    steps: list[StepOutcome] = field(default_factory=list)
    failed: dict[str, EdgesmithError] = field(default_factory=dict)  # by target


class Runner:
    """Runs one spec on one cache.

    Args:
        cache: an opened cache.
        out: the folder that `<spec name>/<target>/` run folders go to.
    """

    def __init__(
        self, spec: Spec, registries: Registries, cache: Cache, out: Path, observer: Observer
    ) -> None:
        self._spec = spec
        self._registries = registries
        self._cache = cache
        self._out = out
        self._observer = observer

    def run(self, targets: Sequence[str], options: RunOptions) -> RunRecord:
        """Run everything that the targets need and write their run folders.

        A target that this machine cannot run is skipped, unless none is left.

        Raises:
            SpecError: a target or stage in the arguments does not exist.
            ToolMissingError: a tool of one of the targets is missing; nothing was run.
            TargetUnavailableError: this machine can run none of the targets.
            CacheError: the cache or the run folder cannot be read or written.
            EdgesmithError: a step that all targets need failed; any subclass.
        """
        skipped = self._skipped(targets)
        left = [target for target in targets if target not in skipped]
        steps = steps_of(self._spec, left, self._registries)
        forced = forced_ids(steps, options.start, options.force)
        self._require_tools(left)
        for step in steps:
            for name, value in step.stage.environment.items():
                os.environ.setdefault(name, value)
        started, clock = _now(), time.perf_counter()
        state = _State()
        for step in steps:
            if step.target in state.failed:
                continue
            try:
                self._step(step, forced.get(step.id), options, state)
            except (CacheError, SpecError):
                raise
            except EdgesmithError as error:
                if step.target is None:
                    raise
                self._observer.note(f"{step.label} failed; {step.target} is left out\n{error}")
                state.failed[step.target] = error
        return RunRecord(
            name=self._spec.name,
            spec_path=self._spec.path,
            spec_sha256=self._spec.sha256,
            edgesmith_version=installed("edgesmith")["edgesmith"],
            started=started,
            seconds=time.perf_counter() - clock,
            steps=tuple(state.steps),
            targets=tuple(
                self._skip(target, skipped[target])
                if target in skipped
                else self._outcome(target, state)
                for target in targets
            ),
        )

    def _skipped(self, targets: Sequence[str]) -> dict[str, str]:
        """Targets that this machine cannot run, and why."""
        found = {name: self._registries.targets.get(name)().unavailable() for name in targets}
        skipped = {name: reason for name, reason in found.items() if reason}
        if skipped and len(skipped) == len(found):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
            raise TargetUnavailableError(
                f"no target of this run can run on this machine: {reasons}",
                fix="run it where they can, or add a target that this machine runs; `edgesmith"
                " targets` lists them",
            )
        for name, reason in skipped.items():
            self._observer.note(f"{name} skipped: {reason}")
        return skipped

    def _skip(self, target: str, reason: str) -> TargetOutcome:
        from edgesmith.reports.skipped import skipped_files

        title = self._registries.targets.get(target)().describe().title
        files = skipped_files(self._spec.name, target, title, reason)
        return publish_skipped(files, self._out / self._spec.name, target, reason)

    def _require_tools(self, targets: Sequence[str]) -> None:
        found = {name: self._registries.targets.get(name)() for name in targets}
        require_all({f"target {name!r}": target.tools() for name, target in found.items()})

    def _outcome(self, target: str, state: _State) -> TargetOutcome:
        error = state.failed.get(target)
        if error is not None:
            return TargetOutcome(target, None, False, str(error), int(error.exit_code))
        outputs = self._cache.outputs_of(state.records[FINAL_STAGE, target])
        return publish(outputs, self._out / self._spec.name, target)

    def _step(self, step: Step, forced: str | None, options: RunOptions, state: _State) -> None:
        parts = key_parts(step, self._spec, self._registries, inputs_of(step, state.records))
        key = key_of(parts)
        why: tuple[str, ...] = ()
        record = self._hit(key) if forced is None else None
        cached = record is not None
        if record is None:
            if options.explain:
                why = (forced,) if forced else self._why(step, parts, key)
            record, cached = self._make(step, parts, key, state, forced=forced is not None)
        self._cache.remember(self._spec.name, record)
        state.records[step.id] = record
        log = str(self._cache.log_of(key))
        outcome = StepOutcome(*step.id, key, record.digest, record.seconds, cached, log)
        state.steps.append(outcome)
        self._observer.finished(step.label, record.seconds, cached=cached, why=why)

    def _hit(self, key: str) -> StageRecord | None:
        found = self._cache.lookup(key, verify=True)
        return found if isinstance(found, StageRecord) else None

    def _why(self, step: Step, parts: Mapping[str, str], key: str) -> tuple[str, ...]:
        found = self._cache.lookup(key, verify=True)
        damage = found if isinstance(found, Damage) else None
        return why_it_runs(step, self._spec, self._cache, parts, damage)

    def _make(
        self, step: Step, parts: dict[str, str], key: str, state: _State, *, forced: bool
    ) -> tuple[StageRecord, bool]:
        """The step's result, and whether another process made it while this one waited."""
        if self._cache.is_being_made(key):
            self._observer.note(f"{step.label}: waiting for another run that is at it")
        with self._cache.locked(key):
            found = None if forced else self._cache.lookup(key, verify=True)
            if isinstance(found, StageRecord):
                return found, True
            if isinstance(found, Damage):
                self._observer.note(f"{step.label}: cached result discarded: {found.reason}")
                self._cache.discard(key, found)
            return self._execute(step, parts, key, state), False

    def _execute(self, step: Step, parts: dict[str, str], key: str, state: _State) -> StageRecord:
        name, target = step.id
        log_path = self._cache.log_path(name, target, key)
        started, clock = _now(), time.perf_counter()
        with self._cache.workspace() as work:
            folder = work / "files"
            with cache_errors(work):
                folder.mkdir()
            self._call(step, folder, log_path, state)
            outputs, digest = self._cache.digest(folder, name)
            record = StageRecord(
                key=key,
                stage=name,
                target=target,
                parts=parts,
                outputs=outputs,
                digest=digest,
                started=started,
                seconds=time.perf_counter() - clock,
                versions=installed(),
            )
            self._cache.store(record, folder, log_path)
        return record

    def _call(self, step: Step, folder: Path, log_path: Path, state: _State) -> None:
        """Run the stage; every failure becomes an `EdgesmithError`, its traceback logged."""
        name, target = step.id
        with stage_log(name, log_path) as log, self._observer.running(step.label) as progress:
            context = StageContext(
                folder=folder,
                inputs={n[0]: self._cache.outputs_of(state.records[n]) for n in step.needs},
                spec=self._spec,
                target=target,
                seed=stage_seed(self._spec.seed, name),
                progress=progress,
                log=log,
                records={n: r for (n, t), r in state.records.items() if t in (None, target)},
            )
            try:
                step.stage.run(context)
            except EdgesmithError:
                log.exception("stage %s failed", name)
                raise
            except (Exception, SystemExit) as error:  # a stage may run any user's code
                log.exception("stage %s failed", name)
                fault = disk_fault(error, self._cache.folder)
                raise fault or _stage_error(step, error, log_path) from error


def _stage_error(step: Step, error: BaseException, log: Path) -> StageError:
    return StageError(
        f"stage {step.label} failed with {type(error).__name__}: {error}",
        fix=f"the traceback is in {log}; the same command goes on from this stage",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
