"""A clamp between any bounds, as one that kernels know.

Bounds are compared as codes: clip(x, a, b) is relu6 where a and b round to the codes
of 0 and 6, or saturate as they do, and nothing where both lie outside of the type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, Op, Tensor
from edgesmith.targets.graph.rewriting import Editor, Rule

_BOUNDS = {
    Activation.RELU: (0.0, np.inf),
    Activation.RELU6: (0.0, 6.0),
    Activation.RELU_N1_TO_1: (-1.0, 1.0),
}


def clamp_codes(tensor: Tensor, low: float, high: float) -> tuple[int, int]:
    """The codes between which a clamp to real bounds leaves a tensor."""
    scale, zero = tensor.q.scalar
    codes = np.rint(np.array([low, high]) / np.float64(scale)) + zero
    first, last = np.clip(codes, tensor.dtype.qmin, tensor.dtype.qmax)
    return int(first), int(last)


@dataclass(frozen=True)
class ClipAsRelu(Rule):
    """clip(x, a, b) -> relu, relu6 or relu-n1-to-1 with the same codes as bounds."""

    name: ClassVar[str] = "clip-as-relu"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Clip,)

    def _match(self, op: Op, editor: Editor) -> Activation | None:
        assert isinstance(op, ir.Clip)
        result = editor[op.output]
        if result.quantization is None:
            return None
        bounds = clamp_codes(result, op.low, op.high)
        for activation, (low, high) in _BOUNDS.items():
            if clamp_codes(result, low, high) == bounds:
                return activation
        return None

    def check(self, op: Op, editor: Editor) -> str | None:
        return None if self._match(op, editor) else "has bounds that no ReLU has"

    def rewrite(self, op: Op, editor: Editor) -> None:
        activation = self._match(op, editor)
        assert activation is not None
        editor.emit(ir.Relu(op.name, op.inputs, op.outputs, activation))


@dataclass(frozen=True)
class DropIdleClip(Rule):
    """clip(x, a, b) -> x where both bounds lie outside of the type."""

    name: ClassVar[str] = "drop-idle-clip"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Clip,)

    def check(self, op: Op, editor: Editor) -> str | None:
        assert isinstance(op, ir.Clip)
        result = editor[op.output]
        if result.quantization is None:
            return "works on reals"
        if clamp_codes(result, op.low, op.high) != (result.dtype.qmin, result.dtype.qmax):
            return "clamps"
        return None

    def rewrite(self, op: Op, editor: Editor) -> None:
        if editor.removable(op.output):
            editor.bypass(op)
        else:
            editor.emit(ir.Reshape(op.name, op.inputs, op.outputs, editor[op.output].shape))
