"""YAML text to a tree of plain values with positions, safely.

The parser's events are read one by one, so nothing is constructed from tags,
depth and alias expansion are bounded before they cost anything, and all
duplicate keys are found in one pass. Scalars follow the YAML 1.2 core schema,
less the numbers that JSON cannot hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from edgesmith.pipeline.problems import Problem, ProblemCode, split_lines
from edgesmith.pipeline.spec_tree import Entry, Node, Position, Scalar

MAX_BYTES = 128 * 1024
MAX_DEPTH = 24
MAX_VALUES = 20_000  # after alias expansion
_STRING_TAG = "tag:yaml.org,2002:str"
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,19}|0o[0-7]{1,21}|0x[0-9a-fA-F]{1,16}")
_LONG_INTEGER = re.compile(r"[-+]?[0-9]{20,}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class SpecSource:
    """A spec file as read: its text, its tree (None when it is not YAML) and what is wrong."""

    path: str
    text: str
    root: Node | None
    problems: tuple[Problem, ...] = ()


class _Refused(Exception):
    """The text cannot be read on from here."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read_source(path: Path) -> SpecSource:
    """Read a spec file; what is wrong with it as YAML is in `problems`.

    A file that cannot be opened is a problem too, at its first character.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        problem = Problem(
            str(path), 1, 1, ProblemCode.MISSING_FILE,
            f"cannot read the spec: {error.strerror or error}",
            "check the path; `edgesmith run examples/mnist/spec.yaml` runs an example",
        )  # fmt: skip
        return SpecSource(str(path), "", None, (problem,))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", errors="replace")
        lines = split_lines(before)
        text = raw.decode("utf-8-sig", errors="replace")
        problem = Problem(
            str(path), len(lines), len(lines[-1]) + 1, ProblemCode.SYNTAX,
            f"byte 0x{raw[error.start]:02x} is not UTF-8", "save the spec as UTF-8 text",
        )  # fmt: skip
        return SpecSource(str(path), text, None, (problem,))
    return parse_source(text, str(path))


def parse_source(text: str, path: str = "spec.yaml") -> SpecSource:
    """Parse YAML text to a tree with positions."""
    builder = _Builder(path, split_lines(text))
    try:
        if len(text.encode("utf-8", errors="replace")) > MAX_BYTES:
            message = f"the spec is larger than {MAX_BYTES // 1024} KiB"
            builder.refuse(
                Position(1, 1), ProblemCode.TOO_LARGE, message, "keep data in files of its own"
            )
        root = builder.build(_events(text, builder))
    except _Refused as refused:
        return SpecSource(path, text, None, (*builder.problems, refused.problem))
    return SpecSource(path, text, root, tuple(builder.problems))


def _events(text: str, builder: _Builder) -> Iterator[Event]:
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except ReaderError as error:
        lines = split_lines(text[: error.position])
        at = Position(len(lines), len(lines[-1]) + 1)
        message = "a control character is not allowed in YAML"
        builder.refuse(at, ProblemCode.SYNTAX, message, "remove it, or escape it in double quotes")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Position(mark.line + 1, mark.column + 1) if mark is not None else Position(1, 1)
        why = " ".join(filter(None, (error.context, error.problem)))
        fix = "check indentation, quotes and brackets here and in the line before"
        builder.refuse(at, ProblemCode.SYNTAX, f"not valid YAML: {why}", fix)
    except (YAMLError, ValueError, OverflowError) as error:
        # the scanner lets chr() fail on escapes beyond Unicode
        message = f"not valid YAML: {error}"
        builder.refuse(builder.last, ProblemCode.SYNTAX, message, "check the escapes after here")


class _Built(NamedTuple):
    """A finished node with what it costs: values after alias expansion, levels below it."""

    node: Node
    size: int
    depth: int


@dataclass
class _Frame:
    """A collection that is being read."""

    at: Position
    anchor: str | None
    mapping: bool
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    key: tuple[str | None, Position] | None = None  # a None name: the key was refused
    size: int = 1
    depth: int = 1

    def built(self) -> _Built:
        if self.mapping:
            return _Built(Node(self.at, entries=self.entries), self.size, self.depth)
        return _Built(Node(self.at, items=tuple(self.items)), self.size, self.depth)


class _Builder:
    """Builds the tree from parser events, with a stack of its own instead of recursion."""

    def __init__(self, path: str, lines: Sequence[str]) -> None:
        self._path = path
        self._lines = lines
        self._anchors: dict[str, _Built] = {}
        self.problems: list[Problem] = []
        self.last = Position(1, 1)

    def build(self, events: Iterator[Event]) -> Node:
        stack: list[_Frame] = []
        root: _Built | None = None
        documents = 0
        for event in events:
            self.last = self._position(event)
            if isinstance(event, DocumentStartEvent):
                documents += 1
                self._check_documents(documents)
            elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
                self._check_tag(event)
                self._open(stack, event)
            elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
                root = self._close(stack) or root
            elif isinstance(event, ScalarEvent):
                self._check_tag(event)
                root = self._place(stack, self._anchored(event, self._scalar(event))) or root
            elif isinstance(event, AliasEvent):
                root = self._place(stack, self._alias(event)) or root
        if root is None or root.node.entries is None:
            at = root.node.at if root is not None else Position(1, 1)
            fix = "start with `spec_version: 1`; `edgesmith schema` prints all keys"
            self.refuse(at, ProblemCode.WRONG_TYPE, "a spec is a mapping of keys to values", fix)
        return root.node

    def refuse(self, at: Position, code: ProblemCode, message: str, fix: str) -> NoReturn:
        """Give up reading the text with this problem."""
        raise _Refused(self._problem(at, code, message, fix))

    def _note(self, at: Position, code: ProblemCode, message: str, fix: str) -> None:
        self.problems.append(self._problem(at, code, message, fix))

    def _problem(self, at: Position, code: ProblemCode, message: str, fix: str) -> Problem:
        line = min(max(at.line, 1), len(self._lines))
        column = min(max(at.column, 1), len(self._lines[line - 1]) + 1)
        return Problem(self._path, line, column, code, message, fix)

    def _position(self, event: Event) -> Position:
        return Position(event.start_mark.line + 1, event.start_mark.column + 1)

    def _check_documents(self, documents: int) -> None:
        if documents > 1:
            message = "a spec is one YAML document; this starts a second"
            fix = "put each spec in a file of its own"
            self.refuse(self.last, ProblemCode.UNSAFE_YAML, message, fix)

    def _check_tag(self, event: ScalarEvent | CollectionStartEvent) -> None:
        tag = str(event.tag) if event.tag is not None else None
        if tag in (None, "!", "None", _STRING_TAG):
            return
        message = f"the tag `{tag}` is not allowed: specs hold plain values only"
        self._note(self.last, ProblemCode.UNSAFE_YAML, message, "remove the tag")

    def _open(self, stack: list[_Frame], event: CollectionStartEvent) -> None:
        if len(stack) >= MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels"
            self.refuse(self.last, ProblemCode.TOO_LARGE, message, "flatten the value")
        stack.append(_Frame(self.last, event.anchor, isinstance(event, MappingStartEvent)))

    def _close(self, stack: list[_Frame]) -> _Built | None:
        frame = stack.pop()
        placed = frame.built()
        if frame.anchor is not None:
            self._anchors[frame.anchor] = placed
        return self._place(stack, placed)

    def _anchored(self, event: ScalarEvent, node: Node) -> _Built:
        if event.anchor is not None:
            self._anchors[event.anchor] = _Built(node, 1, 0)
        return _Built(node, 1, 0)

    def _alias(self, event: AliasEvent) -> _Built:
        known = self._anchors.get(event.anchor or "")
        if known is None:
            message = f"the alias `*{event.anchor}` names no finished anchor before it"
            self.refuse(self.last, ProblemCode.SYNTAX, message, "define `&name` above its use")
        return known._replace(node=replace(known.node, at=self.last))

    def _place(self, stack: list[_Frame], placed: _Built) -> _Built | None:
        """Put a finished node into the collection being read; return it when it is the root."""
        if not stack:
            return placed
        node, size, depth = placed
        frame = stack[-1]
        frame.size += size
        frame.depth = max(frame.depth, depth + 1)
        if sum(open_frame.size for open_frame in stack) > MAX_VALUES:
            message = f"more than {MAX_VALUES} values after the aliases are expanded"
            self.refuse(self.last, ProblemCode.TOO_LARGE, message, "keep data in files of its own")
        if len(stack) + depth > MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels"
            self.refuse(self.last, ProblemCode.TOO_LARGE, message, "flatten the value")
        if not frame.mapping:
            frame.items.append(node)
        elif frame.key is None:
            frame.key = (self._key(frame, node), self.last)
        else:
            name, at = frame.key
            frame.key = None
            if node == Node(self.last):  # the parser finds an empty value at what comes next
                node = Node(at)
            if name is not None:
                frame.entries[name] = Entry(at, node)
        return None

    def _key(self, frame: _Frame, node: Node) -> str | None:
        key = node.scalar
        if not isinstance(key, str) or node.items is not None or node.entries is not None:
            fix = "put the key in quotes"
            self._note(self.last, ProblemCode.WRONG_TYPE, "a key must be text", fix)
            return None
        if key == "<<":
            message = "merge keys (`<<`) are not read"
            self._note(self.last, ProblemCode.UNSAFE_YAML, message, "write the keys out")
            return None
        if key in frame.entries:
            first = frame.entries[key].at
            message = f"`{key}` is given twice; first on line {first.line}"
            self._note(self.last, ProblemCode.DUPLICATE_KEY, message, "keep one of the two")
            return None
        return key

    def _scalar(self, event: ScalarEvent) -> Node:
        text: str = event.value
        if any("\ud800" <= char <= "\udfff" for char in text):
            message = "half of a surrogate pair is not text"
            self._note(self.last, ProblemCode.BAD_VALUE, message, "write the character itself")
            return Node(self.last, "")
        if not event.implicit[0]:  # quoted, a block scalar, or tagged !!str
            return Node(self.last, text)
        return Node(self.last, self._plain(text))

    def _plain(self, text: str) -> Scalar:
        """A plain scalar by the YAML 1.2 core schema."""
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return int(text, base)
        if _LONG_INTEGER.fullmatch(text) or _NOT_FINITE.fullmatch(text):
            return self._bad_number(text)
        if not _FLOAT.fullmatch(text):
            return text
        value = float(text)
        return value if value not in (float("inf"), float("-inf")) else self._bad_number(text)

    def _bad_number(self, text: str) -> int:
        message = f"`{text[:24]}` is not a finite number of at most 19 digits"
        fix = "write an ordinary number, or quote it if it is text"
        self._note(self.last, ProblemCode.BAD_VALUE, message, fix)
        return 0
