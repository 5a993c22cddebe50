"""Discovery: by folder and by entry point, names without imports, defects named."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesmith.pipeline.errors import PluginError, SpecError
from edgesmith.pipeline.registry import Registries, Registry


class Tool(ABC):
    """What the members of the test's registry extend."""

    name = ""

    @abstractmethod
    def use(self) -> str:
        """Anything."""


HEAD = "from tests.pipeline.test_registry import Tool\n"
GOOD = HEAD + "class {0}(Tool):\n    name = '{1}'\n    def use(self): return '{1}'\n"
GROUP = "edgesmith.test_tools"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `toolbox` and a distribution with entry points, on the import path."""
    package = tmp_path / "toolbox"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in {"toolbox", "plugin"}]:
        del sys.modules[name]


def registry() -> Registry[Tool]:
    return Registry("tool", "toolbox", GROUP, Tool)  # type: ignore[type-abstract]


def plug_in(place: Path, **points: str) -> None:
    info = place / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    lines = "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
    (place / "plugin.py").write_text(GOOD.format("Extra", "extra-tool") + "number = 3\n")


def test_names_come_from_files_and_import_none_of_them(place: Path) -> None:
    for name in ("hand_saw", "axe"):
        (place / "toolbox" / f"{name}.py").write_text("raise RuntimeError\n")
    for name in ("_shared", "base"):
        (place / "toolbox" / f"{name}.py").write_text("")
    plug_in(place, extra_tool="plugin:Extra")
    assert registry().names() == ("axe", "extra-tool", "hand-saw")
    assert "plugin" not in sys.modules


def test_a_member_is_the_class_with_its_name(place: Path) -> None:
    text = GOOD.format("Saw", "hand-saw") + "class Blade(Saw):\n    name = 'blade'\n"
    (place / "toolbox" / "hand_saw.py").write_text(text)
    assert registry().get("hand-saw")().use() == "hand-saw"


def test_a_member_by_entry_point(place: Path) -> None:
    plug_in(place, extra_tool="plugin:Extra")
    assert registry().get("extra-tool")().use() == "extra-tool"


def test_an_unknown_name_is_guessed(place: Path) -> None:
    (place / "toolbox" / "hand_saw.py").write_text(GOOD.format("Saw", "hand-saw"))
    with pytest.raises(SpecError, match="did you mean 'hand-saw'"):
        registry().get("hand_sow")
    with pytest.raises(SpecError, match="choose one of `hand-saw`"):
        registry().get("?")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import not_installed_anywhere\n", "cannot be imported: ModuleNotFoundError"),
        ("", "defines 0 classes"),
        (GOOD.format("Saw", "other"), "defines 0 classes"),
        (HEAD + "class Saw(Tool):\n    name = 'saw'\n", "defines 0 classes"),
        (GOOD.format("Saw", "saw") + GOOD.format("Saw2", "saw"), "defines 2 classes"),
    ],
)
def test_a_defective_file_is_named(place: Path, text: str, words: str) -> None:
    (place / "toolbox" / "saw.py").write_text(text)
    with pytest.raises(PluginError, match=words) as caught:
        registry().get("saw")
    assert "saw" in caught.value.message


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("plugin:None_", "cannot be imported: AttributeError"),
        ("nowhere_at_all:X", "cannot be imported: ModuleNotFoundError"),
        ("plugin:number", "is not a class"),
    ],
)
def test_a_defective_entry_point_is_named(place: Path, value: str, words: str) -> None:
    plug_in(place, bad=value)
    with pytest.raises(PluginError, match=words):
        registry().get("bad")


def test_a_name_that_is_taken_twice(place: Path) -> None:
    (place / "toolbox" / "extra_tool.py").write_text(GOOD.format("Extra", "extra-tool"))
    plug_in(place, extra_tool="plugin:Extra")
    with pytest.raises(PluginError, match="defined twice"):
        registry().get("extra-tool")


def test_every_discovered_member_fits_its_protocol() -> None:
    found = Registries.discovered()
    assert "data" in found.stages.names()
    for name in found.stages.names():
        assert found.stages.get(name).name == name
    for name in found.targets.names():
        target = found.targets.get(name)()
        assert target.describe().name == name
        assert target.describe().facts()
