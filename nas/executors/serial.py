"""Evaluates in this process, one candidate after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from edgesmith.nas.executors.base import (
    Broken,
    Choices,
    Evaluations,
    Executor,
    Factory,
    Outcome,
    attempt,
    load,
)


@dataclass(frozen=True)
class Serial(Executor):
    """No workers: what hangs or dies takes the search with it."""

    name: ClassVar[str] = "serial"

    @contextmanager
    def opened(self, make: Factory) -> Iterator[Evaluations]:
        evaluate = load(make)
        if isinstance(evaluate, Broken):
            raise evaluate.error()

        def evaluations(batch: Sequence[Choices]) -> Iterator[tuple[int, Outcome]]:
            for place, choices in enumerate(batch):
                outcome = attempt(evaluate, choices)
                if isinstance(outcome, Broken):
                    raise outcome.error()
                yield place, outcome

        yield evaluations
