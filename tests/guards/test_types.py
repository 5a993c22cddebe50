"""Strict mypy on everything that is Python.

The rooms are top-level folders, so `mypy -p edgesmith` at the root would check
one file. It runs on a farm of links instead, laid out as the package is once
installed. Examples and benchmarks are scripts that import their siblings: each
folder is checked on its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guards.repository import ROOT, link_farm

SCRIPTS = sorted({file.parent for file in ROOT.glob("examples/*/*.py")} | {ROOT / "benchmarks"})


def mypy(farm: Path, *what: str) -> str:
    """What mypy complains about; empty when nothing."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *what]
    environment = {**os.environ, "MYPYPATH": str(farm)}
    done = subprocess.run(
        command, cwd=farm, env=environment, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_farm(tmp_path_factory.mktemp("farm") / "src")


def test_the_farm_shows_mypy_every_room(farm: Path) -> None:
    (farm / "bad.py").write_text("from edgesmith.pipeline.values import QFormat\nQFormat('8')\n")
    assert "incompatible type" in mypy(farm, "bad.py")


def test_the_package_and_its_tests_are_typed(farm: Path) -> None:
    assert not mypy(farm, "-p", "edgesmith", "-p", "tests")


@pytest.mark.parametrize("folder", SCRIPTS, ids=lambda folder: folder.name)
def test_scripts_are_typed(farm: Path, folder: Path) -> None:
    files = [str(file) for file in sorted(folder.glob("*.py"))]
    assert not mypy(farm, *files)
