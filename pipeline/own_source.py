"""The digest of edgesmith's own source: what an edited installation adds to every key.

A version number alone would let an updated editable install serve the results of
the code before it.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOMS = ("nas", "pipeline", "prune", "quantize", "reports", "targets")
SUFFIXES = frozenset({".c", ".css", ".h", ".j2", ".js", ".ld", ".py"})


@cache
def own_source_digest() -> str:
    """SHA-256 over all rooms, read once per process; imports none of them."""
    digest = hashlib.sha256()
    for room in ROOMS:
        found = importlib.util.find_spec(f"edgesmith.{room}")
        folders = (found.submodule_search_locations if found is not None else None) or ()
        for folder in folders:
            digest.update(f"{room} {source_digest(Path(folder))}\n".encode())
    return digest.hexdigest()


def source_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the source files below a folder."""
    digest = hashlib.sha256()
    for path in _sorted_sources(folder.rglob("*")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _sorted_sources(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix in SUFFIXES and path.is_file())
