"""The repository as the guards see it: its root, its rooms, its own files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("pipeline", "quantize", "prune", "nas", "targets", "reports")


def own_files() -> Iterator[Path]:
    """Every file that git tracks or would track; skips the test outside a git checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: cannot tell own files from others")
    for name in sorted({each for each in listed.stdout.decode().split("\0") if each}):
        if (ROOT / name).is_file():
            yield ROOT / name


def module_files() -> Iterator[Path]:
    """Every Python file of the rooms."""
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def link_farm(folder: Path) -> Path:
    """The package as it is laid out once installed: `edgesmith` with every room under it."""
    package = folder / "edgesmith"
    package.mkdir(parents=True)
    for file in (ROOT / "edgesmith").iterdir():
        if file.name != "__pycache__":
            (package / file.name).symlink_to(file)
    for room in ROOMS:
        (package / room).symlink_to(ROOT / room)
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder
