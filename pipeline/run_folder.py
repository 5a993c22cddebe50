"""The folder of a run: what its reports are copied to, and how it is read again."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError

from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.results import DeploymentResult

RESULT = "result.json"
REPORT = "report.html"
RUN = "run.json"


@dataclass(frozen=True)
class TargetOutcome:
    """How a target came out. `folder` is None and `error` the message where it failed.

    `exit_code` is what the failure means to the command.
    """

    target: str
    folder: str | None
    ok: bool
    error: str | None = None
    exit_code: int = 0


def publish(outputs: Path, place: Path, target: str) -> TargetOutcome:
    """Copy the final stage's outputs to `place/<target>`, replacing what is there.

    Copies, not links: what a user edits must not change the cache.

    Raises:
        CacheError: the folder cannot be written, or the outputs have no valid result.
    """
    final = place / target
    with cache_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".lock"):
            for left in place.glob(f".{target}.*"):  # of a run that was killed here
                shutil.rmtree(left)
            token = secrets.token_hex(6)
            fresh, old = place / f".{target}.{token}.new", place / f".{target}.{token}.old"
            shutil.copytree(outputs, fresh, copy_function=shutil.copyfile)
            if final.exists():
                final.rename(old)
            fresh.rename(final)
            shutil.rmtree(old, ignore_errors=True)
    return TargetOutcome(target, str(final), read_result(final).ok)


def read_result(folder: Path) -> DeploymentResult:
    """The result in a run folder of one target.

    Raises:
        CacheError: there is none, or it is not what edgesmith writes.
    """
    path = folder / RESULT
    with cache_errors(folder):
        content = path.read_bytes()
    try:
        return from_json(DeploymentResult, content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise CacheError(
            f"{path} is no result of this edgesmith: {place}: {first['msg']}",
            fix="run the spec again; finished stages are cached",
        ) from error


def result_folders(folder: Path) -> tuple[Path, ...]:
    """The target folders of a run: the folder itself, or those in it.

    Raises:
        CacheError: there are none.
    """
    if (folder / RESULT).is_file():
        return (folder,)
    found = tuple(sorted(path.parent for path in folder.glob(f"*/{RESULT}")))
    if not found:
        raise CacheError(
            f"there is no {RESULT} in {folder} or in its folders",
            fix="give a run folder such as runs/NAME or runs/NAME/TARGET",
        )
    return found


def write_run(record: object, place: Path) -> Path:
    """Write a run's record as `run.json`.

    Raises:
        CacheError: the folder cannot be written.
    """
    path = place / RUN
    with cache_errors(place):
        os.makedirs(place, exist_ok=True)
        write_atomically(path, to_json(record).encode())
    return path
