"""Padding that a target cannot store becomes an operator of its own.

    conv(x, pads p)      = conv(pad(x, p, zero point), VALID)
    max pool(x, pads p)  = max pool(pad(x, p, lowest code), VALID)

A padded position contributes (zero point - zero point) * w = 0 to a convolution,
and the lowest code never wins a maximum. Padding after the last window is dropped
first: it changes nothing, and what is left may be SAME or VALID. An average pool
counts only real positions, so its padding cannot be made explicit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Op, Padding, Pair, Tensor
from edgesmith.targets.graph.padding import PaddingScheme, output_size, scheme_of
from edgesmith.targets.graph.rewriting import Editor, Rule

Windowed = ir.Conv2D | ir.DepthwiseConv2D | ir.AveragePool2D | ir.MaxPool2D
WINDOWED = (ir.Conv2D, ir.DepthwiseConv2D, ir.AveragePool2D, ir.MaxPool2D)

_LOWEST_FLOAT = int(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Window:
    """The geometry of a windowed operator: input size, kernel, stride, dilation."""

    size: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair

    @classmethod
    def of(cls, op: Windowed, source: Tensor, weight: Tensor | None) -> Window:
        size = (source.shape[1], source.shape[2])
        if isinstance(op, ir.AveragePool2D | ir.MaxPool2D):
            return cls(size, op.kernel, op.stride, (1, 1))
        assert weight is not None
        return cls(size, (weight.shape[1], weight.shape[2]), op.stride, op.dilation)

    def scheme(self, padding: Padding) -> PaddingScheme | None:
        return scheme_of(padding, self.size, self.kernel, self.stride, self.dilation)

    def effective(self, padding: Padding) -> Padding:
        """Without what lies behind the last window."""
        height, width = output_size(self.size, self.kernel, self.stride, padding, self.dilation)
        return Padding(
            padding.top,
            self._after(0, height, padding.top, padding.bottom),
            padding.left,
            self._after(1, width, padding.left, padding.right),
        )

    def _after(self, axis: int, out: int, before: int, after: int) -> int:
        reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
        end = (out - 1) * self.stride[axis] + reach
        return min(after, max(0, end - before - self.size[axis]))


def padding_scheme(op: Windowed, graph: Graph) -> PaddingScheme | None:
    """The scheme that the operator's padding is, or None where it is neither."""
    operands = graph.operands(op)
    source, weight = operands[0], operands[1] if len(operands) > 1 else None
    assert source is not None
    return Window.of(op, source, weight).scheme(op.padding)


def _window(op: Windowed, editor: Editor) -> Window:
    weight = editor.operand(op, 1) if len(op.inputs) > 1 else None
    return Window.of(op, editor.operand(op, 0), weight)


@dataclass(frozen=True)
class TrimPadding(Rule):
    """Drop padding behind the last window where SAME or VALID is left."""

    name: ClassVar[str] = "trim-padding"
    kinds: ClassVar[tuple[type[Op], ...]] = WINDOWED

    def check(self, op: Op, editor: Editor) -> str | None:
        assert isinstance(op, Windowed)
        window = _window(op, editor)
        if window.scheme(op.padding) is not None:
            return "is SAME or VALID"
        if window.scheme(window.effective(op.padding)) is None:
            return "is neither SAME nor VALID without unused padding"
        return None

    def rewrite(self, op: Op, editor: Editor) -> None:
        assert isinstance(op, Windowed)
        editor.emit(replace(op, padding=_window(op, editor).effective(op.padding)))


@dataclass(frozen=True)
class ExplicitPadding(Rule):
    """conv(x, pads) -> conv(pad(x), VALID); the same for max pools."""

    name: ClassVar[str] = "explicit-padding"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Conv2D, ir.DepthwiseConv2D, ir.MaxPool2D)

    def check(self, op: Op, editor: Editor) -> str | None:
        assert isinstance(op, Windowed)
        return "is SAME or VALID" if _window(op, editor).scheme(op.padding) else None

    def rewrite(self, op: Op, editor: Editor) -> None:
        assert isinstance(op, Windowed)
        source = editor.operand(op, 0)
        pads = _window(op, editor).effective(op.padding)
        before, after = (0, pads.top, pads.left, 0), (0, pads.bottom, pads.right, 0)
        sizes = zip(before, source.shape, after, strict=True)
        shape = tuple(first + size + last for first, size, last in sizes)
        value = None
        if isinstance(op, ir.MaxPool2D):
            value = _LOWEST_FLOAT if source.dtype is DType.FLOAT32 else source.dtype.qmin
        padded = editor.add_tensor(replace(source, name=f"{op.output}/padded", shape=shape))
        editor.insert(ir.Pad, [source.name], padded, before=before, after=after, value=value)
        editor.emit(replace(op, inputs=(padded, *op.inputs[1:]), padding=Padding()))
