"""Check a YAML tree against dataclasses, one problem per root cause.

Two passes. The first walks the tree beside the types and mends keys: a
misspelled key is reported once and then renamed, so that it is not missing as
well and its value is still checked; an unknown key is reported and dropped. The
second pass is pydantic's validation of the mended tree, whose errors are
translated to positions and plain words.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from edgesmith.pipeline.jsonvalue import adapter
from edgesmith.pipeline.problems import Problem, ProblemCode, did_you_mean, listed
from edgesmith.pipeline.spec_tree import Entry, Node, Position, Step

T = TypeVar("T")
Steps = tuple[Step, ...]
_TYPE_NAMES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_KEY = "[key]"  # where pydantic says that a key is wrong, not its value
_TYPE_FIXES = {
    "text": "put it in quotes if it is meant as text",
    "a whole number": "write digits only, without quotes",
    "a number": "write it without quotes or unit",
    "true or false": "write true or false",
    "a list": "write [a, b] or one `- item` per line",
    "a mapping": "write `key: value` lines, indented below it",
}


@dataclass
class Findings:
    """Collects the problems of one spec."""

    path: str
    problems: list[Problem] = field(default_factory=list)

    def add(self, at: Position, code: ProblemCode, message: str, suggestion: str) -> None:
        """Note a problem, unless its place already has one."""
        if not any((each.line, each.column) == (at.line, at.column) for each in self.problems):
            problem = Problem(self.path, at.line, at.column, code, message, suggestion)
            self.problems.append(problem)


def check(node: Node, kind: type[T], where: str, findings: Findings) -> T | None:
    """The value of `kind` that the tree describes; None when problems were found.

    Args:
        where: what the tree is in messages, such as "the spec" or "stage `quantize`".
    """
    before = len(findings.problems)
    mended = mend(node, kind, where, findings)
    value = validate(mended, kind, where, findings)
    return value if len(findings.problems) == before else None


def mend(
    node: Node, kind: Any, where: str, findings: Findings, *, leave: Container[str] = ()
) -> Node:
    """The tree with unknown keys reported and renamed or dropped, all the way down.

    Args:
        leave: keys of this mapping whose values are checked elsewhere.
    """
    kinds = _dataclasses_in(kind)
    if not kinds:
        return _mend_items(node, kind, where, findings)
    if node.entries is None:
        return node
    known = {name: None for each in kinds for name in _field_kinds(each)}
    node = _mend_keys(node, list(known), where, findings) if len(kinds) > 1 else node
    chosen = _choose(node, kinds)
    if chosen is None:
        return node
    types_of = _field_kinds(chosen)
    others = {name: kind for kind in kinds if kind is not chosen for name in _field_kinds(kind)}
    node = _drop_foreign(node, types_of, others, where, findings)
    node = _mend_keys(node, list(types_of), where, findings)
    entries = {
        key: entry
        if key in leave
        else replace(entry, node=mend(entry.node, types_of[key], f"`{key}`", findings))
        for key, entry in (node.entries or {}).items()
    }
    return replace(node, entries=entries)


def validate(node: Node, kind: type[T], where: str, findings: Findings) -> T | None:
    """Pydantic's strict validation of a mended tree, its errors translated."""
    try:
        # strict JSON mode takes lists for tuples and text for enums, but no text for numbers
        return adapter(kind).validate_json(json.dumps(node.data()), strict=True)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            _translate(node, details, where, findings)
        return None


def _mend_items(node: Node, kind: Any, where: str, findings: Findings) -> Node:
    inner = _item_kind(kind)
    if inner is None or node.items is None:
        return node
    items = tuple(mend(item, inner, where, findings) for item in node.items)
    return replace(node, items=items)


def _mend_keys(node: Node, known: list[str], where: str, findings: Findings) -> Node:
    entries: dict[str, Entry] = {}
    present = set(node.entries or {}) & set(known)
    for key, entry in (node.entries or {}).items():
        if key in known:
            entries[key] = entry
            continue
        guess = did_you_mean(key, (name for name in known if name not in present))
        _unknown_key(entry.at, key, guess, known, where, findings)
        if guess is not None:
            present.add(guess)
            entries[guess] = entry
    return replace(node, entries=entries)


def _unknown_key(
    at: Position, key: str, guess: str | None, known: list[str], where: str, findings: Findings
) -> None:
    fix = f"did you mean `{guess}`?" if guess else f"remove it; known keys: {listed(known)}"
    findings.add(at, ProblemCode.UNKNOWN_KEY, f"unknown key `{key}` in {where}", fix)


def _drop_foreign(
    node: Node, own: Mapping[str, Any], others: Mapping[str, type], where: str, findings: Findings
) -> Node:
    """Report and drop keys that belong to another member of a union."""
    entries: dict[str, Entry] = {}
    for key, entry in (node.entries or {}).items():
        if key in own or key not in others:
            entries[key] = entry
            continue
        tag, other = _tag(others[key])
        mine = node.text(tag)
        findings.add(
            entry.at, ProblemCode.CONFLICT,
            f"`{key}` does not go with `{tag}: {mine}` in {where}",
            f"remove it, or write `{tag}: {other}`",
        )  # fmt: skip
    return replace(node, entries=entries)


def _choose(node: Node, kinds: list[type]) -> type | None:
    """The union member that the tree's tag names; the only member where there is one."""
    if len(kinds) == 1:
        return kinds[0]
    for kind in kinds:
        key, value = _tag(kind)
        if node.text(key) == value:
            return kind
    return None


def _tag(kind: type) -> tuple[str, str]:
    """The field and the literal that tell a union member apart."""
    for name, each in _field_kinds(kind).items():
        if typing.get_origin(each) is typing.Literal:
            return name, str(typing.get_args(each)[0])
    raise TypeError(f"{kind.__name__} has no Literal field to tell it apart in a union")


def _field_kinds(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {each.name: hints[each.name] for each in fields(kind) if each.init}


def _unwrapped(kind: Any) -> Iterator[Any]:
    """The alternatives of a type: Annotated peeled off, unions spread."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        yield from _unwrapped(typing.get_args(kind)[0])
    elif origin in (typing.Union, types.UnionType):
        for each in typing.get_args(kind):
            yield from _unwrapped(each)
    else:
        yield kind


def _dataclasses_in(kind: Any) -> list[type]:
    return [each for each in _unwrapped(kind) if isinstance(each, type) and is_dataclass(each)]


def _item_kind(kind: Any) -> Any | None:
    for each in _unwrapped(kind):
        if typing.get_origin(each) in (tuple, list):
            return typing.get_args(each)[0]
    return None


def _translate(root: Node, details: ErrorDetails, where: str, findings: Findings) -> None:
    path, node, missing = _follow(root, details["loc"])
    what = f"`{'.'.join(map(str, path))}`" if path else where
    kind = details["type"]
    context: dict[str, Any] = details.get("ctx", {})
    at = node.at
    if kind == "missing":
        owner_at = _key_position(root, path)
        message = f"{what} lacks the key `{missing}`"
        findings.add(owner_at, ProblemCode.MISSING_KEY, message, f"add `{missing}: ...`")
    elif kind == "union_tag_not_found":
        tag = str(context["discriminator"]).strip("'")
        owner_at = _key_position(root, path)
        message = f"{what} lacks the key `{tag}`"
        findings.add(owner_at, ProblemCode.MISSING_KEY, message, f"add `{tag}: ...`")
    elif kind == "union_tag_invalid":
        tag = str(context["discriminator"]).strip("'")
        value = node.get(tag)
        expected = str(context["expected_tags"])
        _bad_choice(value or node, f"{what[:-1]}.{tag}`", expected, findings)
    elif missing == _KEY and kind in ("literal_error", "enum"):
        key, known = str(path[-1]), _choices_in(str(context["expected"]))
        owner = f"`{'.'.join(map(str, path[:-1]))}`"
        position = _key_position(root, path)
        _unknown_key(position, key, did_you_mean(key, known), known, owner, findings)
    elif kind in ("literal_error", "enum"):
        _bad_choice(node, what, str(context["expected"]), findings)
    elif kind == "value_error":
        message = str(context["error"])
        named = (node.key_position(word) for word in message.split("`")[1::2])
        place = next((each for each in named if each != node.at), _key_position(root, path))
        fix = "keep exactly one of them" if "both" in message else "see `edgesmith schema`"
        findings.add(place, ProblemCode.CONFLICT, message, fix)
    elif kind == "too_short" and not (node.items or node.entries):
        findings.add(at, ProblemCode.BAD_VALUE, f"{what} is empty", "give at least one")
    elif kind in _TYPE_NAMES:
        expected = _TYPE_NAMES[kind]
        message = f"{what} is {_describe(node)}; {expected} was expected"
        findings.add(at, ProblemCode.WRONG_TYPE, message, _TYPE_FIXES[expected])
    else:
        message = f"{what} is {_describe(node)}: {_lower(details['msg'])}"
        findings.add(at, ProblemCode.BAD_VALUE, message, "give a value within those bounds")


def _choices_in(expected: str) -> list[str]:
    """Those of pydantic's list: 'a', 'b' or 'c'."""
    return expected.split("'")[1::2] or [expected]


def _bad_choice(node: Node, what: str, expected: str, findings: Findings) -> None:
    choices = _choices_in(expected)
    guess = did_you_mean(node.scalar, choices) if isinstance(node.scalar, str) else None
    fix = f"choose one of {listed(choices)}"
    fix = f"did you mean `{guess}`? {fix}" if guess else fix
    findings.add(node.at, ProblemCode.BAD_VALUE, f"{what} is {_describe(node)}", fix)


def _follow(root: Node, location: tuple[Step, ...]) -> tuple[Steps, Node, Step | None]:
    """The deepest node on an error's location, its path, and the first step that is not there.

    Pydantic puts union tags into locations; a step that is the value of its
    mapping's own tag is passed over.
    """
    path: list[Step] = []
    node = root
    for step in location:
        child = node.get(step)
        if child is not None:
            path.append(step)
            node = child
            continue
        values = [entry.node.scalar for entry in (node.entries or {}).values()]
        if step in values and step is not location[-1]:
            continue
        return tuple(path), node, step
    return tuple(path), node, None


def _key_position(root: Node, path: Steps) -> Position:
    """Where the key of the mapping at `path` stands; list items and the root: themselves."""
    if not path or not isinstance(path[-1], str):
        node = root.get(*path)
        return (node or root).at
    parent = root.get(*path[:-1])
    return parent.key_position(path[-1]) if parent is not None else root.at


def _describe(node: Node) -> str:
    if node.entries is not None:
        return "a mapping"
    if node.items is not None:
        return "a list"
    if node.scalar is None:
        return "empty"
    shown = json.dumps(node.scalar, ensure_ascii=False)
    return shown if len(shown) <= 48 else shown[:45] + '..."'


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
