"""Evaluates in actors of a Ray cluster, on as many machines as it has.

Each actor holds what evaluates, and takes one candidate at a time. `resources` says what an actor
needs: cores and GPUs as CPU and GPU, and whatever the cluster's nodes offer beside them. So with
`{cortex-m4: 1}` evaluations go where such a board is connected, one at a time per board. Every
node needs edgesmith, and the model and data at the paths that the search has them at.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Annotated, Any, ClassVar

from pydantic import Field

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
    Outcome,
    Retries,
    Seconds,
    attempt,
    load,
)
from edgesmith.pipeline.errors import SearchError, ToolMissingError

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
Amount = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Ray(Executor):
    """Actors that are replaced when they, or their machines, die or hang.

    Args:
        address: of a running cluster: `auto`, `HOST:6379` or `ray://HOST:10001`; None for one on
            this machine that ends with the search. A process that is connected to a cluster
            already stays with it.
        workers: how many actors, at most; None for as many as the cluster has room for.
        resources: what each actor needs; CPU is 1 unless it is named.
        retries: further attempts at a candidate whose worker was lost or hung.
        timeout_s: for one evaluation; a worker that needs longer is killed.
    """

    name: ClassVar[str] = "ray"
    address: str | None = None
    workers: Count | None = None
    resources: dict[str, Amount] = field(default_factory=dict)
    retries: Retries = 1
    timeout_s: Seconds = 3600.0

    @contextmanager
    def opened(self, make: Factory) -> Iterator[Evaluations]:
        ray = _imported()
        needs = {"CPU": 1.0, **self.resources}
        cpus = math.ceil((self.workers or os.cpu_count() or 1) * needs["CPU"])
        with _connected(ray, self.address, cpus):
            room = _room(ray, needs)
            limits = Limits(min(self.workers or room, room), self.retries, self.timeout_s)
            made = ray.cloudpickle.dumps(make)  # also takes what a script itself defines
            crew = Crew(partial(_Actor, ray, _remote(ray, needs), made), _heard, limits)
            try:
                yield crew.evaluations
            finally:
                crew.dismiss()


class Evaluator:
    """What an actor is, on its machine.

    Args:
        made: a pickled factory; unpickled here, so that what is missing here is reported as such.
    """

    def __init__(self, made: bytes) -> None:
        self._evaluate = load(partial(_made, made))

    def loaded(self) -> Loaded | Broken:
        """Whether it can evaluate."""
        return self._evaluate if isinstance(self._evaluate, Broken) else Loaded()

    def evaluate(self, choices: Choices) -> Outcome | Broken:
        """As `attempt`."""
        assert not isinstance(self._evaluate, Broken)
        return attempt(self._evaluate, choices)


def _made(made: bytes) -> Evaluation:
    make: Factory = pickle.loads(made)  # noqa: S301  # from the search itself, over Ray
    return make()


class _Actor(Worker):
    """An actor, and the one reply that is expected of it."""

    def __init__(self, ray: ModuleType, remote: Any, made: bytes) -> None:
        self.ray = ray
        self._actor = remote.remote(made)
        self.expected: Any = self._actor.loaded.remote()

    def send(self, choices: Choices) -> None:
        self.expected = self._actor.evaluate.remote(choices)

    def reply(self) -> Reply:
        expected, self.expected = self.expected, None
        try:
            reply: Reply = self.ray.get(expected)
        except self.ray.exceptions.RayError as error:
            return Lost(f"was lost: {type(error).__name__}: {_first_line(error)}")
        return reply

    def end(self) -> None:
        self._actor.__ray_terminate__.remote()

    def kill(self) -> None:
        self.ray.kill(self._actor)


def _heard(workers: Sequence[_Actor], patience_s: float) -> Sequence[_Actor]:
    expecting = {each.expected: each for each in workers if each.expected is not None}
    ready, _ = workers[0].ray.wait(list(expecting), timeout=patience_s)
    return [expecting[reference] for reference in ready]


def _imported() -> ModuleType:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ToolMissingError(
            f"the executor `ray` needs the package ray: {error}",
            fix="pip install 'edgesmith[ray]', or choose another executor",
        ) from error
    return ray


@contextmanager
def _connected(ray: ModuleType, address: str | None, cpus: int) -> Iterator[None]:
    """A connection to a cluster; one that is there already is used, and stays."""
    if ray.is_initialized():
        yield
        return
    here = {"num_cpus": cpus, "include_dashboard": False} if address is None else {}
    try:
        with environment(_QUIET):
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SearchError(
            f"there is no way to the Ray cluster {address or 'of this machine'}: "
            f"{_first_line(error)}",
            fix="check `address`, and that `ray status` works from here",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _room(ray: ModuleType, needs: Mapping[str, float]) -> int:
    """How many actors the nodes can hold.

    Raises:
        SearchError: none.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        min(int(node.get(name, 0.0) / amount) for name, amount in needs.items()) for node in nodes
    )
    if not room:
        offered = sorted({name for node in nodes for name in node if ":" not in name})
        wanted = ", ".join(f"{name}: {amount:g}" for name, amount in needs.items())
        raise SearchError(
            f"no node of the Ray cluster offers {wanted}",
            fix=f"start one with `ray start --resources`; the nodes offer {', '.join(offered)}",
        )
    return room


def _remote(ray: ModuleType, needs: Mapping[str, float]) -> Any:
    """The class of the actors."""
    others = {name: amount for name, amount in needs.items() if name not in {"CPU", "GPU"}}
    return ray.remote(Evaluator).options(
        num_cpus=needs["CPU"],
        num_gpus=needs.get("GPU", 0),
        resources=others,
        max_restarts=0,
        runtime_env={"env_vars": ONE_THREAD},
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
