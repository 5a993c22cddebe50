"""Movement that does nothing, or twice what can be done at once.

    reshape(reshape(x, a), b)       = reshape(x, b)
    transpose(transpose(x, p), q)   = transpose(x, p[q])
    transpose of axes of size 1     = reshape
    reshape to x's shape            = x

Tensors that must be kept are; between two movements only a tensor that nobody asks
for by name disappears.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Op
from edgesmith.targets.graph.rewriting import Editor, Rule


def _skip_inner(op: Op, inner: Op, editor: Editor) -> None:
    """Emit `op` on the input of `inner`, which goes if nobody else reads it."""
    if editor.read_once(op.inputs[0]):
        editor.drop(inner)
    editor.emit(op if op.inputs == inner.inputs else replace(op, inputs=inner.inputs))


@dataclass(frozen=True)
class MergeReshapes(Rule):
    """reshape(reshape(x, a), b) -> reshape(x, b)."""

    name: ClassVar[str] = "merge-reshapes"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Reshape,)

    def check(self, op: Op, editor: Editor) -> str | None:
        if not isinstance(editor.producer(op.inputs[0]), ir.Reshape):
            return "does not follow a reshape"
        return None if editor.removable(op.inputs[0]) else "follows a tensor that is kept"

    def rewrite(self, op: Op, editor: Editor) -> None:
        inner = editor.producer(op.inputs[0])
        assert inner is not None
        _skip_inner(op, inner, editor)


@dataclass(frozen=True)
class MergeTransposes(Rule):
    """transpose(transpose(x, p), q) -> transpose(x, p[q])."""

    name: ClassVar[str] = "merge-transposes"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Transpose,)

    def check(self, op: Op, editor: Editor) -> str | None:
        if not isinstance(editor.producer(op.inputs[0]), ir.Transpose):
            return "does not follow a transpose"
        return None if editor.removable(op.inputs[0]) else "follows a tensor that is kept"

    def rewrite(self, op: Op, editor: Editor) -> None:
        inner = editor.producer(op.inputs[0])
        assert isinstance(op, ir.Transpose)
        assert isinstance(inner, ir.Transpose)
        merged = tuple(inner.permutation[axis] for axis in op.permutation)
        _skip_inner(replace(op, permutation=merged), inner, editor)


@dataclass(frozen=True)
class TransposeAsReshape(Rule):
    """A transpose that moves only axes of size 1 -> reshape."""

    name: ClassVar[str] = "transpose-as-reshape"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Transpose,)

    def check(self, op: Op, editor: Editor) -> str | None:
        assert isinstance(op, ir.Transpose)
        shape = editor.operand(op, 0).shape
        moved = [axis for axis in op.permutation if shape[axis] > 1]
        return None if moved == sorted(moved) else "moves axes that hold more than one element"

    def rewrite(self, op: Op, editor: Editor) -> None:
        editor.emit(ir.Reshape(op.name, op.inputs, op.outputs, editor[op.output].shape))


@dataclass(frozen=True)
class DropIdle(Rule):
    """A reshape to the same shape, or a Quantize to the same format -> nothing."""

    name: ClassVar[str] = "drop-idle"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Reshape, ir.Quantize)

    def check(self, op: Op, editor: Editor) -> str | None:
        source, result = editor.operand(op, 0), editor[op.output]
        if source.shape != result.shape or source.dtype != result.dtype:
            return "changes shape or type"
        if source.quantization is not None and not source.quantization.same_as(result.quantization):
            return "changes scale"
        return None if editor.removable(op.output) else "makes a tensor that is kept"

    def rewrite(self, op: Op, editor: Editor) -> None:
        editor.bypass(op)
