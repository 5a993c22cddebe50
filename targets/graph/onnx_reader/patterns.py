"""Rewrites of the float graph, before integers are known.

    hard-sigmoid    relu6(x + 3) / 6                              -> HardSigmoid(x)
    hard-swish      x * HardSigmoid(x)                            -> HardSwish(x)
                    (x * relu6(x + 3)) / 6                        -> HardSwish(x)
    bias            (W x) + b, b one value per output channel     -> conv or matrix product with b
    scale           (W x + b) * s, s per output channel, float    -> (s W) x + s b
    activation      clamp(f(x)) with a clamp that f can carry     -> f with that activation

those of `fusions.py` before them, and, in models that stay float, for every hard-sigmoid that
then still stands alone:

    lower           HardSigmoid(x)                                -> clip(alpha x + beta, 0, 1)

All are equalities of real functions. Clamping stays exact in integers: rounding
to the grid is monotone, so clamping before and after it are the same. That `x`
is read elsewhere too does not matter; inner results must have one reader.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Graph, Op, Tensor
from edgesmith.targets.graph.onnx_reader.fusions import FUSIONS, inner, real_of
from edgesmith.targets.graph.onnx_reader.values import HardSigmoid
from edgesmith.targets.graph.rewriting import Editor, Rule, apply, without_dead_code

_WEIGHTED = (ir.Conv2D, ir.DepthwiseConv2D, ir.FullyConnected)
_CLAMPED = (*_WEIGHTED, ir.Add, ir.Sub, ir.Mul)


def _with_constant(op: Op, editor: Editor, value: float) -> str | None:
    """The other operand of a binary operator, one of whose operands is this constant."""
    for position in (0, 1):
        real = real_of(editor.operand(op, position))
        if real is not None and math.isclose(real, value, rel_tol=1e-6):
            return op.inputs[1 - position]
    return None


def _shifted_relu6(name: str, editor: Editor) -> tuple[str, list[Op]] | None:
    """x and the operators of relu6(x + 3)."""
    clamp = inner(name, editor, ir.Relu)
    if not isinstance(clamp, ir.Relu) or clamp.activation is not Activation.RELU6:
        return None
    add = inner(clamp.inputs[0], editor, ir.Add)
    source = _with_constant(add, editor, 3.0) if add is not None else None
    return None if add is None or source is None else (source, [add, clamp])


@dataclass(frozen=True)
class FuseHardSigmoid(Rule):
    """relu6(x + 3) / 6 -> HardSigmoid(x)."""

    name: ClassVar[str] = "fuse-hard-sigmoid"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Mul,)

    def _match(self, op: Op, editor: Editor) -> tuple[str, list[Op]] | None:
        clamped = _with_constant(op, editor, 1 / 6)
        return None if clamped is None else _shifted_relu6(clamped, editor)

    def check(self, op: Op, editor: Editor) -> str | None:
        return None if self._match(op, editor) else "is not relu6(x + 3) / 6"

    def rewrite(self, op: Op, editor: Editor) -> None:
        source, inner = _matched(self._match(op, editor))
        for item in inner:
            editor.drop(item)
        editor.emit(HardSigmoid(op.name, (source,), op.outputs))


def _matched(match: tuple[str, list[Op]] | None) -> tuple[str, list[Op]]:
    assert match is not None
    return match


@dataclass(frozen=True)
class FuseHardSwish(Rule):
    """x * HardSigmoid(x), or (x * relu6(x + 3)) / 6 -> HardSwish(x)."""

    name: ClassVar[str] = "fuse-hard-swish"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Mul,)

    def _match(self, op: Op, editor: Editor) -> tuple[str, list[Op]] | None:
        for position in (0, 1):
            source = op.inputs[1 - position]
            gate = inner(op.inputs[position], editor, HardSigmoid)
            if (
                isinstance(gate, HardSigmoid)
                and gate.inputs[0] == source
                and HardSigmoid.gates_hard_swish(gate.alpha, gate.beta)
            ):
                return source, [gate]
        scaled = _with_constant(op, editor, 1 / 6)
        product = inner(scaled, editor, ir.Mul) if scaled is not None else None
        for position in (0, 1) if product is not None else ():
            assert product is not None
            gated = _shifted_relu6(product.inputs[position], editor)
            if gated is not None and gated[0] == product.inputs[1 - position]:
                return gated[0], [*gated[1], product]
        return None

    def check(self, op: Op, editor: Editor) -> str | None:
        return None if self._match(op, editor) else "is not x * HardSigmoid(x)"

    def rewrite(self, op: Op, editor: Editor) -> None:
        source, inner = _matched(self._match(op, editor))
        for item in inner:
            editor.drop(item)
        editor.emit(ir.HardSwish(op.name, (source,), op.outputs))


def _per_channel(op: Op, editor: Editor, channels: int) -> tuple[str, Tensor] | None:
    """The computed operand and the constant one, which has one value per last-axis entry."""
    for position in (0, 1):
        tensor = editor.operand(op, position)
        if tensor.data is not None and tensor.shape[-1:] == (channels,) == (tensor.elements,):
            return op.inputs[1 - position], tensor
    return None


@dataclass(frozen=True)
class FuseBias(Rule):
    """(W x) + b -> W x with bias b; b is reals or 32-bit codes."""

    name: ClassVar[str] = "fuse-bias"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Add,)

    def check(self, op: Op, editor: Editor) -> str | None:
        found = _per_channel(op, editor, editor[op.output].shape[-1] if op.outputs else 0)
        if found is None:
            return "adds no constant per output channel"
        if found[1].dtype.is_integer and found[1].dtype.bits < 32:
            return "adds a constant that is an activation's operand, not a bias"
        product = editor.producer(found[0])
        if not isinstance(product, _WEIGHTED) or not editor.read_once(found[0]):
            return "does not follow a product of its own"
        if product.activation is not Activation.NONE:
            return "follows a clamp"
        if len(product.inputs) > 2 and editor.operand(product, 2).dtype.is_integer:
            return "follows a product that has an integer bias"
        if len(product.inputs) > 2 and found[1].dtype.is_integer:
            return "adds codes to a product that has a bias"
        return None

    def rewrite(self, op: Op, editor: Editor) -> None:
        found = _per_channel(op, editor, editor[op.output].shape[-1])
        assert found is not None
        product = editor.producer(found[0])
        assert product is not None
        bias = found[1]
        if len(product.inputs) > 2:
            first, second = (
                np.asarray(tensor.data, np.float32).reshape(-1)
                for tensor in (editor.operand(product, 2), bias)
            )
            name = editor.add_tensor(replace(bias, data=first + second, shape=first.shape))
        elif len(bias.shape) != 1:
            assert bias.data is not None
            flat = replace(bias, shape=(bias.elements,), data=bias.data.reshape(-1))
            name = editor.add_tensor(flat)
        else:
            name = bias.name
        editor.drop(product)
        inputs = (*product.inputs[:2], name)
        editor.emit(replace(product, name=op.name, inputs=inputs, outputs=op.outputs))


@dataclass(frozen=True)
class FoldScale(Rule):
    """(W x + b) * s -> (s W) x + s b, for float weights and s per output channel."""

    name: ClassVar[str] = "fold-scale"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Mul,)

    def check(self, op: Op, editor: Editor) -> str | None:
        found = _per_channel(op, editor, editor[op.output].shape[-1])
        if found is None or found[1].dtype.is_integer:
            return "multiplies by no float constant per output channel"
        product = editor.producer(found[0])
        if not isinstance(product, _WEIGHTED) or not editor.read_once(found[0]):
            return "does not follow a product of its own"
        if product.activation is not Activation.NONE:
            return "follows a clamp"
        parameters = [editor[name] for name in product.inputs[1:]]
        if any(tensor.dtype.is_integer or tensor.data is None for tensor in parameters):
            return "follows a product whose weights are quantized"
        return None

    def rewrite(self, op: Op, editor: Editor) -> None:
        found = _per_channel(op, editor, editor[op.output].shape[-1])
        assert found is not None
        product = editor.producer(found[0])
        assert product is not None
        factor = np.asarray(found[1].data, np.float64).reshape(-1)
        names = []
        for position, name in enumerate(product.inputs[1:]):
            tensor = editor[name]
            last = isinstance(product, ir.DepthwiseConv2D) or position == 1
            shape = (-1,) if last else (-1, *(1,) * (len(tensor.shape) - 1))
            assert tensor.data is not None
            scaled = (tensor.data.astype(np.float64) * factor.reshape(shape)).astype(np.float32)
            names.append(editor.add_tensor(replace(tensor, data=scaled)))
        editor.drop(product)
        inputs = (product.inputs[0], *names)
        editor.emit(replace(product, name=op.name, inputs=inputs, outputs=op.outputs))


@dataclass(frozen=True)
class FuseActivation(Rule):
    """clamp(f(x)) -> f with that activation."""

    name: ClassVar[str] = "fuse-activation"
    kinds: ClassVar[tuple[type[Op], ...]] = (ir.Relu,)

    def check(self, op: Op, editor: Editor) -> str | None:
        before = editor.producer(op.inputs[0])
        if not isinstance(before, _CLAMPED) or not editor.read_once(op.inputs[0]):
            return "does not follow an operator of its own that can clamp"
        if before.activation is not Activation.NONE:
            return "follows another clamp"
        return None

    def rewrite(self, op: Op, editor: Editor) -> None:
        before = editor.producer(op.inputs[0])
        assert isinstance(before, _CLAMPED)
        assert isinstance(op, ir.Relu)
        editor.drop(before)
        fused = replace(before, name=op.name, outputs=op.outputs, activation=op.activation)
        editor.emit(fused)


@dataclass(frozen=True)
class LowerHardSigmoid(Rule):
    """HardSigmoid(x) -> clip(alpha x + beta, 0, 1), of float operators."""

    name: ClassVar[str] = "lower-hard-sigmoid"
    kinds: ClassVar[tuple[type[Op], ...]] = (HardSigmoid,)

    def check(self, op: Op, editor: Editor) -> str | None:
        return None

    def rewrite(self, op: Op, editor: Editor) -> None:
        assert isinstance(op, HardSigmoid)
        value, result = op.inputs[0], editor[op.output]
        for kind, what, number in ((ir.Mul, "alpha", op.alpha), (ir.Add, "beta", op.beta)):
            data = np.array([number], np.float32)
            constant = Tensor(f"{op.output}/{what}", (1,), DType.FLOAT32, None, data)
            made = editor.like(result, kind.__name__.lower())
            editor.insert(kind, [value, editor.add_tensor(constant)], made)
            value = made
        editor.emit(ir.Clip(op.name, (value,), op.outputs, 0.0, 1.0))


RULES: Sequence[Rule] = (
    *FUSIONS,
    FuseHardSigmoid(),
    FuseHardSwish(),
    FoldScale(),
    FuseBias(),
    FuseActivation(),
)


def simplify(graph: Graph) -> Graph:
    """The float graph with all of this module's rewrites applied, without what they leave over."""
    return without_dead_code(apply(graph, RULES))


def lower(graph: Graph) -> Graph:
    """A simplified graph that stays float, with hard-sigmoids that stand alone written out."""
    return apply(graph, (LowerHardSigmoid(),))
