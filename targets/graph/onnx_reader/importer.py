"""The first phase: nodes -> float operators in channels-last memory.

An `Importer` walks the nodes in order and binds every ONNX name to a `Value`.
What an operator means stands in the operator modules: one function each, found
by `OPERATORS`. All refusals of a model are collected and raised together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
from onnx import TensorProto

from edgesmith.pipeline.errors import ModelFileError, UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import (
    Array,
    DType,
    Graph,
    IntArray,
    Layout,
    Op,
    Quantization,
    Tensor,
)
from edgesmith.targets.graph.onnx_reader import folding
from edgesmith.targets.graph.onnx_reader.layout import Groups, Move, Reshaped, View
from edgesmith.targets.graph.onnx_reader.model import STANDARD_DOMAINS, Model, Node
from edgesmith.targets.graph.onnx_reader.site import OPERATORS, Site
from edgesmith.targets.graph.onnx_reader.values import Activation, Constant, Value
from edgesmith.targets.graph.shapes import infer
from edgesmith.targets.graph.validate import MAX_ELEMENTS

SPATIAL = ("Conv", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "Resize")
"""Operators that want channels-last memory."""

_THROUGH = ("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "Identity", "Dropout", "Add")
_CONTROL_FLOW = ("If", "Loop", "Scan")
_FLOAT_INPUTS = (TensorProto.FLOAT,)
_CODE_INPUTS: Mapping[int, str] = {
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.INT16: "int16",
    TensorProto.UINT16: "uint16",
}


@dataclass
class Importer:
    """The float graph while it grows."""

    model: Model
    quantized: bool
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    values: dict[str, Value | None] = field(default_factory=dict)
    layouts: dict[str, Layout] = field(default_factory=dict)
    placed: dict[str, IntArray] = field(default_factory=dict)
    readers: dict[str, list[Node]] = field(default_factory=dict)
    refusals: list[UnsupportedError] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    _moved: dict[tuple[str, Move], str] = field(default_factory=dict)

    def run(self) -> Graph:
        """Translate every node.

        Raises:
            UnsupportedError: lists every node that cannot be translated.
            ModelFileError: the file contradicts itself.
        """
        for node in self.model.nodes:
            for name in filter(None, node.inputs):
                self.readers.setdefault(name, []).append(node)
        for port in self.model.inputs:
            self._bind_input(port.name, port.element, port.shape)
        for node in self.model.nodes:
            self._translate(node)
        outputs = self._outputs()
        raise_refusals(self.model.name, self.refusals)
        inputs = tuple(port.name for port in self.model.inputs if self._used(port.name))
        return Graph(
            self.model.name,
            self.tensors,
            tuple(self.ops),
            inputs,
            outputs,
            layout=self.layouts,
            positions=self.placed,
        )

    def _used(self, name: str) -> bool:
        return name in self.readers or any(port.name == name for port in self.model.outputs)

    def _bind_input(self, name: str, element: int, shape: tuple[int, ...]) -> None:
        if not self._used(name):
            return
        if element not in _FLOAT_INPUTS and element not in _CODE_INPUTS:
            raise UnsupportedError(
                f"graph input {name!r} is neither float32 nor integer codes",
                fix="export with float32 inputs (indices and flags have no integer form)",
            )
        view = View.of(shape)
        image = len(shape) == 4 or (len(shape) == 3 and self._reaches_spatial(name))
        if image:
            view = view.arranged(view.channels_last)
        self.tensors[name] = Tensor(name, view.memory_shape, DType.FLOAT32)
        self.describe(name, view)
        self.values[name] = Activation(
            name, view, name, image=image, code_type=_CODE_INPUTS.get(element)
        )

    def _reaches_spatial(self, name: str) -> bool:
        """Whether a value flows into an operator that wants channels-last memory."""
        queue, seen = [name], {name}
        while queue:
            for node in self.readers.get(queue.pop(), []):
                if node.op in SPATIAL or node.op == "BatchNormalization":
                    return True
                if node.op in _THROUGH:
                    fresh = [output for output in node.outputs if output not in seen]
                    seen.update(fresh)
                    queue += fresh
        return False

    def describe(self, tensor: str, view: View) -> None:
        """Note how a tensor orders its elements, if otherwise than ONNX."""
        layout = view.layout
        if layout is not None:
            self.layouts[tensor] = layout

    def _translate(self, node: Node) -> None:
        for name in filter(None, node.inputs):
            if name not in self.values:
                self._load(name)
        try:
            self._admit(Site(self, node))
            if any(self.values[name] is None for name in node.inputs if name):
                # What it reads was refused already; only what the node is could be judged.
                self.values.update(dict.fromkeys(node.outputs, None))
                return
            results = self._apply(node)
        except UnsupportedError as error:
            self.refusals.append(error)
            self.values.update(dict.fromkeys(node.outputs, None))
            return
        named = tuple(filter(None, node.outputs))
        if len(results) < len(named):
            raise ModelFileError(
                f"{node.title} has {len(named)} outputs, expected {len(results)}",
                fix="export the model again",
            )
        self.values.update(zip(node.outputs, results, strict=False))

    def _load(self, name: str) -> None:
        try:
            self.values[name] = self.model.constant(name)
        except UnsupportedError as error:
            self.refusals.append(error)
            self.values[name] = None

    def _admit(self, site: Site) -> None:
        """Refuse what no operands could make readable."""
        node = site.node
        quantizer = node.op in ("QuantizeLinear", "DequantizeLinear")
        if node.domain not in STANDARD_DOMAINS and not (
            quantizer and node.domain == "com.microsoft"
        ):
            site.refuse(
                f"is of the custom domain {node.domain!r}",
                "export with standard operators; inline local functions with onnx.inliner",
            )
        if node.op in _CONTROL_FLOW:
            site.refuse("is control flow", "export the model traced, without loops and branches")
        if node.op not in OPERATORS and node.op not in folding.FOLDED:
            _without_integer_form(site)

    def _apply(self, node: Node) -> tuple[Value, ...]:
        operands = [self.values[name] if name else None for name in node.inputs]
        folded = folding.fold(node, operands, self.model)
        if folded is not None:
            return folded
        site = Site(self, node)
        known = OPERATORS.get(node.op)
        if known is None:
            _without_integer_form(site)
        result = known(site)
        return result if isinstance(result, tuple) else (result,)

    def _outputs(self) -> tuple[str, ...]:
        names = []
        for port in self.model.outputs:
            if port.name not in self.values:
                if port.name not in self.model.initializers:
                    raise ModelFileError(
                        f"graph output {port.name!r} is never produced", fix="export it again"
                    )
                self._load(port.name)
            value = self.values[port.name]
            if isinstance(value, Constant):
                self.refusals.append(
                    UnsupportedError(
                        f"graph output {port.name!r} is a constant", fix="remove that output"
                    )
                )
            elif value is not None:
                names.append(self.finish(value).tensor)
        return tuple(names)

    def unique(self, label: str) -> str:
        """A tensor name that nothing has yet."""
        name, number = label, 1
        while name in self.tensors or (name != label and name in self.readers):
            number += 1
            name = f"{label}#{number}"
        return name

    def emit(self, kind: type[Op], inputs: Iterable[str], label: str, **attributes: Any) -> Tensor:
        """Append an operator; its output tensor is named after `label`, and it after that."""
        name = self.unique(label)
        op = kind(name, tuple(inputs), (name,), **attributes)
        operands = [self.tensors[item] if item else None for item in op.inputs]
        tensor = Tensor(name, infer(op, operands)[0], DType.FLOAT32)
        if tensor.elements > MAX_ELEMENTS:
            raise ModelFileError(
                f"tensor {name!r} would have {tensor.elements} elements", fix="export it again"
            )
        self.positions[name] = len(self.ops)
        self.ops.append(op)
        self.tensors[name] = tensor
        return tensor

    def constant(self, value: Constant) -> str:
        """File a constant, as it is, under its label."""
        if value.quantization is None:
            array: Array = np.ascontiguousarray(value.array, np.float32)
            tensor = Tensor(value.label, array.shape, DType.FLOAT32, None, array)
        else:
            assert value.dtype is not None
            array = np.ascontiguousarray(value.array, value.dtype.numpy)
            tensor = Tensor(value.label, array.shape, value.dtype, value.quantization, array)
        present = self.tensors.get(value.label)
        if present is not None and _same_constant(present, tensor):
            return present.name
        name = self.unique(value.label)
        self.tensors[name] = replace(tensor, name=name)
        if value.positions is not None:
            self.placed[name] = value.positions
        return name

    def arrange(self, value: Activation, target: Groups) -> Activation:
        """The value with memory grouped as `target`, by as few moves as possible."""
        moves = value.view.moves(target)
        view = value.view.arranged(target)
        if not moves:
            return replace(value, view=view)
        name = value.tensor
        for move in moves:
            known = self._moved.get((name, move))
            if known is None:
                last = move is moves[-1] and value.label not in self.tensors
                label = value.label if last else f"{value.label}/{type(move).__name__.lower()}"
                if isinstance(move, Reshaped):
                    known = self.emit(ir.Reshape, [name], label, shape=move.shape).name
                else:
                    permutation = move.permutation
                    known = self.emit(ir.Transpose, [name], label, permutation=permutation).name
                self._moved[(name, move)] = known
                if move is moves[-1]:
                    self.describe(known, view)
            name = known
        return replace(value, tensor=name, view=view)

    def cost(self, value: Activation, target: Groups) -> int:
        """How many operators `arrange` would add."""
        name: str | None = value.tensor
        moves = value.view.moves(target)
        for done, move in enumerate(moves):
            name = self._moved.get((name, move)) if name else None
            if name is None:
                return len(moves) - done
        return 0

    def settle(self, value: Activation) -> Activation:
        """Give a reshaped or transposed value a tensor of its own with the axes ONNX sees.

        Memory keeps its order where it can: channels stay last, and a flattened
        image keeps its columns in memory order.
        """
        if not value.pending:
            return value
        target, image = value.view.settled(value.image)
        moved = self.arrange(value, target)
        if moved.tensor == value.tensor:
            shape = moved.view.memory_shape
            label = value.label if value.label not in self.tensors else f"{value.label}/reshaped"
            name = self.emit(ir.Reshape, [value.tensor], label, shape=shape).name
            self.describe(name, moved.view)
            moved = replace(moved, tensor=name)
        return replace(moved, pending=False, image=image)

    def finish(self, value: Activation) -> Activation:
        """The value as a graph output: axes in ONNX's order, images channels-last."""
        view = value.view
        if view.rank == 4 or (view.rank == 3 and value.image):
            images = view.arranged(view.channels_last)
            if view.physical == images.physical or (view.rank == 4 and value.image):
                return self.arrange(value, view.channels_last)
        return self.arrange(value, view.identity)


def _same_constant(first: Tensor, second: Tensor) -> bool:
    if first.dtype != second.dtype or first.data is None or second.data is None:
        return False
    same = _same_quantization(first.quantization, second.quantization)
    return same and np.array_equal(first.data, second.data)


def _same_quantization(first: Quantization | None, second: Quantization | None) -> bool:
    return first is second if first is None or second is None else first.same_as(second)


def raise_refusals(model: str, refusals: list[UnsupportedError]) -> None:
    """Raise everything that was refused as one error."""
    if not refusals:
        return
    if len(refusals) == 1:
        raise UnsupportedError(f"{model!r}: {refusals[0].message}", fix=refusals[0].fix)
    lines = [f"\n  - {error.message} (fix: {error.fix})" for error in refusals]
    raise UnsupportedError(
        f"{model!r} has {len(refusals)} operators or tensors that edgesmith does not take:"
        f"{''.join(lines)}",
        fix="apply the fix that stands behind each of them",
    )


def _without_integer_form(site: Site) -> NoReturn:
    site.refuse("has no integer form", "replace it in the model, or cut the model before it")
