"""How evaluations speed up with the workers of a Ray cluster.

The workers are simulated: evaluations sleep, as those do that wait for a board, so that one
machine with few cores shows what the executor itself costs. Both times are of one run, and start
when all workers are ready.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import ray
from rows import Row

from edgesmith.nas.executors.base import Choices, Evaluation
from edgesmith.nas.executors.ray import Ray
from edgesmith.nas.values import Metrics

WORKERS = 8
SLEEP_MS = 200
TASKS_PER_WORKER = 10


def ray_workers(folder: Path) -> Iterator[Row]:
    """Eight workers against one."""
    yield Row(
        f"ray {WORKERS} workers of 0.2 s",
        speedup(WORKERS),
        "times one worker",
        "simulated",
        7.0,
        "higher",
    )


def speedup(workers: int = WORKERS) -> float:
    """Wall time with one worker over that with several, of the same evaluations of 0.2 s."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local",
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        tasks = workers * TASKS_PER_WORKER
        return _seconds(1, tasks) / _seconds(workers, tasks)
    finally:
        ray.shutdown()


def sleeper() -> Evaluation:
    """An evaluation that takes its time and says where it ran."""

    def evaluate(choices: Choices) -> Metrics:
        time.sleep(int(choices["milliseconds"]) / 1000)
        return {"worker": os.getpid()}

    return evaluate


def _seconds(workers: int, tasks: int) -> float:
    """Wall time of so many evaluations once all workers have answered."""
    asked: list[Choices] = [{"milliseconds": SLEEP_MS}] * tasks
    with Ray(workers=workers).opened(sleeper) as evaluations:
        ready: set[float] = set()
        while len(ready) < workers:
            ready |= {each.metrics["worker"] for _, each in evaluations(asked[: 2 * workers])}
        begun = time.perf_counter()
        list(evaluations(asked))
        return time.perf_counter() - begun
