"""The content-addressed cache of stage outputs.

Layout, below the cache folder:

    objects/<aa>/<key>/record.json, log.txt   what a stage with that key gave
    outputs/<aa>/<digest>/                    its files, by the digest of their contents
    latest/<spec>/<stage>[@target].json       the key a spec used last, to explain changes
    locks/  tmp/  logs/                       locks, work of running processes, logs

Output folders never change once they have their name: a stage that is run again
with other results makes another folder, so a reader is never disturbed. The
record is written last, complete and synced, by a rename; a process that is
killed leaves at most files in `tmp/` and an output folder that nothing names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout
from pydantic import ValidationError

from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.errors import StageError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.spec import canonical_json

FORMAT = 1  # of keys and records


@dataclass(frozen=True)
class FileDigest:
    """One output file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class StageRecord:
    """What one run of a stage gave, and everything it depended on.

    `parts` are the named parts of the key; `digest` covers names and contents of
    all `outputs`. `started` is UTC in ISO form, `seconds` wall time.
    """

    key: str
    stage: str
    target: str | None
    parts: dict[str, str]
    outputs: dict[str, FileDigest]
    digest: str
    started: str
    seconds: float
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Damage:
    """Why a cached result cannot be used."""

    record: StageRecord | None
    reason: str


def key_of(parts: Mapping[str, str]) -> str:
    """SHA-256 over the named parts; their order does not matter."""
    return hashlib.sha256(canonical_json([FORMAT, dict(parts)]).encode()).hexdigest()


class Cache:
    """A cache folder, opened by one process. Use as a context manager around writes.

    Raises:
        CacheError: from any method, when the folder cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._session: FileLock | None = None
        self._workspace = self.folder / "tmp" / f"{os.getpid()}-{secrets.token_hex(6)}"

    def __enter__(self) -> Cache:
        with cache_errors(self.folder), self._lock("session"):
            (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
            self._sweep()
            self._workspace.mkdir()
            self._session = FileLock(str(self._workspace) + ".alive")
            self._session.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._workspace, ignore_errors=True)
        if self._session is not None:
            self._session.release()
            Path(self._session.lock_file).unlink(missing_ok=True)
            self._session = None

    def outputs_of(self, record: StageRecord) -> Path:
        """The folder with a record's files."""
        return self.folder / "outputs" / record.digest[:2] / record.digest

    def log_of(self, key: str) -> Path:
        """The log of the run that made a result."""
        return self._object(key) / "log.txt"

    def lookup(self, key: str, *, verify: bool) -> StageRecord | Damage | None:
        """A result by its key; None when there is none.

        Args:
            verify: hash every file. Otherwise only names and sizes are compared.
        """
        path = self._object(key) / "record.json"
        with cache_errors(self.folder):
            record = _read_record(path)
            if record is None:
                return Damage(None, f"{path} is damaged") if path.exists() else None
            if record.key != key or key_of(record.parts) != key:
                return Damage(None, f"{path} belongs to another key")
            reason = _difference(record, self.outputs_of(record), verify=verify)
        return Damage(record, reason) if reason else record

    def discard(self, key: str, damage: Damage) -> None:
        """Remove a damaged result, so that it is made again."""
        with cache_errors(self.folder):
            (self._object(key) / "record.json").unlink(missing_ok=True)
            if damage.record is not None:
                self._remove(self.outputs_of(damage.record))

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Hold the right to make the result of `key`; waits for another process that does."""
        with cache_errors(self.folder):
            lock = self._lock(key)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def is_being_made(self, key: str) -> bool:
        """Whether another process holds `locked(key)` at this moment."""
        with cache_errors(self.folder):
            lock = self._lock(key)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return True
            lock.release()
        return False

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty folder in the cache's file system; removed afterwards if still there."""
        folder = self._workspace / secrets.token_hex(6)
        with cache_errors(self.folder):
            folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def log_path(self, stage: str, target: str | None, key: str) -> Path:
        """Where a running stage logs; stays there when the stage fails or is killed."""
        path = self.folder / "logs" / f"{_label(stage, target)}-{key[:12]}.log"
        with cache_errors(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def digest(self, folder: Path, stage: str) -> tuple[dict[str, FileDigest], str]:
        """Digests of the files that a stage left in a folder, and the digest of them all.

        Raises:
            StageError: the folder holds something that is neither a file nor a folder.
        """
        with cache_errors(self.folder):
            for path in folder.rglob("*"):
                if path.is_symlink() or not (path.is_file() or path.is_dir()):
                    raise StageError(
                        f"stage {stage!r} left {path.name!r}, which is no regular file",
                        fix="write files and folders only, no links",
                    )
            outputs = _digests(folder)
        flat = {name: each.sha256 for name, each in outputs.items()}
        return outputs, hashlib.sha256(canonical_json(flat).encode()).hexdigest()

    def store(self, record: StageRecord, folder: Path, log: Path) -> None:
        """Make `folder` the outputs of `record`; from the rename of the record on, it counts."""
        outputs = self.outputs_of(record)
        with cache_errors(self.folder), self._lock(f"outputs-{record.digest}"):
            if outputs.exists() and _difference(record, outputs, verify=True):
                self._remove(outputs)
            if not outputs.exists():
                _make_read_only(folder)
                outputs.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(outputs)
        with cache_errors(self.folder):
            place = self._object(record.key)
            place.mkdir(parents=True, exist_ok=True)
            os.replace(log, place / "log.txt")
            write_atomically(place / "record.json", to_json(record).encode())

    def latest(self, spec: str, stage: str, target: str | None) -> StageRecord | None:
        """The record that a spec used last for a stage; None when unknown."""
        path = self._latest(spec, stage, target)
        with cache_errors(self.folder):
            return _read_record(path)

    def remember(self, spec: str, record: StageRecord) -> None:
        """Note the record that a spec uses, to explain later what changed."""
        path = self._latest(spec, record.stage, record.target)
        with cache_errors(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_json(record).encode())

    def _object(self, key: str) -> Path:
        return self.folder / "objects" / key[:2] / key

    def _latest(self, spec: str, stage: str, target: str | None) -> Path:
        return self.folder / "latest" / spec / f"{_label(stage, target)}.json"

    def _lock(self, name: str) -> FileLock:
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")

    def _remove(self, folder: Path) -> None:
        """Take a folder out of sight in one step, then delete it."""
        hidden = self._workspace / secrets.token_hex(6)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(hidden)
            shutil.rmtree(hidden)

    def _sweep(self) -> None:
        """Delete what dead processes left in `tmp/`: their `.alive` lock is free.

        Runs under the session lock, so no process is between making its folder
        and locking it. Locks die with their process, unlike process numbers,
        which are reused and differ between containers.
        """
        for folder in (self.folder / "tmp").iterdir():
            if not folder.is_dir():
                continue
            alive = FileLock(str(folder) + ".alive")
            with contextlib.suppress(Timeout), alive.acquire(timeout=0):
                shutil.rmtree(folder)
                Path(alive.lock_file).unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old or the new content, synced to disk."""
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with hidden.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _label(stage: str, target: str | None) -> str:
    return stage if target is None else f"{stage}@{target}"


def _read_record(path: Path) -> StageRecord | None:
    """The record in a file; None when there is none or it is damaged."""
    try:
        return from_json(StageRecord, path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _digests(folder: Path) -> dict[str, FileDigest]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> FileDigest:
    with path.open("rb") as stream:
        return FileDigest(hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size)


def _difference(record: StageRecord, folder: Path, *, verify: bool) -> str:
    """How a folder differs from what a record says; empty when it does not."""
    if not folder.is_dir():
        return f"the outputs of {record.stage!r} are gone from {folder}"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    changed = names ^ set(record.outputs)
    changed |= {
        name
        for name in names & set(record.outputs)
        if (folder / name).stat().st_size != record.outputs[name].bytes
    }
    if verify and not changed:
        changed = {n for n, each in record.outputs.items() if _digest(folder / n) != each}
    return f"{min(changed)!r} in {folder} is not as {record.stage!r} wrote it" if changed else ""


def _make_read_only(folder: Path) -> None:
    """Keep stages and users from changing cached files by accident."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
