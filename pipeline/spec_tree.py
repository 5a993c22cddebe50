"""A YAML document as a tree of plain values that know where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Scalar = str | int | float | bool | None
Step = str | int
Data = Scalar | list["Data"] | dict[str, "Data"]


@dataclass(frozen=True)
class Position:
    """A place in the text, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Node:
    """A scalar, a sequence (`items`) or a mapping (`entries`) and where it stands."""

    at: Position
    scalar: Scalar = None
    items: tuple[Node, ...] | None = None
    entries: Mapping[str, Entry] | None = None

    def get(self, *path: Step) -> Node | None:
        """The node at `path` below this one, or None."""
        node: Node | None = self
        for step in path:
            node = node._child(step) if node is not None else None
        return node

    def text(self, *path: Step) -> str | None:
        """The string at `path`; None when absent or not a string."""
        node = self.get(*path)
        return node.scalar if node is not None and isinstance(node.scalar, str) else None

    def key_position(self, key: str) -> Position:
        """Where `key` of this mapping stands; the mapping itself when it has no such key."""
        entry = (self.entries or {}).get(key)
        return entry.at if entry is not None else self.at

    def data(self) -> Data:
        """Plain dicts, lists and scalars."""
        if self.entries is not None:
            return {key: entry.node.data() for key, entry in self.entries.items()}
        if self.items is not None:
            return [item.data() for item in self.items]
        return self.scalar

    def _child(self, step: Step) -> Node | None:
        if self.entries is not None and isinstance(step, str):
            entry = self.entries.get(step)
            return entry.node if entry is not None else None
        if self.items is not None and isinstance(step, int) and 0 <= step < len(self.items):
            return self.items[step]
        return None


@dataclass(frozen=True)
class Entry:
    """One key of a mapping: where the key stands, and its value."""

    at: Position
    node: Node
