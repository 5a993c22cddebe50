"""How graphs are rewritten: rules that say why they do not match, and one pass per rule.

A rule is a frozen dataclass. `check` returns the reason why it does not apply to
an operator, or None; `rewrite` then says what takes the operator's place. A pass
visits the operators once, in execution order, and shows each to the rule with
everything before it already rewritten, so chains collapse in a single pass:

    requires (verify) -> rules -> ensures (verify)

Source of the shape: onnxscript's rewriter rules and xdsl's passes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from edgesmith.targets.graph.ir import Graph, Layout, Op, Quantization, Tensor
from edgesmith.targets.graph.validate import verify


class Editor:
    """A graph being rewritten: everything before the current operator is already new.

    Args:
        graph: what is rewritten.
        keep: tensors that must not disappear.
    """

    def __init__(self, graph: Graph, keep: Iterable[str] = ()) -> None:
        self.graph = graph
        self.tensors: dict[str, Tensor] = dict(graph.tensors)
        self._ops: list[Op | None] = []
        self._at: dict[str, int] = {}
        self._alias: dict[str, str] = {}
        self._fixed = {*graph.inputs, *graph.outputs, *keep}
        self._readers = Counter(name for op in graph.ops for name in op.inputs if name)
        self._readers.update(graph.outputs)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def operand(self, op: Op, position: int) -> Tensor:
        return self.tensors[op.inputs[position]]

    def producer(self, name: str) -> Op | None:
        """The operator, as rewritten so far, that produces a tensor."""
        position = self._at.get(name)
        return None if position is None else self._ops[position]

    def read_once(self, name: str) -> bool:
        """Whether one operator alone reads the tensor, once, and nobody outside does."""
        return self._readers[name] == 1 and name not in self._fixed

    def removable(self, name: str) -> bool:
        """Whether the tensor may disappear."""
        return name not in self._fixed

    def readers(self, name: str) -> int:
        """How often the tensor is read, as a graph output too."""
        return self._readers[name]

    def fresh(self, name: str) -> str:
        """A tensor name that nothing has yet."""
        found, number = name, 1
        while found in self.tensors:
            number += 1
            found = f"{name}#{number}"
        return found

    def add_tensor(self, tensor: Tensor) -> str:
        """Add a tensor under a fresh name."""
        name = self.fresh(tensor.name)
        self.tensors[name] = replace(tensor, name=name)
        return name

    def like(self, tensor: Tensor, suffix: str, quantization: Quantization | None = None) -> str:
        """Add an activation of the same type and shape, possibly of another quantization."""
        made = quantization if quantization is not None else tensor.quantization
        name = f"{tensor.name}/{suffix}"
        return self.add_tensor(Tensor(name, tensor.shape, tensor.dtype, made))

    def emit(self, op: Op) -> None:
        """Append an operator."""
        for name in op.outputs:
            self._at[name] = len(self._ops)
        self._ops.append(op)
        self._readers.update(name for name in op.inputs if name)

    def insert(self, kind: type[Op], inputs: Sequence[str], output: str, **fields: Any) -> None:
        """Append an operator that is named after its output."""
        self.emit(kind(output, tuple(inputs), (output,), **fields))

    def drop(self, op: Op) -> None:
        """Remove an operator that was emitted before."""
        position = self._at[op.output]
        self._ops[position] = None
        for name in op.outputs:
            del self._at[name]
        self._readers.subtract(name for name in op.inputs if name)

    def bypass(self, op: Op) -> None:
        """Let readers of the operator's output read its first input; the output may go."""
        source = op.inputs[0]
        self._alias[op.output] = source
        self._readers[source] += self._readers[op.output]

    def _current(self, op: Op) -> Op:
        if not any(name in self._alias for name in op.inputs):
            return op
        return replace(op, inputs=tuple(self._alias.get(name, name) for name in op.inputs))

    def run(self, rule: Rule) -> bool:
        """One pass; whether the rule applied anywhere."""
        changed = False
        for original in self.graph.ops:
            op = self._current(original)
            if isinstance(op, rule.kinds) and rule.check(op, self) is None:
                rule.rewrite(op, self)
                changed = True
            else:
                self.emit(op)
            # The original read until now; whatever was emitted in its place counts by itself.
            self._readers.subtract(name for name in op.inputs if name)
        return changed

    def finished(self) -> Graph:
        """The rewritten graph, without tensors that nothing names any more."""
        ops = tuple(op for op in self._ops if op is not None)
        return pruned(replace(self.graph, ops=ops, tensors=self.tensors))


class Rule(ABC):
    """One rewrite. Subclasses are frozen dataclasses; their fields are its parameters."""

    name: ClassVar[str]
    kinds: ClassVar[tuple[type[Op], ...]]

    @abstractmethod
    def check(self, op: Op, editor: Editor) -> str | None:
        """Why the rule does not apply to this operator; None where it does."""

    @abstractmethod
    def rewrite(self, op: Op, editor: Editor) -> None:
        """Emit what takes the operator's place; called only where `check` gave None."""


def pruned(graph: Graph) -> Graph:
    """Without tensors, origins and layouts that no operator and no port names."""
    names = {*graph.inputs, *graph.outputs}
    for op in graph.ops:
        names.update(op.inputs, op.outputs)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in names}
    origin = {name: source for name, source in graph.origin.items() if name in names}
    layout: dict[str, Layout] = {n: layout for n, layout in graph.layout.items() if n in names}
    positions = {name: places for name, places in graph.positions.items() if name in names}
    return replace(graph, tensors=tensors, origin=origin, layout=layout, positions=positions)


def without_dead_code(graph: Graph, keep: Iterable[str] = ()) -> Graph:
    """Without operators whose results nobody reads."""
    needed = {*graph.outputs, *keep}
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if needed.intersection(op.outputs):
            kept.append(op)
            needed.update(op.inputs)
    return pruned(replace(graph, ops=tuple(reversed(kept))))


def apply(graph: Graph, rules: Sequence[Rule], keep: Iterable[str] = ()) -> Graph:
    """Apply every rule in one pass each, in this order, and verify the result.

    Raises:
        ModelFileError: the graph, or what a rule made of it, breaks an invariant.
    """
    verify(graph)
    kept = tuple(keep)
    changed = False
    for rule in rules:
        editor = Editor(graph, kept)
        if editor.run(rule):
            graph = editor.finished()
            changed = True
    return verify(graph) if changed else graph
