"""What a sampler is: a generator that asks for batches of candidates and is sent their trials.

It depends on nothing but the task, its seed and the trials that it is sent, so replaying the trials
of an archive brings it back to where it was: a killed search goes on as if nothing had happened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict

from edgesmith.nas.values import PredictorQuality, Proposal, Task, Trial

if TYPE_CHECKING:
    from edgesmith.pipeline.registry import Registry

Asking = Generator[Sequence[Proposal], Sequence[Trial], None]
"""Yields proposals, all new and different; is sent a trial for each, in the same order."""


@dataclass(eq=False)
class Log:
    """What a sampler tells beside its proposals."""

    predictors: list[PredictorQuality] = field(default_factory=list)


@dataclass(frozen=True)
class Sampler(ABC):
    """One way to choose what is evaluated next; its fields are its YAML keys."""

    name: ClassVar[str]
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @abstractmethod
    def run(self, task: Task, log: Log) -> Asking:
        """Ask until the task's evaluations are used up, or nothing is left to ask for."""


def samplers() -> Registry[Sampler]:
    """All samplers, by name."""
    from edgesmith.pipeline.registry import Registry

    package, group = "edgesmith.nas.samplers", "edgesmith.samplers"
    return Registry("sampler", package, group, Sampler)  # type: ignore[type-abstract]
