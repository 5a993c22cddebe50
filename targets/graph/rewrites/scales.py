"""Scales that kernels fix or share.

    shared   kernels of movement, pools and clamps copy codes, so both sides have one
             scale; a `Quantize` does the change:  Q(move(x)) = move(Q(x))
    fixed    sigmoid and softmax write scale 1/256 and zero point -128, tanh 1/128 and 0,
             and 1/32768 and 0 for int16; a `Quantize` behind them gives the wanted scale
    average  an average pool that changes scale and pads nothing is a depthwise
             convolution: mean(x) = sum(1 * x) with weight codes 1 of scale 1 / (kh * kw),
             which rounds once where pool and Quantize would round twice

Where a Quantize is added to an average pool or a bilinear resize it stands behind it,
so that nothing saturates before it is averaged; these round twice. Source of the
constraints: the TFLite 8-bit quantization specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Op, Padding, Quantization, Tensor
from edgesmith.targets.graph.rewriting import Editor, Rule

SHARED = (
    ir.AveragePool2D,
    ir.MaxPool2D,
    ir.Pad,
    ir.Reshape,
    ir.Transpose,
    ir.StridedSlice,
    ir.ResizeNearest,
    ir.ResizeBilinear,
    ir.Clip,
    ir.Relu,
)
FIXED: Mapping[tuple[type[Op], DType], tuple[float, int]] = {
    (ir.Logistic, DType.INT8): (1 / 256, -128),
    (ir.Softmax, DType.INT8): (1 / 256, -128),
    (ir.Tanh, DType.INT8): (1 / 128, 0),
    (ir.Logistic, DType.INT16): (1 / 32768, 0),
    (ir.Softmax, DType.INT16): (1 / 32768, 0),
    (ir.Tanh, DType.INT16): (1 / 32768, 0),
}


def same_format(first: Tensor, second: Tensor) -> bool:
    """Whether codes of one tensor mean the same in the other."""
    if first.dtype != second.dtype:
        return False
    return first.quantization is None or first.quantization.same_as(second.quantization)


@dataclass(frozen=True)
class AverageAsDepthwise(Rule):
    """An unpadded average pool that changes scale -> a depthwise convolution with ones."""

    name: ClassVar[str] = "average-as-depthwise"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.AveragePool2D,)

    def check(self, op: Op, editor: Editor) -> str | None:
        assert isinstance(op, ir.AveragePool2D)
        source, result = editor.operand(op, 0), editor[op.output]
        if same_format(source, result):
            return "keeps its scale"
        if source.dtype != result.dtype:
            return "changes its type"
        return None if op.padding == Padding() else "pads, and padding is not counted"

    def rewrite(self, op: Op, editor: Editor) -> None:
        assert isinstance(op, ir.AveragePool2D)
        shape = (1, *op.kernel, editor.operand(op, 0).shape[3])
        scale = Quantization.per_tensor(1 / (op.kernel[0] * op.kernel[1]))
        ones = Tensor(f"{op.output}/ones", shape, DType.INT8, scale, np.ones(shape, np.int8))
        inputs = (op.inputs[0], editor.add_tensor(ones))
        editor.emit(
            ir.DepthwiseConv2D(
                op.name, inputs, op.outputs, stride=op.stride, activation=op.activation
            )
        )


@dataclass(frozen=True)
class ShareScale(Rule):
    """op: x of one scale -> y of another  ->  op and a Quantize."""

    name: ClassVar[str] = "share-scale"
    kinds: ClassVar[tuple[type[Op], ...]] = SHARED

    def check(self, op: Op, editor: Editor) -> str | None:
        if isinstance(op, ir.Relu) and op.activation is Activation.RELU:
            return "rescales by itself"
        if same_format(editor.operand(op, 0), editor[op.output]):
            return "keeps its scale"
        return None

    def rewrite(self, op: Op, editor: Editor) -> None:
        source, result = editor.operand(op, 0), editor[op.output]
        # Clamps and padding values are meant in the result's codes.
        if isinstance(op, ir.Clip | ir.Relu | ir.Pad) or (
            isinstance(op, ir.ResizeNearest) and source.elements < result.elements
        ):
            made = editor.add_tensor(
                replace(result, name=f"{op.output}/requantized", shape=source.shape)
            )
            editor.insert(ir.Quantize, [source.name], made)
            editor.emit(replace(op, inputs=(made, *op.inputs[1:])))
            return
        made = editor.add_tensor(
            replace(source, name=f"{op.output}/own_scale", shape=result.shape, data=None)
        )
        editor.emit(replace(op, name=made, outputs=(made,)))
        editor.insert(ir.Quantize, [made], op.output)


@dataclass(frozen=True)
class ShareConcatScale(Rule):
    """concat(x, y) -> concat(Quantize(x), Quantize(y)), where their scale is not the result's."""

    name: ClassVar[str] = "share-concat-scale"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Concat,)

    def check(self, op: Op, editor: Editor) -> str | None:
        result = editor[op.output]
        if all(same_format(editor[name], result) for name in op.inputs):
            return "shares one scale"
        return None

    def rewrite(self, op: Op, editor: Editor) -> None:
        result = editor[op.output]
        inputs: dict[str, str] = {}
        for name in op.inputs:
            if name not in inputs:
                inputs[name] = self._requantized(editor[name], result, editor)
        editor.emit(replace(op, inputs=tuple(inputs[name] for name in op.inputs)))

    def _requantized(self, source: Tensor, result: Tensor, editor: Editor) -> str:
        if same_format(source, result):
            return source.name
        wanted = replace(result, name=f"{source.name}/requantized", shape=source.shape)
        if source.data is None:
            made = editor.add_tensor(wanted)
            editor.insert(ir.Quantize, [source.name], made)
            return made
        scale, zero = result.q.scalar
        reals = source.q.dequantize(source.data).astype(np.float64)
        codes = np.rint(reals / np.float64(scale)) + zero
        data = np.clip(codes, result.dtype.qmin, result.dtype.qmax).astype(result.dtype.numpy)
        return editor.add_tensor(replace(wanted, data=data))


@dataclass(frozen=True)
class FixedScale(Rule):
    """f(x) with any scale -> f(x) with the scale its kernel writes, and a Quantize."""

    name: ClassVar[str] = "fixed-scale"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Logistic, ir.Softmax, ir.Tanh)

    def _wanted(self, op: Op, editor: Editor) -> tuple[DType, Quantization] | None:
        dtype = editor.operand(op, 0).dtype
        fixed = FIXED.get((type(op), dtype))
        return None if fixed is None else (dtype, Quantization.per_tensor(*fixed))

    def check(self, op: Op, editor: Editor) -> str | None:
        wanted = self._wanted(op, editor)
        result = editor[op.output]
        if wanted is None:
            return f"has no fixed scale for {editor.operand(op, 0).dtype}"
        if wanted[0] == result.dtype and wanted[1].same_as(result.quantization):
            return "has the fixed scale"
        return None

    def rewrite(self, op: Op, editor: Editor) -> None:
        wanted = self._wanted(op, editor)
        assert wanted is not None
        result = editor[op.output]
        name = f"{op.output}/fixed_scale"
        made = editor.add_tensor(Tensor(name, result.shape, *wanted))
        editor.emit(replace(op, name=made, outputs=(made,)))
        editor.insert(ir.Quantize, [made], op.output)
