"""Tools of targets: found, or named with who needs them and how to get them."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from edgesmith.pipeline.errors import ToolMissingError
from edgesmith.pipeline.tools import Tool, require_all
from edgesmith.targets.cpu_tflite_runtime import CpuTFLiteRuntime

NUMPY = Tool("numpy", "pip install numpy", package=True)
GCC = Tool("no-such-gcc", "apt install gcc")
BOARD = Tool("no_such_board", "pip install board", package=True)


def test_a_package_is_found_with_its_version() -> None:
    assert NUMPY.require() == importlib.metadata.version("numpy")


def test_all_missing_tools_are_named_once_with_their_owners() -> None:
    require_all({"target 'a'": [NUMPY], "target 'b'": []})
    with pytest.raises(ToolMissingError) as caught:
        require_all({"target 'a'": [NUMPY, GCC], "target 'b'": [GCC, BOARD]})
    assert caught.value.message == (
        "not installed: program 'no-such-gcc', needed by target 'a', target 'b'; "
        "Python package 'no_such_board', needed by target 'b'"
    )
    assert caught.value.fix == "apt install gcc; pip install board"


def environment(folder: Path, version: str | None) -> Path:
    """What `make setup` leaves, as far as it is looked at."""
    python = folder / ".venvs" / "tflite-runtime" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    packages = python.parent.parent / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "numpy-1.26.4.dist-info").mkdir()
    if version is not None:
        (packages / f"tflite_runtime-{version}.dist-info").mkdir()
    return python


def test_the_old_runtime_is_found_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment(tmp_path, "2.14.0")
    monkeypatch.chdir(tmp_path)
    target = CpuTFLiteRuntime()
    assert target.tools()[0].find() == f"2.14.0 ({python})"
    assert target.runtime().python == str(python)
    (python.parent.parent / "lib/python3.11/site-packages/tflite_runtime-2.14.0.dist-info").rename(
        python.parent.parent / "lib/python3.11/site-packages/tflite_runtime-2.13.0.dist-info"
    )
    assert target.tools()[0].require().startswith("2.13.0 ")


def test_an_environment_without_the_old_runtime_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(tmp_path, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ToolMissingError, match="make setup"):
        CpuTFLiteRuntime().runtime()
