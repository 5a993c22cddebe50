"""The default example with its search, in time, and killed again and again.

It is copied, so that nothing is known: the time is that of a user's first run, from training the
model to the report.
Every start is killed at another moment, drawn by a seed, wherever it is by then.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deployments import ROOT, edgesmith
from rows import Row

from edgesmith.nas.values import SearchResult
from edgesmith.pipeline.jsonvalue import from_json
from edgesmith.pipeline.results import DeploymentResult

EXAMPLES = ROOT / "examples"
SPEC, MODEL = "joint_search.yaml", "mnist"
MINUTES, EVALUATIONS = 10.0, 200
KILLS = 10
KILLED = 0.02, 0.15
"""Between which shares of an undisturbed run; ten of them do not add up to one."""
SEED = 0


def example(folder: Path) -> Iterator[Row]:
    """One run to the end, and one that is killed ten times on the way."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        yield from _example(Path(fresh))


def _example(folder: Path) -> Iterator[Row]:
    once, often = (_copied(folder / name) for name in ("once", "often"))
    seconds = edgesmith(*_run(once))
    whole, kills = _found(once), 0
    evaluations = len(whole.trials)
    yield Row("default example: evaluations", evaluations, "", goal=EVALUATIONS, better="higher")
    yield Row("default example: from training to report", seconds / 60, "min", goal=MINUTES)
    moments = random.Random(SEED)
    for _ in range(KILLS):
        kills += _killed(often, moments.uniform(*KILLED) * seconds)
    edgesmith(*_run(often))
    goal = float(KILLS)
    yield Row("default example: kills on the way", kills, "", goal=goal, better="higher")
    label = "default example: the same front and choice after them"
    yield Row(label, float(_found(often) == whole), "", goal=1.0, better="higher")


def _copied(folder: Path) -> Path:
    """The example's files in a folder of their own, without what runs have left beside them."""
    shutil.copytree(EXAMPLES / MODEL, folder / MODEL, ignore=shutil.ignore_patterns(".*", "__*"))
    shutil.copyfile(EXAMPLES / SPEC, folder / SPEC)
    return folder


def _run(folder: Path) -> list[str]:
    cache, runs = folder / "cache", folder / "runs"
    return ["run", str(folder / SPEC), "--cache", str(cache), "--out", str(runs)]


def _killed(folder: Path, seconds: float) -> bool:
    """Whether a run was still under way when it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgesmith", *_run(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def _found(folder: Path) -> SearchResult:
    (path,) = (folder / "runs").glob("*/*/result.json")
    found = from_json(DeploymentResult, path.read_bytes()).search
    assert found is not None
    return found
