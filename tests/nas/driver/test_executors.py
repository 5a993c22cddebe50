"""What every executor does, and what those with workers do beside it.

Another executor inherits all of it: it is listed by the registry, and configured here.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from edgesmith.nas.archive import Archive
from edgesmith.nas.driver import search
from edgesmith.nas.executors import _crew
from edgesmith.nas.executors.base import Choices, Executor, Factory, Outcome, executors
from edgesmith.nas.executors.pool import Pool
from edgesmith.nas.executors.ray import Ray
from edgesmith.nas.executors.serial import Serial
from edgesmith.pipeline.errors import EvaluationError, SearchError, ToolMissingError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.stage import SilentProgress
from tests.examples.loading import example
from tests.guards.repository import ROOT
from tests.nas.driver.searches import SPACE, Trouble, Walk, batch, metrics_of, task

Configured = Callable[..., Executor]
WITH_WORKERS = ("pool", "ray")


def configured(name: str, request: pytest.FixtureRequest) -> Configured:
    if name == "ray":
        request.getfixturevalue("cluster")
    kind: Any = executors().get(name)
    return kind if name == "serial" else lambda **options: kind(**{"workers": 2, **options})


@pytest.fixture(params=["serial", *WITH_WORKERS])
def any_executor(request: pytest.FixtureRequest) -> Configured:
    return configured(request.param, request)


@pytest.fixture(params=WITH_WORKERS)
def with_workers(request: pytest.FixtureRequest) -> Configured:
    return configured(request.param, request)


def outcomes(executor: Executor, make: Factory, asked: Sequence[Choices]) -> list[Outcome]:
    with executor.opened(make) as evaluations:
        found = dict(evaluations(asked))
    return [found[place] for place in range(len(asked))]


def good(choices: Choices) -> Outcome:
    return Outcome(dict(metrics_of(choices)))


def test_every_executor_is_tested_here() -> None:
    assert executors().names() == tuple(sorted(("serial", *WITH_WORKERS)))


@pytest.mark.parametrize("name", ["serial", *WITH_WORKERS])
def test_an_executor_round_trips_to_json_and_pickle(name: str) -> None:
    executor = executors().get(name)()
    assert from_json(type(executor), to_json(executor)) == executor
    assert pickle.loads(pickle.dumps(executor)) == executor  # noqa: S301


def test_a_search_finds_the_same_with_every_executor(
    any_executor: Configured, tmp_path: Path
) -> None:
    found = []
    for executor in (Serial(), any_executor()):
        with Archive.opened(tmp_path / executor.name, SPACE, {}) as archive:
            progress = SilentProgress()
            found.append(search(task(), Walk(), Trouble(), executor, archive, progress))
    assert found[0] == found[1]
    assert (tmp_path / "serial").read_bytes() == (tmp_path / any_executor().name).read_bytes()


def test_batches_come_one_after_the_other(any_executor: Configured) -> None:
    with any_executor().opened(Trouble()) as evaluations:
        for asked in (batch(32, 16, 8), batch(), batch(16)):
            assert sorted(evaluations(asked), key=lambda each: each[0]) == [
                (place, good(each)) for place, each in enumerate(asked)
            ]


def test_an_error_of_a_candidate_is_its_outcome(any_executor: Configured) -> None:
    found = outcomes(any_executor(), Trouble("refuses"), batch(16))
    assert found == [Outcome(error="ES410: no kernel is that wide")]


def test_a_defect_ends_the_search_and_shows_where_it_is(any_executor: Configured) -> None:
    with pytest.raises(EvaluationError, match=r"width:a=16.*ValueError: a defect") as caught:
        outcomes(any_executor(), Trouble("raises"), batch(16))
    assert "searches.py" in caught.value.__notes__[0]


def test_what_refuses_to_load_ends_the_search(any_executor: Configured) -> None:
    with pytest.raises(EvaluationError, match="no such operator") as caught:
        outcomes(any_executor(), Trouble("load refuses"), batch(32))
    assert caught.value.fix == "use another"


def test_what_workers_cannot_import_ends_the_search(
    with_workers: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("only_here")
    exec("def make(): return dict", vars(module))  # noqa: S102
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(EvaluationError, match="No module named 'only_here'") as caught:
        outcomes(with_workers(), module.make, batch(32))
    assert "Traceback" in caught.value.__notes__[0]


def test_a_worker_that_dies_is_replaced_and_its_candidate_tried_again(
    with_workers: Configured, tmp_path: Path
) -> None:
    asked = batch(16, 32, 8)
    found = outcomes(with_workers(workers=1), Trouble("once", tmp_path), asked)
    assert found == [good(each) for each in asked]
    assert (tmp_path / "died").exists()


def test_a_candidate_that_kills_its_workers_fails_alone(
    with_workers: Configured, tmp_path: Path
) -> None:
    asked = batch(32, 16, 8, 32)
    found = outcomes(with_workers(retries=1), Trouble("dies", tmp_path), asked)
    assert found[1].error.startswith("the worker ")
    assert found[1].error.endswith(" in each of 2 attempts")
    assert [each for place, each in enumerate(found) if place != 1] == [
        good(each) for place, each in enumerate(asked) if place != 1
    ]


def test_an_evaluation_that_hangs_is_cut_off(with_workers: Configured) -> None:
    asked = batch(32, 16, 8)
    begun = time.monotonic()
    hasty = with_workers(workers=1, retries=0, timeout_s=0.5)
    found = outcomes(hasty, Trouble("hangs"), asked)
    assert time.monotonic() - begun < 60
    assert found[1] == Outcome(error="the worker gave no result within 0.5 s")
    assert (found[0], found[2]) == (good(asked[0]), good(asked[2]))


def test_workers_that_die_while_loading_end_the_search(with_workers: Configured) -> None:
    with pytest.raises(EvaluationError, match="no worker can load what evaluates"):
        outcomes(with_workers(retries=0), Trouble("load dies"), batch(32))


def test_workers_that_never_get_ready_end_the_search(
    with_workers: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_crew, "LOADING_S", 0.01)
    with pytest.raises(EvaluationError, match=r"was not ready within 0\.01 s"):
        outcomes(with_workers(retries=0), Trouble(), batch(32))


def test_workers_have_one_thread_each(with_workers: Configured) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    assert outcomes(with_workers(), Trouble("threads"), batch(16)) == [
        Outcome({"OMP_NUM_THREADS": 1.0})
    ]
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_processes_end_with_the_search() -> None:
    with Pool(workers=2).opened(Trouble()) as evaluations:
        assert len(list(evaluations(batch(32, 32)))) == 2
        workers = _workers(os.getpid())
        assert workers
    assert not _left(workers)


SCRIPT = """
import os, signal, subprocess, sys, time
from edgesmith.nas.executors.pool import Pool

class Endless:
    def __call__(self):
        return self.evaluate

    def evaluate(self, choices):
        subprocess.Popen(["sleep", "600"])
        open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
        time.sleep(600)

if __name__ == "__main__":
    # A shell that runs the tests in the background has them ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Pool(workers=2).opened(Endless()) as evaluations:
        list(evaluations([{}, {}]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_search_that_is_killed_leaves_no_process_behind(
    tmp_path: Path, how: signal.Signals
) -> None:
    script, notes = tmp_path / "endless.py", tmp_path / "notes"
    script.write_text(SCRIPT)
    notes.mkdir()
    killed = subprocess.Popen(
        [sys.executable, str(script), str(notes)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert _soon(lambda: len(list(notes.iterdir())) == 2)
        started = psutil.Process(killed.pid).children(recursive=True)
        assert sum(each.name() == "sleep" for each in started) == 2
    finally:
        killed.send_signal(how)
    killed.wait(60)
    assert _soon(lambda: not _left(started))


@pytest.mark.usefixtures("cluster")
def test_the_example_searches_on_the_node_with_the_board(tmp_path: Path) -> None:
    cloudpickle: Any = pytest.importorskip("ray.cloudpickle")
    searched = example("ray_cluster", "search.py:found_on_the_board")
    cloudpickle.register_pickle_by_value(sys.modules[searched.__module__])  # as if run
    found = searched(tmp_path / "archive", 4)
    assert not any(trial.failed for trial in found.trials)
    assert found.trials[found.chosen].metrics["weight_bytes"] <= 4096


def test_a_node_that_is_lost_leaves_its_candidate_to_the_others(
    cluster: Any, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(num_cpus=1, resources={"spare": 1}) for _ in range(2)]

    def lose() -> None:
        assert _soon((tmp_path / "died").exists)
        (lost,) = (each for each in nodes if each.node_id == (tmp_path / "died").read_text())
        nodes.remove(lost)
        cluster.remove_node(lost, allow_graceful=False)

    asked = batch(16, 32, 8, 32)
    try:
        with ThreadPoolExecutor() as beside:
            losing = beside.submit(lose)
            found = outcomes(Ray(resources={"spare": 1}), Trouble("with node", tmp_path), asked)
            losing.result()
    finally:
        for node in nodes:
            cluster.remove_node(node)
    assert found == [good(each) for each in asked]
    assert len(nodes) == 1


@pytest.mark.usefixtures("cluster")
def test_a_resource_that_no_node_has_is_an_error() -> None:
    with pytest.raises(SearchError, match="no node of the Ray cluster offers CPU: 1, fpga: 1"):
        outcomes(Ray(resources={"fpga": 1}), Trouble(), batch(32))


def test_a_cluster_of_this_machine_is_started_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.exceptions", fake)
    with Ray(workers=3, resources={"CPU": 2}).opened(Trouble()):
        assert (fake.address, fake.options["num_cpus"]) == ("local", 6)
        assert fake.options["include_dashboard"] is False
        assert fake.statistics == "0"
    assert not fake.is_initialized()
    with pytest.raises(SearchError, match="no way to the Ray cluster nowhere:1: no route"):
        outcomes(Ray(address="nowhere:1"), Trouble(), batch(32))


class FakeRay(ModuleType):
    """As much of Ray as connecting to it needs."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = self.cloudpickle = self
        self.address = ""
        self.options: dict[str, Any] = {}

    def is_initialized(self) -> bool:
        return bool(self.address)

    def init(self, address: str, **options: Any) -> None:
        if address != "local":
            raise ConnectionError("no route")
        self.address, self.options = address, options
        self.statistics = os.environ["RAY_USAGE_STATS_ENABLED"]

    def shutdown(self) -> None:
        self.address = ""

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 6.0}}]

    def dumps(self, make: Factory) -> bytes:
        return b""

    def remote(self, kind: type) -> Any:
        return SimpleNamespace(options=lambda **_: kind)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ToolMissingError) as caught:
        outcomes(Ray(), Trouble(), batch(32))
    assert "pip install 'edgesmith[ray]'" in caught.value.fix


def _workers(process: int) -> list[psutil.Process]:
    return [
        each
        for each in psutil.Process(process).children()
        if "spawn_main" in " ".join(each.cmdline())
    ]


def _left(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [
        each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE
    ]


def _soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()
