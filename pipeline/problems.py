"""A mistake in a spec as a value: where it is, what it is, and how to mend it.

Codes never change meaning. `render` prints a problem the way compilers do, so
that editors and CI logs link to the place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgesmith.pipeline.errors import SpecError

_TOKEN = re.compile(r"[^\s:,\[\]{}#]+")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # as YAML counts lines


class ProblemCode(StrEnum):
    """What is wrong with a spec."""

    SYNTAX = "ES101"
    TOO_LARGE = "ES102"
    UNSAFE_YAML = "ES103"
    DUPLICATE_KEY = "ES104"
    UNKNOWN_KEY = "ES105"
    MISSING_KEY = "ES106"
    WRONG_TYPE = "ES107"
    BAD_VALUE = "ES108"
    SPEC_VERSION = "ES109"
    CONFLICT = "ES110"
    MISSING_FILE = "ES111"
    BAD_FACTORY = "ES112"
    UNKNOWN_STAGE = "ES113"
    UNKNOWN_TARGET = "ES114"
    SAME_SPLIT = "ES115"
    LACKING_FORMAT = "ES116"


@dataclass(frozen=True, order=True)
class Problem:
    """One root cause. `line` and `column` count from 1 and lie inside the file."""

    path: str
    line: int
    column: int
    code: ProblemCode
    message: str
    suggestion: str


class InvalidSpecError(SpecError):
    """A spec has problems; `problems` lists all of them in the order of the file."""

    def __init__(self, problems: Sequence[Problem], text: str) -> None:
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        super().__init__(
            f"{problems[0].path} has {count}\n" + render_all(problems, text),
            fix="mend the places above; `edgesmith lint` checks again without running anything",
        )
        self.problems = tuple(problems)


def split_lines(text: str) -> list[str]:
    """The lines of a text as YAML counts them; never empty."""
    return _LINE_BREAK.split(text)


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` probably is a misspelling of."""
    folded = {choice.casefold().replace("-", "_"): choice for choice in choices}
    close = difflib.get_close_matches(word.casefold().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def listed(choices: Iterable[str]) -> str:
    """Choices for a message: `a`, `b`."""
    return ", ".join(f"`{choice}`" for choice in sorted(choices)) or "none"


def render(problem: Problem, text: str) -> str:
    """`file:line:column: code: message`, the source line, a caret under the token, the fix."""
    lines = split_lines(text)
    source = lines[problem.line - 1] if problem.line <= len(lines) else ""
    start = problem.column - 1
    token = _TOKEN.match(source, start)
    width = max(1, token.end() - start if token else 1)
    indent = "".join("\t" if char == "\t" else " " for char in source[:start])
    gutter = f"{problem.line:>5} | "
    return "\n".join(
        (
            f"{problem.path}:{problem.line}:{problem.column}: {problem.code}: "
            + _printable(problem.message),
            gutter + _printable(source),
            " " * (len(gutter) - 2) + "| " + indent + "^" * width,
            f"  fix: {_printable(problem.suggestion)}",
        )
    )


def render_all(problems: Iterable[Problem], text: str) -> str:
    """All problems of one file, a blank line between them."""
    return "\n\n".join(render(problem, text) for problem in problems)


def _printable(text: str) -> str:
    """Keep control characters of a hostile spec away from the terminal."""
    return "".join(char if char.isprintable() or char in "\t\n" else "\ufffd" for char in text)
