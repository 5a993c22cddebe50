"""What a stage is: a frozen dataclass whose fields are its YAML parameters.

A stage is one file in `pipeline/stages/`; its stem, with `-` for `_`, is its
name in a spec. Importing it must be light (no torch): `plan` and `lint` do it.
Everything a stage's output depends on is in its key: its parameters, version
and seed, the digests of its inputs, and what `key_parts` names.
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from pydantic import ConfigDict

if TYPE_CHECKING:
    from edgesmith.pipeline.cache import StageRecord
    from edgesmith.pipeline.spec import Spec
    from edgesmith.targets.base import TargetDescription

T = TypeVar("T")


class Progress(Protocol):
    """How long-running code says how far it is. Free to call often."""

    def report(self, label: str, done: int, total: int | None) -> None:
        """`done` of `total` steps of `label` are finished; None when the total is unknown."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items and report each; the total is `len(items)` where that exists."""


class SilentProgress:
    """A `Progress` that shows nothing."""

    def report(self, label: str, done: int, total: int | None) -> None:
        """Nothing to show."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """The items."""
        yield from items


@dataclass(frozen=True)
class StageContext:
    """What a running stage gets.

    `folder` is empty and the stage's alone; every file left in it is output.
    `inputs` maps each required stage to its read-only output folder and
    `records` every stage that ran before it for this result to its record.
    `seed` is derived from the spec's seed and the stage's name.
    """

    folder: Path
    inputs: Mapping[str, Path]
    spec: Spec
    target: str | None
    seed: int
    progress: Progress
    log: logging.Logger
    records: Mapping[str, StageRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """A parameter of a stage that a target of the spec cannot take.

    Args:
        path: where it stands below the stage's entry; it may be a default that is not written.
    """

    path: tuple[str | int, ...]
    message: str
    fix: str


@dataclass(frozen=True)
class Stage(ABC):
    """One step of a pipeline. Raise `version` whenever the same inputs give other outputs."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    per_target: ClassVar[bool] = False
    environment: ClassVar[Mapping[str, str]] = {}
    """Variables that libraries read once: set before any stage of a run, where users have not."""
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def requires(self, spec: Spec) -> tuple[str, ...]:
        """Names of the stages whose outputs this one reads."""
        return ()

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        """What else the output depends on, by a name that `plan` can show: digests, versions."""
        return {}

    def refusals(self, description: TargetDescription, *, first: bool) -> Iterator[Refusal]:
        """Parameters that a target cannot take; `lint` asks before anything runs.

        Args:
            first: of the spec's targets, whose cost counts where none is named.
        """
        return iter(())

    @abstractmethod
    def run(self, context: StageContext) -> None:
        """Write the outputs into `context.folder`."""


def counts_for(description: TargetDescription, named: str | None, *, first: bool) -> bool:
    """Whether a stage that works for one target works for this one."""
    return first if named is None else description.name == named


def lacking_metric(
    description: TargetDescription, metric: str | None, path: tuple[str | int, ...]
) -> Iterator[Refusal]:
    """Refuses a metric that the target's cost model does not give."""
    if metric is None or metric in description.cost_metrics:
        return
    known = ", ".join(description.cost_metrics)
    yield Refusal(
        path,
        f"the cost model of {description.name!r} gives no {metric}"
        if known
        else f"target {description.name!r} has no cost model, so nothing gives its {metric}",
        f"choose one of {known}" if known else "leave it out, or name another `target`",
    )


def stage_seed(seed: int, stage: str) -> int:
    """A seed of its own for each stage, in [0, 2**32), so that adding one moves no other."""
    digest = hashlib.sha256(f"{seed}:{stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
