"""Measured layers on disk, shared by processes.

Layout, below the cost folder:

    <facts>/<tools>/table.json         what all entries of the table rest on
    <facts>/<tools>/batches/<id>.json  layers that were measured together
    <facts>/<tools>/objects/           compiled kernels, so that batches share them
    <facts>/<tools>/locks/             who is measuring what

Every file appears complete, by a rename. A file that cannot be read is ignored: its layers
are measured again. Batches never change, so readers need no lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.jsonvalue import adapter, from_json, to_json
from edgesmith.pipeline.spec import canonical_json
from edgesmith.targets.cost.base import CostError, Figure

T = TypeVar("T")


class Keyed(Protocol):
    """A record, found again by its key."""

    @property
    def key(self) -> str: ...


R = TypeVar("R", bound=Keyed)

FORMAT = 1
_BUCKET = 2  # characters of the key that name a lock
_SHOWN = 16


@dataclass(frozen=True)
class LayerRecord:
    """What was measured of one layer.

    Args:
        wiring_bytes: flash of its layer function, its arguments and its call.
        code: symbol -> flash bytes of the kernel and all that it calls.
        kernel: names that code.
    """

    key: str
    description: dict[str, Any]
    instructions: Figure
    cycles: Figure
    wiring_bytes: int
    kernel: str
    code: dict[str, int]


@dataclass(frozen=True)
class Batch(Generic[R]):
    """One file of records."""

    format: int
    records: tuple[R, ...]


@dataclass(frozen=True)
class TableFacts:
    """What a table's entries rest on: facts that need no tool, and versions of the tools."""

    format: int
    facts: dict[str, str]
    tools: dict[str, str]


def _digest(parts: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical_json([FORMAT, dict(parts)]).encode()).hexdigest()[:_SHOWN]


class Table(Generic[R]):
    """The records of one set of facts and tools.

    Args:
        kind: a dataclass, what its records are.
    """

    def __init__(self, kind: type[R], folder: Path, about: TableFacts) -> None:
        self.folder = folder
        self.about = about
        self._batch: type[Batch[R]] = Batch[kind]  # type: ignore[valid-type]
        self._records: dict[str, R] = {}
        self._read: set[str] = set()
        self.reload()

    @classmethod
    def open(
        cls, kind: type[R], root: Path, facts: Mapping[str, str], tools: Mapping[str, str]
    ) -> Table[R]:
        """The table of these facts and tools, made if there is none.

        Raises:
            CacheError: the folder cannot be written.
        """
        about = TableFacts(FORMAT, dict(facts), dict(tools))
        folder = root / _digest(facts) / _digest(tools)
        with cache_errors(root):
            for name in ("batches", "objects", "locks"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            if _facts_in(folder) != about:
                write_atomically(folder / "table.json", to_json(about).encode())
        return cls(kind, folder, about)

    @classmethod
    def newest(cls, kind: type[R], root: Path, facts: Mapping[str, str]) -> Table[R] | None:
        """The table of these facts that was filled last, whatever its tools; None without one."""
        found = []
        for folder in sorted((root / _digest(facts)).glob("*")):
            about = _facts_in(folder)
            if about is not None and (folder / "batches").is_dir():
                found.append(((folder / "batches").stat().st_mtime_ns, folder, about))
        if not found:
            return None
        _, folder, about = max(found, key=lambda each: (each[0], each[1]))
        return cls(kind, folder, about)

    def get(self, key: str) -> R | None:
        """What is known under a key; None while it is not measured."""
        return self._records.get(key)

    def records(self) -> Iterator[R]:
        """Everything that is known."""
        return iter(self._records.values())

    def reload(self) -> None:
        """Read what any process has added."""
        for path in sorted((self.folder / "batches").glob("*.json")):
            if path.name in self._read:
                continue
            batch = _read(self._batch, path)
            if batch is None or batch.format != FORMAT:
                continue  # damaged, or of another version; not `_read`, for it may be replaced
            self._read.add(path.name)
            self._records.update((record.key, record) for record in batch.records)

    def store(self, records: Iterable[R]) -> None:
        """Add what was measured.

        Raises:
            CacheError: the folder cannot be written.
        """
        batch = self._batch(FORMAT, tuple(records))
        name = hashlib.sha256(canonical_json([r.key for r in batch.records]).encode()).hexdigest()
        with cache_errors(self.folder):
            path = self.folder / "batches" / f"{name}.json"
            write_atomically(path, adapter(self._batch).dump_json(batch, indent=2))
        self._records.update((record.key, record) for record in batch.records)

    @contextmanager
    def claimed(self, keys: Iterable[str], *, wait: bool = False) -> Iterator[frozenset[str]]:
        """The right to measure some of the keys: those that no other process is measuring.

        Args:
            wait: where others have them all, wait until the first one is free.
        """
        buckets: dict[str, list[str]] = {}
        for key in keys:
            buckets.setdefault(key[:_BUCKET], []).append(key)
        with ExitStack() as held:
            free = [each for each in buckets if self._acquire(each, held, wait=False)]
            if wait and buckets and not free:
                free = list(buckets)[:1]
                self._acquire(free[0], held, wait=True)
            yield frozenset(key for bucket in free for key in buckets[bucket])

    def _acquire(self, bucket: str, held: ExitStack, *, wait: bool) -> bool:
        lock = FileLock(self.folder / "locks" / f"{bucket}.lock")
        with cache_errors(self.folder):
            try:
                lock.acquire(timeout=-1 if wait else 0)
            except Timeout:
                return False
        held.callback(lock.release)
        return True

    def error(self, code: str) -> CostError | None:
        """What was last found of the error; None unless for this state of the generator."""
        return _read(CostError, self._error_path(code))

    def store_error(self, code: str, error: CostError) -> None:
        """Keep it beside the records. `code` is the digest of the generator's source."""
        with cache_errors(self.folder):
            write_atomically(self._error_path(code), to_json(error).encode())

    def _error_path(self, code: str) -> Path:
        return self.folder / f"error-{code[:_SHOWN]}.json"


def _facts_in(folder: Path) -> TableFacts | None:
    return _read(TableFacts, folder / "table.json")


def _read(kind: type[T], path: Path) -> T | None:
    """The value in a file; None when there is none or it is damaged."""
    try:
        return from_json(kind, path.read_bytes())
    except (OSError, ValidationError):
        return None
