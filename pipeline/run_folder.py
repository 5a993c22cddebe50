"""The folder of a run: what its reports are copied to, and how it is read again."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
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
OVERVIEW = "overview.html"


@dataclass(frozen=True)
class TargetOutcome:
    """How a target came out. `folder` is None where there is no result.

    `error` is the message of a target that failed, and `exit_code` what that means to the
    command; `skipped` says why this machine cannot run a target, which is no failure.
    """

    target: str
    folder: str | None
    ok: bool
    error: str | None = None
    exit_code: int = 0
    skipped: str | None = None


def publish(outputs: Path, place: Path, target: str) -> TargetOutcome:
    """Copy the final stage's outputs to `place/<target>`, replacing what is there.

    Copies, not links: what a user edits must not change the cache.

    Raises:
        CacheError: the folder cannot be written, or the outputs have no valid result.
    """
    final = place / target

    def copy(fresh: Path) -> None:
        shutil.copytree(outputs, fresh, copy_function=shutil.copyfile)

    _replace(final, copy)
    return TargetOutcome(target, str(final), read_result(final).ok)


def publish_skipped(
    files: Mapping[str, str], place: Path, target: str, reason: str
) -> TargetOutcome:
    """Write what says that a target was skipped to `place/<target>`, replacing what is there.

    Args:
        files: name -> text.

    Raises:
        CacheError: the folder cannot be written.
    """

    def write(fresh: Path) -> None:
        fresh.mkdir()
        for name, text in files.items():
            (fresh / name).write_text(text, encoding="utf-8")

    _replace(place / target, write)
    return TargetOutcome(target, None, ok=True, skipped=reason)


def _replace(final: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder that `fill` makes in another's place; a kill leaves one of the two."""
    place, name = final.parent, final.name
    with cache_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".lock"):
            for left in place.glob(f".{name}.*"):  # of a run that was killed here
                shutil.rmtree(left)
            token = secrets.token_hex(6)
            fresh, old = place / f".{name}.{token}.new", place / f".{name}.{token}.old"
            fill(fresh)
            if final.exists():
                final.rename(old)
            fresh.rename(final)
            shutil.rmtree(old, ignore_errors=True)


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


def write_overview(name: str, outcomes: Sequence[TargetOutcome], place: Path) -> Path:
    """Write the page of all targets of a run as `overview.html`.

    Raises:
        CacheError: a result cannot be read, or the folder cannot be written.
    """
    from edgesmith.reports.overview import TargetEntry, render_overview

    entries = [
        TargetEntry(
            outcome.target,
            None if outcome.folder is None else read_result(place / outcome.target),
            error=outcome.error or "",
            skipped=outcome.skipped or "",
        )
        for outcome in outcomes
    ]
    path = place / OVERVIEW
    page = render_overview(name, entries)
    with cache_errors(place):
        write_atomically(path, page.encode())
    return path


@dataclass(frozen=True)
class _Outcomes:
    """The part of `run.json` that the overview shows."""

    name: str
    targets: tuple[TargetOutcome, ...]


def write_overview_again(place: Path) -> Path | None:
    """Write `overview.html` from `run.json` and the results; None where there is no `run.json`.

    Raises:
        CacheError: a file is damaged, or the folder cannot be written.
    """
    path = place / RUN
    if not path.is_file():
        return None
    try:
        found = from_json(_Outcomes, path.read_bytes())
    except ValidationError as error:
        raise CacheError(
            f"{path} is no record of a run", fix="run the spec again; finished stages are cached"
        ) from error
    return write_overview(found.name, found.targets, place)
