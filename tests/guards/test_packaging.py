"""What the wheel holds: a subpackage that pyproject.toml forgets works here and vanishes there."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.guards.repository import ROOMS, ROOT

IMPORT_ALL = """
import importlib, pkgutil, sys
import edgesmith
assert edgesmith.__file__.startswith(sys.argv[1]), edgesmith.__file__
assert not any("__editable__" in type(each).__name__.lower() for each in sys.meta_path)
names = [each.name for each in pkgutil.walk_packages(edgesmith.__path__, "edgesmith.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(*names)
"""


def setuptools_configuration() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def packages_on_disk() -> set[str]:
    """Dotted names of every folder with an `__init__.py` under the rooms."""
    found = {"edgesmith"}
    for room in ROOMS:
        for file in (ROOT / room).rglob("__init__.py"):
            found.add(".".join(("edgesmith", *file.parent.relative_to(ROOT).parts)))
    return found


def modules_on_disk() -> set[str]:
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    dotted = {
        ".".join(("edgesmith", *file.relative_to(ROOT).with_suffix("").parts)) for file in files
    }
    return {name.removesuffix(".__init__") for name in dotted}


def test_every_package_on_disk_is_declared_and_every_declared_one_is_on_disk() -> None:
    assert set(setuptools_configuration()["packages"]) == packages_on_disk()


def test_every_room_is_mapped_to_its_folder() -> None:
    mapped = setuptools_configuration()["package-dir"]
    assert mapped == {"edgesmith": "edgesmith", **{f"edgesmith.{room}": room for room in ROOMS}}


def test_python_files_are_in_packages() -> None:
    """A module in a folder without `__init__.py` is in no package."""
    folders = {file.parent for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "edgesmith", *ROOMS):
        (source / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_and_every_template(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        Path("edgesmith", file.relative_to(ROOT)).as_posix()
        for room in ROOMS
        for file in (ROOT / room).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert wanted - held == set()
    assert "edgesmith/py.typed" in held
    assert any(name.startswith("edgesmith/reports/templates/") for name in held)


def test_every_module_of_the_wheel_imports(wheel: Path, tmp_path: Path) -> None:
    """From a folder of its own, without the checkout and without its editable installation."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # -S leaves out .pth files and with them the editable installation; packages are added by hand
    packages = [path for path in sys.path if path.endswith("-packages")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), *packages))}
    command = [sys.executable, "-S", "-c", IMPORT_ALL, str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) >= modules_on_disk()
