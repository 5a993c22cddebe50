"""What the files and folders that a stage depends on add to its key.

Contents count up to `HASHED_BYTES`, for a folder all its files together; beyond
that the size and time of every file stand for them, so that `plan` stays quick.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

HASHED_BYTES = 64 << 20
MOST_FILES = 50_000
_LONGEST_PATH = 1024


@dataclass(frozen=True)
class _Found:
    """A file below a folder, named relative to it."""

    name: str
    path: str
    size: int
    changed_ns: int


def argument_paths(value: Any, folder: Path) -> dict[str, Path]:
    """Texts in a factory's arguments that are the path of a file or folder, and those paths.

    The spec's own folder and those around it are left out: runs and caches, which
    stages write themselves, often lie there.

    Args:
        folder: the spec's folder, where relative paths start.
    """
    return {text: folder / text for text in _texts(value) if _is_input(folder / text, folder)}


def identities(named: Mapping[str, Path]) -> dict[str, str]:
    """Name -> `identity` of its path; a path that several names share is read once."""
    found = {path: identity(path) for path in set(named.values())}
    return {name: found[path] for name, path in named.items()}


def identity(path: Path) -> str:
    """Equal as long as a file, or everything in a folder, stays as it is; "missing" without one.

    Of a folder with more than `MOST_FILES` files, the first ones by name count. Links
    to folders are followed, each folder once; `__pycache__` is left out.
    """
    try:
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            return _identity_of_folder(path)
        if not stat.S_ISREG(state.st_mode):
            return "missing"
        if state.st_size > HASHED_BYTES:
            return f"{state.st_size} bytes, changed at {state.st_mtime_ns}"
        return _sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:  # the stage that reads it says so; a plan goes on
        return f"unreadable: {error.strerror}"


def _identity_of_folder(root: Path) -> str:
    files = list(islice(_files_in(root), MOST_FILES + 1))
    whole = len(files) <= MOST_FILES
    by_content = whole and sum(file.size for file in files) <= HASHED_BYTES
    digest = hashlib.sha256()
    for file in files[:MOST_FILES]:
        what = _sha256(Path(file.path)) if by_content else f"{file.size} {file.changed_ns}"
        digest.update(os.fsencode(f"{file.name}\0{what}\0"))
    amount = f"{len(files)} files" if whole else f"the first {MOST_FILES} files"
    return f"{amount}: {digest.hexdigest()}"


def _files_in(root: Path) -> Iterator[_Found]:
    """Regular files below a folder, in an order that depends on names alone."""
    waiting, seen = [("", str(root))], set()
    while waiting:
        prefix, folder = waiting.pop()
        state = os.stat(folder)
        if (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name, reverse=True)
        waiting += [
            (f"{prefix}{entry.name}/", entry.path)
            for entry in entries
            if entry.is_dir() and entry.name != "__pycache__"
        ]
        for entry in reversed(entries):
            if entry.is_file():
                found = entry.stat()
                yield _Found(prefix + entry.name, entry.path, found.st_size, found.st_mtime_ns)


def _texts(value: Any) -> Iterator[str]:
    """Texts that could be a path, at any depth."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str) and 0 < len(value) < _LONGEST_PATH and "\0" not in value:
        yield value


def _is_input(path: Path, spec_folder: Path) -> bool:
    try:
        if path.is_file():
            return True
        return path.is_dir() and not spec_folder.resolve().is_relative_to(path.resolve())
    except OSError:  # longer than a file name may be: not a path
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
