"""Evaluates in processes of this machine, each with one thread.

A worker leads a process group of its own: what it has started (a compiler, an emulator) goes with
it, and Ctrl-C reaches the search only, which then ends its workers. If the search itself is killed,
its workers notice and end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import ClassVar

from edgesmith.nas.executors._crew import (
    ONE_THREAD,
    Crew,
    Limits,
    Lost,
    Reply,
    Worker,
    environment,
)
from edgesmith.nas.executors.base import (
    Broken,
    Choices,
    Count,
    Evaluation,
    Evaluations,
    Executor,
    Factory,
    Loaded,
    Retries,
    Seconds,
    attempt,
    load,
)

_GRACE_S = 5.0  # for an idle worker to end by itself
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold


@dataclass(frozen=True)
class Pool(Executor):
    """Processes that are replaced when they die or hang.

    Args:
        workers: how many; None for one per core.
        retries: further attempts at a candidate whose worker died or hung.
        timeout_s: for one evaluation; a worker that needs longer is killed.
    """

    name: ClassVar[str] = "pool"
    workers: Count | None = None
    retries: Retries = 1
    timeout_s: Seconds = 3600.0

    @contextmanager
    def opened(self, make: Factory) -> Iterator[Evaluations]:
        workers = self.workers or os.cpu_count() or 1
        limits = Limits(workers, self.retries, self.timeout_s)
        crew = Crew(partial(_Process, make), _heard, limits)
        try:
            yield crew.evaluations
        finally:
            crew.dismiss()


class _Process(Worker):
    """A process at the other end of a pipe."""

    def __init__(self, make: Factory) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work, args=(theirs,))
        with environment(ONE_THREAD):
            self._process.start()
        assert self._process.pid is not None
        self._group = self._process.pid
        self._gone = False
        theirs.close()
        self._send(make)

    def send(self, choices: Choices) -> None:
        self._send(choices)

    def reply(self) -> Reply:
        try:
            reply: Reply = self.connection.recv()
        except (EOFError, OSError):
            return Lost(self._fate())
        return reply

    def end(self) -> None:
        self.connection.close()
        wait([self._process.sentinel], _GRACE_S)
        self.kill()

    def kill(self) -> None:
        if self._gone:  # and its number may be another's by now
            return
        self._gone = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _send(self, message: Choices | Factory) -> None:
        with suppress(OSError):  # it has died; `reply` says so
            self.connection.send(message)

    def _fate(self) -> str:
        wait([self._process.sentinel], _GRACE_S)
        self.kill()
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL:
            return "was killed; memory may have run out"
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"


def _heard(workers: Sequence[_Process], patience_s: float) -> Sequence[_Process]:
    ready = wait([each.connection for each in workers], patience_s)
    return [each for each in workers if each.connection in ready]


def _work(connection: Connection) -> None:
    """What a worker does: load, then evaluate until nobody asks any more."""
    os.setsid()
    Thread(target=_end_with_the_search, daemon=True).start()
    evaluate = load(partial(_made, connection))
    if isinstance(evaluate, Broken):
        connection.send(evaluate)
        return
    with suppress(EOFError, BrokenPipeError):
        connection.send(Loaded())
        while True:
            connection.send(attempt(evaluate, connection.recv()))


def _made(connection: Connection) -> Evaluation:
    make: Factory = connection.recv()
    return make()


def _end_with_the_search() -> None:
    search = multiprocessing.parent_process()
    if search is not None:
        search.join()
        os.killpg(0, signal.SIGKILL)
