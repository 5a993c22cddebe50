"""What must not stand in the repository, and what must."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgesmith.pipeline import errors, problems
from tests.guards.repository import ROOT, module_files, own_files

# Written so that this file does not contain them.
HOSTS = [
    re.compile(rf"\b{name}\.{domain}\b")
    for name, domain in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("pytorch", r"org/whl"),
        ("debian", r"org/debian"),
        (r"deb\.debian", "org"),
        (r"archive\.ubuntu", "com"),
        (r"registry\.npmjs", "org"),
    )
]
MACHINE_PATHS = re.compile(r"(?<![\w./:<-])/(?:work|root|opt|home/\w+)(?:/|\b(?![\w.]))")
DATA_FOLDER = "../" + "shared"
MAY_NAME_THE_DATA_FOLDER = {"Makefile", ".ci/run"}

# Lines per file of a room, past which a reason must stand here.
MOST_LINES = 400
LONG_FILES = {
    "targets/graph/onnx_reader/importer.py": "the walk over the nodes and the refusals it collects",
    "targets/graph/onnx_reader/quantization.py": "one phase whose rules only make sense together",
    "targets/graph/onnx_writer.py": "one short function per operator",
    "targets/graph/ir.py": "the whole vocabulary of operators in one place",
    "targets/graph/tflite_codec.py": "one short codec per operator, reading and writing together",
}


def texts() -> list[tuple[str, str]]:
    """Name and text of every own file that is text."""
    found = []
    for path in own_files():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((path.relative_to(ROOT).as_posix(), content.decode()))
    return found


@pytest.mark.parametrize("pattern", [*HOSTS, MACHINE_PATHS], ids=lambda pattern: pattern.pattern)
def test_no_file_names_a_package_registry_or_a_path_of_one_machine(
    pattern: re.Pattern[str],
) -> None:
    found = {name: match.group() for name, text in texts() if (match := pattern.search(text))}
    assert not found


@pytest.mark.parametrize("text", ["cd ~work/main", "'~root'", "see ~opt/x", "(~home/me/x)"])
def test_paths_of_one_machine_are_recognized(text: str) -> None:
    assert MACHINE_PATHS.search(text.replace("~", "/"))


@pytest.mark.parametrize("text", ["a/work/b", "network/root", "</root>", "./opt", "x /operator"])
def test_other_text_is_not_taken_for_a_path_of_one_machine(text: str) -> None:
    assert not MACHINE_PATHS.search(text)


def test_only_the_makefile_and_ci_know_where_the_data_folder_is() -> None:
    found = {name for name, text in texts() if DATA_FOLDER in text}
    assert found <= MAY_NAME_THE_DATA_FOLDER


def test_a_long_file_has_a_reason() -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in module_files()
    }
    assert {name for name, count in lines.items() if count > MOST_LINES} <= set(LONG_FILES)


def error_classes() -> list[type[errors.EdgesmithError]]:
    return [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.EdgesmithError)
    ]


def test_every_error_class_has_a_code_of_its_own() -> None:
    codes = [each.code for each in error_classes()]
    assert all(re.fullmatch(r"ES\d{3}", code) for code in codes)
    assert len(set(codes)) == len(codes)


def test_codes_of_spec_problems_and_of_errors_do_not_meet() -> None:
    assert not {each.code for each in error_classes()} & {
        str(code) for code in problems.ProblemCode
    }


def test_every_code_is_documented_and_every_documented_code_exists() -> None:
    documented = re.findall(r"^\| `(ES\d{3})` \|", (ROOT / "docs/errors.md").read_text(), re.M)
    assert len(set(documented)) == len(documented)
    codes = {each.code for each in error_classes()} | {str(code) for code in problems.ProblemCode}
    assert set(documented) == codes


def fragments() -> list[Path]:
    return sorted(path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md")


def test_there_are_changelog_fragments() -> None:
    assert fragments()


@pytest.mark.parametrize("path", fragments(), ids=lambda path: path.name)
def test_a_changelog_fragment_is_well_formed(path: Path) -> None:
    assert re.fullmatch(r"(\d+|\+[\w-]+)\.(added|changed|fixed|removed)(\.\d+)?\.md", path.name)
    text = path.read_text()
    assert text == text.strip() + "\n", "nothing around it but the last newline"
    assert text[0].isupper() or text[0] == "`", "a sentence"
    assert text.endswith(".\n"), "a sentence"
    assert "\n\n" not in text, "one paragraph; more changes are more fragments"
