"""Workers that may die or hang: what a pool of processes and a Ray cluster have in common.

Jobs go to whoever is free. Whoever dies, or gives no answer in time, is replaced, and its job
tried again; a job that fails so each time is an outcome with an error, and the others go on.
"""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgesmith.nas.executors.base import Broken, Choices, Loaded, Outcome
from edgesmith.pipeline.errors import EvaluationError

ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ),
    "1",
)
"""Read by NumPy and torch when they are imported: workers share the cores, not each takes all."""

LOADING_S = 600.0
"""For a worker to start and load models and data."""
_LONGEST_WAIT_S = 60.0  # what selectors take is limited


@dataclass(frozen=True)
class Lost:
    """A worker is gone.

    Args:
        reason: a clause that has the worker as its subject.
    """

    reason: str


Reply = Loaded | Outcome | Broken | Lost


class Worker(ABC):
    """Loads the evaluation as soon as it is made, then takes one job at a time."""

    @abstractmethod
    def send(self, choices: Choices) -> None:
        """Begin an evaluation; if the worker is gone, its reply says so."""

    @abstractmethod
    def reply(self) -> Reply:
        """What it says, where it has something to say."""

    @abstractmethod
    def end(self) -> None:
        """Let it go; it has no job."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once; it may be gone already."""


W = TypeVar("W", bound=Worker)


@dataclass(frozen=True)
class Limits:
    """How many workers, and how much patience.

    Args:
        retries: further attempts at a job whose worker died or hung.
        timeout_s: for one evaluation.
    """

    workers: int
    retries: int
    timeout_s: float


@dataclass(eq=False)
class _Job:
    place: int
    choices: Choices
    failures: int = 0


@dataclass(eq=False)
class _Post(Generic[W]):
    """A worker, what it does, and until when it may; no deadline while it has nothing to do."""

    worker: W
    deadline: float
    loaded: bool = False
    job: _Job | None = None


class Crew(Generic[W]):
    """Workers, hired when there is work.

    Args:
        hire: starts a worker.
        heard: of some workers, those with a reply; waits up to so many seconds for the first.
    """

    def __init__(
        self,
        hire: Callable[[], W],
        heard: Callable[[Sequence[W], float], Sequence[W]],
        limits: Limits,
    ) -> None:
        self._hire = hire
        self._heard = heard
        self._limits = limits
        self._posts: list[_Post[W]] = []
        self._waiting: deque[_Job] = deque()
        self._false_starts = 0

    def evaluations(self, batch: Sequence[Choices]) -> Iterator[tuple[int, Outcome]]:
        """As `base.Evaluations`."""
        self._waiting = deque(_Job(place, choices) for place, choices in enumerate(batch))
        while self._waiting or any(post.job for post in self._posts):
            self._staff()
            for post, reply in self._news():
                done = self._settle(post, reply)
                if done is not None:
                    yield done

    def dismiss(self) -> None:
        """End all workers."""
        while self._posts:
            post = self._posts.pop()
            if post.loaded and post.job is None:
                post.worker.end()
            else:
                post.worker.kill()

    def _staff(self) -> None:
        """Give jobs to whoever is free, and hire for the others."""
        for post in self._posts:
            if self._waiting and post.loaded and post.job is None:
                post.job = self._waiting.popleft()
                post.deadline = time.monotonic() + self._limits.timeout_s
                post.worker.send(post.job.choices)
        loading = sum(not post.loaded for post in self._posts)
        places = self._limits.workers - len(self._posts)
        for _ in range(min(len(self._waiting) - loading, places)):
            self._posts.append(_Post(self._hire(), time.monotonic() + LOADING_S))

    def _news(self) -> list[tuple[_Post[W], Reply]]:
        """What workers reply, as soon as one does; those whose time is over are lost."""
        patience = min(post.deadline for post in self._posts) - time.monotonic()
        workers = [post.worker for post in self._posts]
        replying = self._heard(workers, min(max(patience, 0.0), _LONGEST_WAIT_S))
        now = time.monotonic()
        return [
            (post, post.worker.reply() if post.worker in replying else self._late(post))
            for post in self._posts
            if post.worker in replying or post.deadline <= now
        ]

    def _late(self, post: _Post[W]) -> Lost:
        if post.loaded:
            return Lost(f"gave no result within {self._limits.timeout_s:g} s")
        return Lost(f"was not ready within {LOADING_S:g} s")

    def _settle(self, post: _Post[W], reply: Reply) -> tuple[int, Outcome] | None:
        """Take note of a reply; the place and outcome of a job if that ends it.

        Raises:
            EvaluationError: there is no use in going on.
        """
        job, post.job, post.deadline = post.job, None, math.inf
        if isinstance(reply, Broken):
            raise reply.error()
        if isinstance(reply, Lost):
            self._posts.remove(post)
            post.worker.kill()
            if job is not None:
                return self._failed(job, reply)
            if not post.loaded:
                self._count_false_start(reply)
        if isinstance(reply, Loaded):
            post.loaded = True
            self._false_starts = 0
        return (job.place, reply) if job is not None and isinstance(reply, Outcome) else None

    def _failed(self, job: _Job, lost: Lost) -> tuple[int, Outcome] | None:
        job.failures += 1
        if job.failures <= self._limits.retries:
            self._waiting.appendleft(job)
            return None
        tried = f" in each of {job.failures} attempts" if job.failures > 1 else ""
        return job.place, Outcome(error=f"the worker {lost.reason}{tried}")

    def _count_false_start(self, lost: Lost) -> None:
        self._false_starts += 1
        at_work = any(post.loaded for post in self._posts)
        if not at_work and self._false_starts > self._limits.retries:
            raise EvaluationError(
                f"no worker can load what evaluates candidates: the last one {lost.reason}",
                fix="see what the workers print; use fewer of them if memory is short",
            )


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that processes started meanwhile inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
