"""What the documents show is run: specs are linted, Python is executed, commands must exist.

Blocks of one document share a folder and a namespace, in order. A block whose
first line is `# file: NAME` is written to that file; a YAML block without
`spec_version` is a part of a spec and replaces that part of the default example's.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML
from typer.core import TyperGroup

from edgesmith.pipeline.cli import app
from edgesmith.pipeline.lint import check_source
from edgesmith.pipeline.registry import Registries
from edgesmith.pipeline.spec_source import parse_source
from tests.guards.repository import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")]),
]
EXAMPLE = ROOT / "examples" / "mnist"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_FILE = re.compile(r"# file: (\S+)\n")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_SHELL = {"", "sh", "bash"}
_RUN_IN_ORDER = """
import sys
for path in sys.argv[1:]:
    exec(compile(open(path).read(), path, "exec"))
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    return [
        Block(document, text[: match.start()].count("\n") + 1, match[1], match[2])
        for match in _FENCE.finditer(text)
    ]


ALL = [block for document in DOCUMENTS for block in blocks(document)]


def of(*languages: str) -> list[Block]:
    return [block for block in ALL if block.language in languages]


def commands() -> list[tuple[str, list[str]]]:
    """(where, words) of every command line that shows `make` or `edgesmith`."""
    found = []
    for block in of(*_SHELL):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] in {"make", "edgesmith"}:
                found.append((f"{block}: {line.strip()}", words))
    return found


def test_every_language_of_a_block_is_one_that_is_checked() -> None:
    assert {block.language for block in ALL} <= _SHELL | {"yaml", "python", "text", "toml", "c"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = [link for link in _LINK.findall(document.read_text()) if "://" not in link]
    assert [link for link in targets if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_specs_have_no_problems(block: Block) -> None:
    yaml = YAML(typ="safe")
    shown: dict[str, Any] = yaml.load(block.text)
    text = block.text
    if "spec_version" not in shown:
        whole = {**yaml.load((EXAMPLE / "spec.yaml").read_text()), **shown}
        text = json.dumps(whole)  # which is YAML
    source = parse_source(text, str(EXAMPLE / "shown.yaml"))
    _, problems = check_source(source, Registries.discovered())
    assert not problems


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_runs(document: Path, tmp_path: Path) -> None:
    python = [block for block in blocks(document) if block.language == "python"]
    if not python:
        pytest.skip("shows no Python")
    parts = []
    for block in python:
        named = _FILE.match(block.text)
        path = tmp_path / (named[1] if named else f"line_{block.line}.py")
        path.write_text(block.text)
        parts.append(path.name)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _RUN_IN_ORDER, *parts],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", of("c"), ids=str)
def test_c_is_c(block: Block) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is not installed")
    command = [gcc, "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-xc", "-"]
    done = subprocess.run(command, input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


def test_the_readme_opens_with_its_two_commands() -> None:
    first = next(block for block in blocks(ROOT / "README.md") if block.language in _SHELL)
    assert [line.split("#")[0].split() for line in first.text.splitlines()] == [
        ["make", "deploy", "TARGET=cortex-m4"],
        ["make", "test"],
    ]


@pytest.mark.parametrize(
    ("where", "words"), [each for each in commands() if each[1][0] == "make"], ids=str
)
def test_make_commands_exist(where: str, words: list[str]) -> None:
    goals = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
    benchmarks = {f"bench-{file.stem}" for file in (ROOT / "benchmarks").glob("*.py")}
    assert set(goals) <= make_targets() | benchmarks, where
    variables = {word.partition("=")[0] for word in words[1:] if "=" in word}
    known = set(re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(), re.M))
    assert variables <= known, where


@pytest.mark.parametrize(
    ("where", "words"), [each for each in commands() if each[1][0] == "edgesmith"], ids=str
)
def test_edgesmith_commands_parse(where: str, words: list[str]) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    with typer.Context(group) as context:
        name, command, rest = group.resolve_command(context, words[1:])
        assert name is not None, where
        assert command is not None, where
        command.make_context(name, list(rest), parent=context)
