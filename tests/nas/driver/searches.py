"""A small search without a model: its space, its task, a sampler, and evaluations that go wrong."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np

from edgesmith.nas.executors.base import Choices, Evaluation, Evaluations, Executor, Factory, load
from edgesmith.nas.executors.serial import Serial
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.space import Candidate, Gene, Moot, Space
from edgesmith.nas.values import Constraint, Metrics, Objective, PredictorQuality, Proposal, Task
from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.errors import UnsupportedError

SPACE = Space(
    (
        Gene("width:a", (32, 16, 8)),
        Gene("depth:b", (1, 0)),
        Gene("weights:b", ("int8", "int4", "int2")),
        Gene("activations:a", ("int8", "int4")),
    ),
    (Moot("depth:b", 0, ("weights:b",)),),
)
SEEDS = (
    Proposal((0, 0, 0, 0), "seed: trained model"),
    Proposal((2, 1, 0, 1), "seed: smallest"),
    Proposal((0, 0, 1, 1), "seed: uniform int4"),
)
BITS = {"int8": 8, "int4": 4, "int2": 2}


def metrics_of(choices: Choices) -> Metrics:
    """A made-up accuracy that is better the more there is of everything."""
    width, depth = int(choices["width:a"]), int(choices["depth:b"])
    bits = BITS[str(choices["weights:b"])], BITS[str(choices["activations:a"])]
    return {"accuracy": 1 - 1 / (width * bits[1]) - (0.1 if not depth else 0.3 / bits[0])}


def size_of(candidate: Candidate) -> Metrics:
    choices = SPACE.choices(candidate)
    return {"bytes": int(choices["width:a"]) * (1 + int(choices["depth:b"]))}


def task(*constraints: Constraint, evaluations: int = 18, seed: int = 1) -> Task:
    objectives = (Objective("accuracy", "higher"), Objective("bytes", "lower"))
    return Task(SPACE, objectives, constraints, size_of, SEEDS, evaluations, seed)


@dataclass(frozen=True)
class Walk(Sampler):
    """Asks in fours for candidates near the best so far: what it asks depends on every trial."""

    name: ClassVar[str] = "walk"

    def run(self, task: Task, log: Log) -> Asking:
        generator = np.random.default_rng(task.seed)
        trials = list((yield task.seeds))
        asked = {each.candidate for each in task.seeds}
        while len(trials) < task.evaluations:
            good = [each.choices for each in trials if not each.failed]
            best = max(good, key=lambda each: metrics_of(each)["accuracy"], default=None)
            batch: list[Proposal] = []
            while len(batch) < min(4, task.evaluations - len(trials)):
                drawn = list(task.space.drawn(generator))
                drawn[0] = task.space.of(best)[0] if best and generator.random() < 0.5 else drawn[0]
                candidate = task.space.canonical(drawn)
                if candidate not in asked:
                    batch.append(Proposal(candidate, "walk"))
                    asked.add(candidate)
            trials += yield batch
        log.predictors.append(PredictorQuality("accuracy", len(trials), ("none",), {}))


@dataclass(frozen=True)
class Unseeded(Sampler):
    """Asks for one candidate at a time, from the first one on."""

    name: ClassVar[str] = "unseeded"

    def run(self, task: Task, log: Log) -> Asking:
        for candidate in itertools.product(*map(range, task.space.sizes)):
            if task.space.canonical(candidate) == candidate:
                yield [Proposal(candidate, "in turn")]


@dataclass
class Counting:
    """Evaluates in this process and notes what; trouble first, where there is some."""

    trouble: Callable[[Choices], Metrics | None] = lambda _: None
    seen: list[Choices] = field(default_factory=list)

    def __call__(self) -> Evaluation:
        def evaluate(choices: Choices) -> Metrics:
            other = self.trouble(choices)
            self.seen.append(choices)
            return metrics_of(choices) if other is None else other

        return evaluate


@dataclass(frozen=True)
class Stopped(Serial):
    """Stops the search, as Ctrl-C does, after so many evaluations."""

    after: int = 0

    @contextmanager
    def opened(self, make: Factory) -> Iterator[Evaluations]:
        left = iter(range(self.after))
        evaluate = load(make)
        assert callable(evaluate)

        def stopping(choices: Choices) -> Metrics:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return evaluate(choices)

        with super().opened(lambda: stopping) as evaluations:
            yield evaluations


@dataclass(frozen=True)
class Backwards(Executor):
    """The last results come first."""

    name: ClassVar[str] = "backwards"

    @contextmanager
    def opened(self, make: Factory) -> Iterator[Evaluations]:
        with Serial().opened(make) as evaluations:
            yield lambda batch: reversed(list(evaluations(batch)))


@dataclass(frozen=True)
class NoneNeeded(Executor):
    """Cannot start."""

    name: ClassVar[str] = "none-needed"

    def opened(self, make: Factory) -> NoReturn:
        raise AssertionError


@dataclass(frozen=True)
class Trouble:
    """An evaluation, for workers, that goes wrong where the width is 16.

    Args:
        kind: how; `once` dies, and `with node` waits for the end of its node of a Ray cluster, only
            if the folder has no note of it yet.
        folder: for notes.
    """

    kind: str = "none"
    folder: Path = Path()

    def __call__(self) -> Evaluation:
        if self.kind == "load refuses":
            raise UnsupportedError("no such operator", fix="use another")
        if self.kind == "load dies":
            os._exit(3)
        return self.evaluate

    def evaluate(self, choices: Choices) -> Metrics:
        note = self.folder / "died"
        if choices["width:a"] != 16:
            return metrics_of(choices)
        if self.kind == "dies" or (self.kind == "once" and not note.exists()):
            note.touch()
            os._exit(3)
        if self.kind == "with node" and not note.exists():
            write_atomically(note, _node().encode())
            time.sleep(600)
        if self.kind == "hangs":
            time.sleep(600)
        if self.kind == "refuses":
            raise UnsupportedError("no kernel is that wide", fix="narrow it")
        if self.kind == "raises":
            raise ValueError("a defect")
        if self.kind == "threads":
            return {name: float(os.environ[name]) for name in ("OMP_NUM_THREADS",)}
        return metrics_of(choices)


def _node() -> str:
    """Of a Ray cluster, on which this runs."""
    import ray

    found: str = ray.get_runtime_context().get_node_id()
    return found


def batch(*widths: int) -> Sequence[Choices]:
    return [SPACE.choices(SPACE.of({"width:a": width})) for width in widths]
