"""Programs and packages that targets need: found, or an error that says how to get them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from edgesmith.pipeline.errors import ToolMissingError


@dataclass(frozen=True)
class Tool:
    """A program on PATH (`package` False) or an importable Python package.

    `install` is the command that brings it, as shown to the user.
    """

    name: str
    install: str
    package: bool = False
    distribution: str = ""

    def find(self) -> str | None:
        """The program's path or the package's version; None when missing."""
        if not self.package:
            return shutil.which(self.name)
        if importlib.util.find_spec(self.name) is None:
            return None
        try:
            return importlib.metadata.version(self.distribution or self.name)
        except importlib.metadata.PackageNotFoundError:
            return "unknown version"

    def version(self) -> str:
        """What it says of itself: a package's version, the first line of `PROGRAM --version`.

        "missing" where it is not installed: what enters cache keys.
        """
        found = self.find()
        if found is None:
            return "missing"
        return found if self.package else _program_version(found)

    def require(self) -> str:
        """As `find`.

        Raises:
            ToolMissingError: it is not installed; the message says how to install it.
        """
        found = self.find()
        if found is None:
            raise ToolMissingError(f"{self.what} is not installed", fix=self.install)
        return found

    @property
    def what(self) -> str:
        """How messages name it."""
        return f"{'Python package' if self.package else 'program'} {self.name!r}"


@cache
def _program_version(path: str) -> str:
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown version"
    return done.stdout.partition("\n")[0].strip() or "unknown version"


def require_all(needed: Mapping[str, Sequence[Tool]]) -> None:
    """Check the tools of several owners at once.

    Args:
        needed: what needs them, as messages name it -> its tools.

    Raises:
        ToolMissingError: names every missing tool, who needs it, and how to install it.
    """
    owners: dict[Tool, list[str]] = {}
    for owner, tools in needed.items():
        for tool in tools:
            if tool.find() is None:
                owners.setdefault(tool, []).append(owner)
    if owners:
        missing = [f"{tool.what}, needed by {', '.join(who)}" for tool, who in owners.items()]
        raise ToolMissingError(
            f"not installed: {'; '.join(missing)}",
            fix="; ".join(dict.fromkeys(tool.install for tool in owners)),
        )
