"""Rewrites of the float graph that make one operator of several: softmax, GELU, layer norm.

    softmax-scale   softmax(x * s), s one positive number          -> softmax with beta s
    gelu            x * (1 + erf(x / sqrt 2)) / 2                   -> Gelu(x)
    layer-norm      (x - mean x) / sqrt(mean (x - mean x)^2 + e)    -> LayerNorm(x)
    gain            LayerNorm(x) * g, g one value per element       -> LayerNorm with gamma g
    offset          LayerNorm(x) + b, b one value per element       -> LayerNorm with beta b

Exporters write the middle ones so up to operator set 16 (layer norm) and 19 (GELU).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Op, Tensor
from edgesmith.targets.graph.onnx_reader.values import Erf, Quotient, SquareRoot
from edgesmith.targets.graph.rewriting import Editor, Rule


def real_of(tensor: Tensor) -> float | None:
    """The value of a constant of one element."""
    if tensor.data is None or tensor.data.size != 1:
        return None
    data = tensor.data if tensor.quantization is None else tensor.q.dequantize(tensor.data)
    return float(data.reshape(-1)[0])


def inner(name: str, editor: Editor, *kinds: type[Op]) -> Op | None:
    """The operator of these kinds that makes a tensor nobody else reads."""
    op = editor.producer(name)
    return op if isinstance(op, kinds) and editor.read_once(name) else None


def _numbers(op: Op, editor: Editor) -> Iterator[tuple[str, float]]:
    """The computed operand and the number, of a binary operator with one."""
    for position in (0, 1):
        real = real_of(editor.operand(op, position))
        if real is not None:
            yield op.inputs[1 - position], real


def _beside(op: Op, editor: Editor, value: float) -> str | None:
    """The other operand of a binary operator, one of whose operands is this number."""
    close = (name for name, real in _numbers(op, editor) if math.isclose(real, value, rel_tol=1e-5))
    return next(close, None)


@dataclass(frozen=True)
class FuseSoftmaxScale(Rule):
    """softmax(x * s) -> softmax with beta s."""

    name: ClassVar[str] = "fuse-softmax-scale"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Softmax,)

    def _match(self, op: Op, editor: Editor) -> tuple[list[Op], str, float] | None:
        """The product and the moves of memory behind it, its other operand, and the number."""
        chain: list[Op] = []
        name = op.inputs[0]
        while (move := inner(name, editor, ir.Transpose, ir.Reshape)) is not None:
            chain.insert(0, move)
            name = move.inputs[0]
        product = inner(name, editor, ir.Mul)
        if product is None:
            return None
        same = editor[product.output].shape
        found = (
            ([product, *chain], source, real)
            for source, real in _numbers(product, editor)
            if real > 0 and editor[source].data is None and editor[source].shape == same
        )
        return next(found, None)

    def check(self, op: Op, editor: Editor) -> str | None:
        return None if self._match(op, editor) else "does not follow a product with one number"

    def rewrite(self, op: Op, editor: Editor) -> None:
        match = self._match(op, editor)
        assert match is not None
        assert isinstance(op, ir.Softmax)
        (product, *moves), source, real = match
        for item in (product, *moves):
            editor.drop(item)
        for move in moves:
            editor.emit(replace(move, inputs=(source,)))
            source = move.output
        editor.emit(replace(op, inputs=(source,), beta=op.beta * real))


@dataclass(frozen=True)
class FuseGelu(Rule):
    """x * (1 + erf(x / sqrt 2)) / 2 in any order of the three factors -> Gelu(x)."""

    name: ClassVar[str] = "fuse-gelu"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Mul,)

    def _match(self, op: Op, editor: Editor) -> tuple[str, list[Op]] | None:
        factors, inside = [op.inputs[0], op.inputs[1]], []
        for name in op.inputs:
            product = inner(name, editor, ir.Mul)
            if product is not None:
                factors.remove(name)
                factors += product.inputs
                inside.append(product)
                break
        numbers = [name for name in factors if real_of(editor[name]) == 0.5]
        if len(factors) != 3 or len(numbers) != 1:
            return None
        factors.remove(numbers[0])
        for source, gate in (factors, factors[::-1]):
            found = self._gate(gate, editor, source)
            if found is not None:
                return source, [*found, *inside]
        return None

    def _gate(self, name: str, editor: Editor, source: str) -> list[Op] | None:
        """The operators of 1 + erf(source / sqrt 2)."""
        one = inner(name, editor, ir.Add)
        curve = inner(_beside(one, editor, 1.0) or "", editor, Erf) if one else None
        scaled = inner(curve.inputs[0], editor, ir.Mul) if curve else None
        if one is None or curve is None or scaled is None:
            return None
        same = _beside(scaled, editor, math.sqrt(0.5)) == source
        return [scaled, curve, one] if same else None

    def check(self, op: Op, editor: Editor) -> str | None:
        return None if self._match(op, editor) else "is not x * (1 + erf(x / sqrt 2)) / 2"

    def rewrite(self, op: Op, editor: Editor) -> None:
        match = self._match(op, editor)
        assert match is not None
        for item in match[1]:
            editor.drop(item)
        editor.emit(ir.Gelu(op.name, (match[0],), op.outputs))


@dataclass(frozen=True)
class FuseLayerNorm(Rule):
    """(x - mean x) / sqrt(mean (x - mean x)^2 + e) over the last axis -> LayerNorm(x)."""

    name: ClassVar[str] = "fuse-layer-norm"
    kinds: ClassVar[tuple[type[Op], ...]] = (Quotient,)

    def _match(self, op: Op, editor: Editor) -> tuple[str, float] | None:
        root = editor.producer(op.inputs[1])
        total = editor.producer(root.inputs[0]) if isinstance(root, SquareRoot) else None
        if not isinstance(total, ir.Add):
            return None
        for name, epsilon in _numbers(total, editor):
            square = editor.producer(self._mean_of(name, editor) or "")
            if isinstance(square, ir.Mul) and square.inputs[0] == square.inputs[1]:
                source = self._centred(op.inputs[0], editor)
                if source is not None and self._centred(square.inputs[0], editor) == source:
                    return source, epsilon
        return None

    def _mean_of(self, name: str, editor: Editor) -> str | None:
        """What a tensor is the mean of over its last axis, kept."""
        op = editor.producer(name)
        last = len(editor[name].shape) - 1
        averages = isinstance(op, ir.Mean) and op.axes == (last,) and op.keep_dims
        return op.inputs[0] if op is not None and averages else None

    def _centred(self, name: str, editor: Editor) -> str | None:
        """x of x - mean x."""
        op = editor.producer(name)
        if isinstance(op, ir.Sub) and self._mean_of(op.inputs[1], editor) == op.inputs[0]:
            return op.inputs[0]
        return None

    def check(self, op: Op, editor: Editor) -> str | None:
        return None if self._match(op, editor) else "is not a normalization of its last axis"

    def rewrite(self, op: Op, editor: Editor) -> None:
        match = self._match(op, editor)
        assert match is not None
        source, epsilon = match
        size = editor[source].shape[-1:]
        ones = Tensor(f"{op.output}/gain", size, DType.FLOAT32, None, np.ones(size, np.float32))
        inputs = (source, editor.add_tensor(ones))
        editor.emit(ir.LayerNorm(op.name, inputs, op.outputs, epsilon))


@dataclass(frozen=True)
class FuseGainAndOffset(Rule):
    """LayerNorm(x) * g -> gamma g, where gamma is 1; LayerNorm(x) + b -> beta b."""

    name: ClassVar[str] = "fuse-gain-and-offset"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Mul, ir.Add)

    def _match(self, op: Op, editor: Editor) -> tuple[Op, Tensor] | None:
        for position in (0, 1):
            norm = inner(op.inputs[1 - position], editor, ir.LayerNorm)
            constant = editor.operand(op, position)
            shape = editor[op.output].shape[-1:]
            fits = constant.data is not None and constant.shape[-1:] == shape == (
                constant.elements,
            )
            if norm is None or not fits or len(norm.inputs) != 2:
                continue
            gamma = editor.operand(norm, 1)
            plain = gamma.quantization is None and bool(np.all(gamma.data == 1))
            if isinstance(op, ir.Add) or plain:
                return norm, constant
        return None

    def check(self, op: Op, editor: Editor) -> str | None:
        return None if self._match(op, editor) else "does not follow a normalization of its own"

    def rewrite(self, op: Op, editor: Editor) -> None:
        match = self._match(op, editor)
        assert match is not None
        norm, constant = match
        assert constant.data is not None
        flat = (constant.elements,)
        name = constant.name
        if constant.shape != flat:
            reshaped = replace(constant, shape=flat, data=constant.data.reshape(flat))
            name = editor.add_tensor(reshaped)
        kept = norm.inputs if isinstance(op, ir.Add) else norm.inputs[:1]
        editor.drop(norm)
        editor.emit(replace(norm, name=op.name, inputs=(*kept, name), outputs=op.outputs))


FUSIONS: Sequence[Rule] = (
    FuseSoftmaxScale(),
    FuseGelu(),
    FuseLayerNorm(),
    FuseGainAndOffset(),
)
