"""YAML reading: plain values, right positions, and nothing that a hostile file could use."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from edgesmith.pipeline.problems import Problem, ProblemCode, render, split_lines
from edgesmith.pipeline.spec_source import MAX_BYTES, SpecSource, parse_source, read_source


def only_problem(text: str) -> Problem:
    source = parse_source(text)
    assert len(source.problems) == 1, source.problems
    return source.problems[0]


def data_of(text: str) -> object:
    source = parse_source(text)
    assert source.problems == ()
    assert source.root is not None
    return source.root.data()


def test_plain_values_are_those_of_the_core_schema() -> None:
    assert data_of("a: 1\nb: [0x1F, 0o17, -2.5e3, true, null, ~, yes]") == {
        "a": 1,
        "b": [31, 15, -2500.0, True, None, None, "yes"],
    }
    assert data_of("b: [2024-01-01, '1', !!str 5, 1_0]") == {"b": ["2024-01-01", "1", "5", "1_0"]}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text("ab \n'\"é", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=3), JSON_VALUES, min_size=1))
def test_what_an_independent_writer_wrote_is_read_back(value: dict[str, object]) -> None:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(value, stream)
    assert data_of(stream.getvalue()) == value


def test_positions_of_keys_and_values() -> None:
    source = parse_source("a: 1\nlist:\n  - {k: v}\n")
    assert source.root is not None
    item = source.root.get("list", 0)
    value = source.root.get("list", 0, "k")
    assert item is not None
    assert value is not None
    assert (source.root.key_position("list").line, source.root.key_position("list").column) == (
        2,
        1,
    )
    assert (value.at.line, value.at.column) == (3, 9)
    assert (item.key_position("k").line, item.key_position("k").column) == (3, 6)


def test_aliases_are_expanded_where_they_stand() -> None:
    source = parse_source("a: &x {k: 1}\nb: *x\n")
    assert source.root is not None
    assert source.root.data() == {"a": {"k": 1}, "b": {"k": 1}}
    alias = source.root.get("b")
    assert alias is not None
    assert (alias.at.line, alias.at.column) == (2, 4)


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("a: b: c\n", ProblemCode.SYNTAX, 1, 5),
        ("a: 'x\n", ProblemCode.SYNTAX, 2, 1),
        ("a: [1\n", ProblemCode.SYNTAX, 2, 1),
        ("\tx: 1\n", ProblemCode.SYNTAX, 1, 1),
        ("a: 1\nb: \x07\n", ProblemCode.SYNTAX, 2, 4),
        ('a: "\\UFFFFFFFF"\n', ProblemCode.SYNTAX, 1, 1),
        ("a: *nowhere\n", ProblemCode.SYNTAX, 1, 4),
        ("a: &x [*x]\n", ProblemCode.SYNTAX, 1, 8),
        ("a: 1\nb: 2\na: 3\n", ProblemCode.DUPLICATE_KEY, 3, 1),
        ("1: a\n", ProblemCode.WRONG_TYPE, 1, 1),
        ("true: a\n", ProblemCode.WRONG_TYPE, 1, 1),
        ("- a\n", ProblemCode.WRONG_TYPE, 1, 1),
        ("", ProblemCode.WRONG_TYPE, 1, 1),
        ("# only a comment\n", ProblemCode.WRONG_TYPE, 1, 1),
        ("text\n", ProblemCode.WRONG_TYPE, 1, 1),
        ("a: 1\n---\nb: 2\n", ProblemCode.UNSAFE_YAML, 2, 1),
        ("a: !!python/object/apply:os.system ['x']\n", ProblemCode.UNSAFE_YAML, 1, 4),
        ("a: !custom 1\n", ProblemCode.UNSAFE_YAML, 1, 4),
        ("a: &x {k: 1}\nb: {<<: *x}\n", ProblemCode.UNSAFE_YAML, 2, 5),
        ("a: .nan\n", ProblemCode.BAD_VALUE, 1, 4),
        ("a: -.inf\n", ProblemCode.BAD_VALUE, 1, 4),
        ("a: 1e999\n", ProblemCode.BAD_VALUE, 1, 4),
        (f"a: {'9' * 5000}\n", ProblemCode.BAD_VALUE, 1, 4),
        ('a: "\\uD800"\n', ProblemCode.BAD_VALUE, 1, 4),
        ("a: " + "[" * 60 + "]" * 60, ProblemCode.TOO_LARGE, 1, 27),
        ("a: '" + "x" * MAX_BYTES + "'", ProblemCode.TOO_LARGE, 1, 1),
    ],
)
def test_what_is_wrong_has_one_problem_at_its_place(
    text: str, code: ProblemCode, line: int, column: int
) -> None:
    problem = only_problem(text)
    assert (problem.code, problem.line, problem.column) == (code, line, column)
    assert problem.suggestion


def test_all_duplicates_are_found_in_one_pass() -> None:
    source = parse_source("a: 1\na: 2\nb: {c: 1, c: 2}\nb: 3\n")
    assert [(p.line, p.code) for p in source.problems] == [
        (2, ProblemCode.DUPLICATE_KEY),
        (3, ProblemCode.DUPLICATE_KEY),
        (4, ProblemCode.DUPLICATE_KEY),
    ]


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert only_problem("\n".join(lines)).code is ProblemCode.TOO_LARGE


def test_aliases_cannot_nest_deeper_than_text_can() -> None:
    text = "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 60))])
    assert only_problem(text).code is ProblemCode.TOO_LARGE


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    source = read_source(tmp_path / "no.yaml")
    assert [p.code for p in source.problems] == [ProblemCode.MISSING_FILE]
    assert [p.code for p in read_source(tmp_path).problems] == [ProblemCode.MISSING_FILE]


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    problem = read_source(path).problems[0]
    assert (problem.code, problem.line, problem.column) == (ProblemCode.SYNTAX, 2, 7)
    assert "0xe9" in problem.message


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_source(path).problems == ()


def inside(problem: Problem, source: SpecSource) -> bool:
    lines = split_lines(source.text)
    return (
        1 <= problem.line <= len(lines) and 1 <= problem.column <= len(lines[problem.line - 1]) + 1
    )


YAMLISH = st.text(
    st.sampled_from("ab1:-[]{}&*!|>'\"#%@`,?\n\t\r \\uU0x<~.eE\x85\u2028\ufeff\x00é"), max_size=60
)


@settings(max_examples=400)
@given(YAMLISH)
def test_any_text_is_read_or_refused_at_a_place_inside_it(text: str) -> None:
    source = parse_source(text)
    assert (source.root is None) <= bool(source.problems)
    for problem in source.problems:
        assert inside(problem, source)
        assert render(problem, text).startswith(f"spec.yaml:{problem.line}:{problem.column}: ES1")


@settings(max_examples=100)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(raw)
    source = read_source(path)
    assert (source.root is None) <= bool(source.problems)
    assert all(inside(problem, source) for problem in source.problems)


def test_render_shows_the_line_a_caret_and_the_fix() -> None:
    text = "a: 1\n\tnmae: x # \x1b[31m\n"
    problem = Problem(
        "s.yaml", 2, 2, ProblemCode.UNKNOWN_KEY, "unknown key `nmae`", "did you mean?"
    )
    assert render(problem, text).split("\n") == [
        "s.yaml:2:2: ES105: unknown key `nmae`",
        "    2 | \tnmae: x # \ufffd[31m",
        "      | \t^^^^",
        "  fix: did you mean?",
    ]
