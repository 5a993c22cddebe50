"""The archive: every evaluation of a search, one line of JSON each, appended and never rewritten.

    {"archive": {"format": 1, "facts": {...}}, "check": "..."}
    {"trial": {...}, "check": "..."}

`facts` are digests of what the evaluations rest on: the space, and what the caller names beside it
(task, data, model). The check of a line is over its content and the facts, so no trial of another
search is ever taken for one of this. A line that is torn (its writer was killed) or damaged is
skipped and reported; the others stay good.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from edgesmith.nas.space import Space
from edgesmith.nas.values import Trial
from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.errors import ArchiveError, CacheError
from edgesmith.pipeline.jsonvalue import adapter, to_data
from edgesmith.pipeline.spec import canonical_json

FORMAT = 1
_SHOWN = 16  # hexadecimal digits of a check


@dataclass(frozen=True)
class _About:
    format: int
    facts: dict[str, str]


@dataclass(frozen=True)
class Contents:
    """What an archive says.

    Args:
        known: `Space.key` of a candidate -> its trial, as it was numbered when it was evaluated.
        corrupted: numbers, from 1, of lines that cannot be read.
        torn: the last line has no end.
    """

    known: dict[str, Trial]
    corrupted: tuple[int, ...] = ()
    torn: bool = False


def read_archive(path: Path, space: Space, facts: Mapping[str, str]) -> Contents:
    """The archive in a file, also while a search is writing to it; empty where there is none.

    Raises:
        ArchiveError: it rests on something else, or another version of edgesmith wrote it.
        CacheError: the file cannot be read.
    """
    return _read(path, space, _with_space(facts, space))


def _read(path: Path, space: Space, facts: Mapping[str, str]) -> Contents:
    with cache_errors(path):
        content = path.read_bytes() if path.exists() else b""
    *lines, rest = content.split(b"\n")
    known: dict[str, Trial] = {}
    corrupted = []
    for number, line in enumerate([*lines, rest] if rest else lines, start=1):
        if entry := _content(line, facts):
            trial = adapter(Trial).validate_python(entry["trial"])
            known[space.key(space.of(trial.choices))] = trial
        elif header := _content(line, {}):
            _require_same(path, adapter(_About).validate_python(header["archive"]), facts)
        else:
            corrupted.append(number)
    return Contents(known, tuple(corrupted), torn=bool(rest))


class Archive:
    """An archive that is open to be written to.

    Args:
        contents: what it held when it was opened.
        others: trials of other searches that rest on the same; none that failed.
    """

    def __init__(
        self,
        path: Path,
        facts: Mapping[str, str],
        contents: Contents,
        others: Mapping[str, Trial] | None = None,
    ) -> None:
        self.path = path
        self.known = dict(contents.known)
        self.others = dict(others or {})
        self.corrupted = contents.corrupted
        self._facts = facts
        self._torn = contents.torn

    @classmethod
    @contextmanager
    def opened(
        cls, path: Path, space: Space, facts: Mapping[str, str], beside: Iterable[Path] = ()
    ) -> Iterator[Archive]:
        """The archive in a file, made if there is none; this process is its only writer.

        Args:
            beside: archives of other searches; what of them rests on something else, or cannot be
                read, is left out.

        Raises:
            ArchiveError: as `read_archive`, or another process is writing to it.
            CacheError: the file cannot be read or written.
        """
        with cache_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{path}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise ArchiveError(
                    f"another process is writing to {path}",
                    fix="wait until that search has ended, or give this one another archive",
                ) from None
        try:
            checked = _with_space(facts, space)
            if not path.exists():
                with cache_errors(path):
                    write_atomically(path, _header(checked))
            yield cls(path, checked, _read(path, space, checked), _others(beside, space, checked))
        finally:
            lock.release()

    def append(self, key: str, trial: Trial) -> None:
        """Add the trial of a candidate; it is on the disk when this returns.

        Args:
            key: `Space.key` of the candidate.

        Raises:
            CacheError: the file cannot be written.
        """
        line = _line({"trial": to_data(trial)}, self._facts)
        with cache_errors(self.path), self.path.open("ab") as stream:
            # what was left when a writer was killed, or its disk full, stays a line of its own
            stream.write(b"\n" + line if self._torn else line)
            self._torn = True
            stream.flush()
            os.fsync(stream.fileno())
        self._torn = False
        self.known[key] = trial


def _others(paths: Iterable[Path], space: Space, facts: Mapping[str, str]) -> dict[str, Trial]:
    """Trials of other archives by the key of their candidate; a failure may have been theirs
    alone.
    """
    found: dict[str, Trial] = {}
    for path in paths:
        with suppress(ArchiveError, CacheError):
            known = _read(path, space, facts).known
            found |= {key: trial for key, trial in known.items() if not trial.failed}
    return found


def _with_space(facts: Mapping[str, str], space: Space) -> dict[str, str]:
    digest = hashlib.sha256(canonical_json(to_data(space)).encode()).hexdigest()
    return {**facts, "space": digest}


def _header(facts: Mapping[str, str]) -> bytes:
    return _line({"archive": to_data(_About(FORMAT, dict(facts)))}, {})


def _line(content: dict[str, object], facts: Mapping[str, str]) -> bytes:
    checked = content | {"check": _check(content, facts)}
    # keys keep their order: a result with archived trials has the bytes of one without
    return json.dumps(checked, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _check(content: Mapping[str, object], facts: Mapping[str, str]) -> str:
    text = canonical_json([dict(facts), dict(content)])
    return hashlib.sha256(text.encode()).hexdigest()[:_SHOWN]


def _content(line: bytes, facts: Mapping[str, str]) -> dict[str, object]:
    """What a line says; nothing if it is damaged, or of other facts."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    check = content.pop("check", None)
    return content if check == _check(content, facts) else {}


def _require_same(path: Path, about: _About, facts: Mapping[str, str]) -> None:
    if about.format != FORMAT:
        raise ArchiveError(
            f"{path} has format {about.format}; this edgesmith reads format {FORMAT}",
            fix="use the edgesmith that wrote it, or give this search another archive",
        )
    names = sorted({*about.facts, *facts})
    other = [name for name in names if about.facts.get(name) != facts.get(name)]
    if other:
        raise ArchiveError(
            f"{path} holds evaluations of another {', '.join(other)}",
            fix="give this search another archive, or delete this one to begin anew",
        )
