"""The second phase: every FakeQuantize moves into the operators around it.

Rounding to a grid, Q, commutes with whatever only moves or selects values and with
every clamp, because Q is monotone and element-wise:

    Q(move(x)) = move(Q(x))         Q(max(x, y)) = max(Q(x), Q(y))
    Q(clamp(x, a, b)) = clamp(Q(x), Q(a), Q(b))

So a format that is *wanted* at a tensor is wanted at its producer too, backwards
through movement and clamps, until an operator that computes (a convolution, an
addition, ...), which then rounds once to that format, as the file says. In the other
direction values that lie on a grid stay on it through movement and clamps.
An operator whose result no quantizer describes is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Graph, Layout, Op, Tensor
from edgesmith.targets.graph.onnx_reader.constants import (
    bias_codes,
    check_weight,
    gain,
    offset,
    scalar,
    widened,
)
from edgesmith.targets.graph.onnx_reader.importer import raise_refusals
from edgesmith.targets.graph.onnx_reader.values import (
    Erf,
    FakeQuantize,
    Format,
    HardSigmoid,
    Quotient,
    RealPad,
    SquareRoot,
)
from edgesmith.targets.graph.rewriting import pruned

CLAMPS = (ir.Relu, ir.Clip)
MOVEMENT = (
    ir.Reshape,
    ir.Transpose,
    ir.Pad,
    ir.StridedSlice,
    ir.MaxPool2D,
    ir.ResizeNearest,
    ir.Concat,
)
_REAL_BOUNDS = {
    Activation.RELU: (0.0, np.inf),
    Activation.RELU6: (0.0, 6.0),
    Activation.RELU_N1_TO_1: (-1.0, 1.0),
}
_NORM = "a layer normalization (whole from operator set 17 on)"
_WHOLE: Mapping[type[Op], str] = {
    Erf: "a GELU (whole from operator set 20 on)",
    SquareRoot: _NORM,
    Quotient: _NORM,
}
"""What has no integer form by itself, and of what it is a part."""
_QUANTIZE_IT = "quantize it in the model (a QuantizeLinear and a DequantizeLinear behind it)"

Wanted = Format | str
"""A format, or in words why there is none."""


def _wanted(graph: Graph) -> dict[str, Wanted]:
    """The format that the readers of every tensor want of it."""
    found: dict[str, Wanted] = {}

    def want(name: str, wanted: Wanted) -> None:
        present = found.setdefault(name, wanted)
        if present != wanted and isinstance(present, Format):
            reason = wanted if isinstance(wanted, str) else "its readers want different scales"
            found[name] = reason

    for name in graph.outputs:
        want(name, "it is a graph output")
    for op in reversed(graph.ops):
        if isinstance(op, FakeQuantize):
            want(op.inputs[0], replace(op.format, bounds=None))
        elif isinstance(op, (*CLAMPS, *MOVEMENT)):
            passed = found.get(op.output, "nothing reads it")
            for name in op.inputs:
                want(name, passed)
        else:
            whole = f", a part of {_WHOLE[type(op)]}," if type(op) in _WHOLE else ""
            for name in filter(None, op.inputs):
                want(name, f"{op.kind} {op.name!r}{whole} reads it as it is")
    return found


@dataclass
class _Folding:
    """The integer graph while it grows; `integer` maps float tensors to integer ones."""

    source: Graph
    wanted: Mapping[str, Wanted]
    names: Mapping[str, str]  # float tensor -> the quantized name of its FakeQuantize
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    layouts: dict[str, Layout] = field(default_factory=dict)
    integer: dict[str, str | None] = field(default_factory=dict)
    formats: dict[str, Format] = field(default_factory=dict)
    refusals: list[UnsupportedError] = field(default_factory=list)

    def run(self) -> Graph:
        for name in self.source.inputs:
            self._try(partial(self._input, name), (name,))
        for op in self.source.ops:
            if any(self.integer.get(name, name) is None for name in op.inputs):
                self.integer.update(dict.fromkeys(op.outputs, None))
            else:
                self._try(partial(_handler(op), self, op), op.outputs)
        raise_refusals(self.source.name, self.refusals)
        inputs = tuple(self._at(name) for name in self.source.inputs)
        outputs = tuple(self._at(name) for name in self.source.outputs)
        return pruned(
            Graph(
                self.source.name,
                self.tensors,
                tuple(self.ops),
                inputs,
                outputs,
                layout=self.layouts,
                positions=self.source.positions,
            )
        )

    def _try(self, step: Callable[[], None], outputs: tuple[str, ...]) -> None:
        try:
            step()
        except UnsupportedError as error:
            self.refusals.append(error)
            for name in outputs:
                self._go_on(name)

    def _go_on(self, name: str) -> None:
        """After a refusal: with the wanted format where one is known, so that all is looked at."""
        wanted = self.wanted.get(name)
        if isinstance(wanted, Format) and name not in self.integer:
            self.made(name, wanted)
        else:
            self.integer[name] = None

    def _at(self, name: str) -> str:
        found = self.integer[name]
        assert found is not None
        return found

    def _input(self, name: str) -> None:
        wanted = self.wanted.get(name, "nothing reads it")
        if isinstance(wanted, str):
            raise UnsupportedError(
                f"graph input {name!r} is not quantized: {wanted}", fix=_QUANTIZE_IT
            )
        self.made(name, wanted)

    def computed(self, op: Op) -> Format:
        """The format that an operator's result must have."""
        wanted = self.wanted.get(op.output, "nothing reads it")
        if isinstance(wanted, str):
            raise UnsupportedError(
                f"the result of {op.kind} {op.name!r} is not quantized: {wanted}", fix=_QUANTIZE_IT
            )
        return wanted

    def made(self, name: str, form: Format) -> str:
        """Create the integer tensor of a float one, under its quantized name if that fits."""
        wanted = self.wanted.get(name)
        label = self.names.get(name, name) if wanted == form else name
        made = self.add(Tensor(label, self.source[name].shape, form.dtype, form.quantization))
        self.integer[name] = made
        self.formats[made] = form
        self._describe(name, made)
        return made

    def _describe(self, name: str, made: str) -> None:
        if name in self.source.layout:
            self.layouts[made] = self.source.layout[name]

    def add(self, tensor: Tensor) -> str:
        """File a tensor; an equal constant is filed once."""
        name, number = tensor.name, 1
        while name in self.tensors:
            if _equal_constants(self.tensors[name], tensor):
                return name
            number += 1
            name = f"{tensor.name}#{number}"
        self.tensors[name] = tensor if name == tensor.name else replace(tensor, name=name)
        return name

    def format_of(self, name: str) -> Format:
        """The format of a float tensor's integers; of a constant's codes as well."""
        tensor = self.source[name]
        if tensor.data is None:
            return self.formats[self._at(name)]
        if tensor.quantization is None or tensor.quantization.axis is not None:
            raise UnsupportedError(
                f"constant {name!r} is not quantized per tensor", fix="quantize it per tensor"
            )
        scale, zero = tensor.q.scalar
        return Format(tensor.dtype, float(scale), zero)

    def operand(self, name: str) -> str:
        """The integer tensor of an operand that moves or joins; constants as they are."""
        tensor = self.source[name]
        return self._at(name) if tensor.data is None else self.add(tensor)

    def emit(self, op: Op, inputs: tuple[str, ...], output: str) -> None:
        self.ops.append(replace(op, name=output, inputs=inputs, outputs=(output,)))

    def requantized(self, source: str, form: Format, label: str) -> str:
        """codes -> codes of another format."""
        shape = self.tensors[source].shape
        name = self.add(Tensor(label, shape, form.dtype, form.quantization))
        self.ops.append(ir.Quantize(name, (source,), (name,)))
        self.formats[name] = form
        return name


def _equal_constants(first: Tensor, second: Tensor) -> bool:
    if first.data is None or second.data is None or first.dtype != second.dtype:
        return False
    same = first.quantization is not None and first.quantization.same_as(second.quantization)
    return same and np.array_equal(first.data, second.data)


Handler = Callable[[_Folding, Op], None]
_HANDLERS: dict[type[Op], Handler] = {}
H = TypeVar("H", bound=Handler)


def _handles(*kinds: type[Op]) -> Callable[[H], H]:
    def register(function: H) -> H:
        for kind in kinds:
            _HANDLERS[kind] = function
        return function

    return register


def _handler(op: Op) -> Handler:
    return _HANDLERS.get(type(op), _compute)


@_handles(FakeQuantize)
def _fake_quantize(folding: _Folding, op: Op) -> None:
    assert isinstance(op, FakeQuantize)
    form = replace(op.format, bounds=None)
    source = folding.operand(op.inputs[0])
    bounds = op.format.bounds
    if folding.formats[source] != form:
        label = op.output if bounds is None else f"{op.output}/unclipped"
        source = folding.requantized(source, form, label)
        folding._describe(op.output, source)
    if bounds is not None:
        low, high = ((bound - form.zero_point) * form.scale for bound in bounds)
        clip = ir.Clip(op.name, op.inputs, op.outputs, low=low, high=high)
        target = folding.made(op.output, form)
        folding.emit(clip, (source,), target)
        source = target
    folding.integer[op.output] = source


@_handles(*MOVEMENT)
def _move(folding: _Folding, op: Op) -> None:
    source = folding.operand(op.inputs[0])
    form = folding.format_of(op.inputs[0])
    folding.emit(op, (source,), folding.made(op.output, form))


@_handles(RealPad)
def _pad(folding: _Folding, op: Op) -> None:
    assert isinstance(op, RealPad)
    source, form = folding.operand(op.inputs[0]), folding.format_of(op.inputs[0])
    wanted = folding.wanted.get(op.output)
    if isinstance(wanted, Format) and wanted != form:
        source = folding.requantized(source, wanted, f"{op.output}/requantized")
        form = wanted
    code = form.code(op.real)
    low, high = form.dtype.qmin, form.dtype.qmax
    if not isinstance(wanted, Format) and not (low <= code <= high and form.holds(op.real)):
        raise UnsupportedError(
            f"Pad {op.name!r} pads with {op.real:g}, which its scale {form.scale:g} does not hold",
            fix="quantize its output, or pad with zeros",
        )
    value = int(min(max(code, low), high))
    pad = ir.Pad(op.name, op.inputs, op.outputs, op.before, op.after, value)
    folding.emit(pad, (source,), folding.made(op.output, form))


@_handles(ir.Concat)
def _concat(folding: _Folding, op: Op) -> None:
    forms = {folding.format_of(name) for name in op.inputs}
    wanted = folding.wanted.get(op.output)
    if len(forms) == 1:
        form = forms.pop()
    elif isinstance(wanted, Format):
        form = wanted
    else:
        raise UnsupportedError(
            f"Concat {op.name!r} joins values of different scales and its result is not "
            f"quantized: {wanted}",
            fix=_QUANTIZE_IT,
        )
    inputs = tuple(folding.operand(name) for name in op.inputs)
    folding.emit(op, inputs, folding.made(op.output, form))


@_handles(*CLAMPS)
def _clamp(folding: _Folding, op: Op) -> None:
    assert isinstance(op, ir.Relu | ir.Clip)
    source, form = folding.operand(op.inputs[0]), folding.format_of(op.inputs[0])
    wanted = folding.wanted.get(op.output)
    bounds = (op.low, op.high) if isinstance(op, ir.Clip) else _REAL_BOUNDS[op.activation]
    if not isinstance(wanted, Format):
        if not all(form.holds(bound) for bound in bounds):
            raise UnsupportedError(
                f"{op.kind} {op.name!r} clamps to {list(bounds)}, which the scale {form.scale:g} "
                f"of its input does not hold, and its result is not quantized: {wanted}",
                fix=_QUANTIZE_IT,
            )
    elif wanted != form:
        # A lone ReLU rescales by itself; every other clamp works on the grid of its result.
        if bounds != _REAL_BOUNDS[Activation.RELU]:
            source = folding.requantized(source, wanted, f"{op.output}/requantized")
        form = wanted
    folding.emit(op, (source,), folding.made(op.output, form))


@_handles(HardSigmoid)
def _hard_sigmoid(folding: _Folding, op: Op) -> None:
    raise UnsupportedError(
        f"HardSigmoid {op.name!r} stands alone", fix="use it as x * hardsigmoid(x), or use sigmoid"
    )


@_handles(*_WHOLE)
def _part(folding: _Folding, op: Op) -> None:
    raise UnsupportedError(
        f"{op.kind} {op.name!r} stands alone",
        fix=f"use it as part of {_WHOLE[type(op)]}, with nothing quantized inside of it",
    )


@_handles(ir.LayerNorm)
def _layer_norm(folding: _Folding, op: Op) -> None:
    form = folding.computed(op)
    source = folding.operand(op.inputs[0])
    parameters = [
        folding.add(kind(folding.source[name]))
        for kind, name in zip((gain, offset), op.inputs[1:], strict=False)
    ]
    folding.emit(op, (source, *parameters), folding.made(op.output, form))


def _compute(folding: _Folding, op: Op) -> None:
    form = folding.computed(op)
    inputs = tuple(_computed_operand(folding, name, form.dtype) for name in op.inputs)
    folding.emit(op, inputs, folding.made(op.output, form))


def _computed_operand(folding: _Folding, name: str, dtype: DType) -> str:
    tensor = folding.source[name]
    if tensor.data is None:
        return folding._at(name)
    if tensor.quantization is None:
        return folding.add(scalar(tensor, dtype))
    if tensor.quantization.axis is not None:
        raise UnsupportedError(
            f"constant {name!r} has {tensor.quantization.scale.size} scales",
            fix="quantize operands of additions and products per tensor",
        )
    return folding.add(widened(tensor, dtype))


@_handles(ir.Conv2D, ir.DepthwiseConv2D, ir.FullyConnected)
def _weighted(folding: _Folding, op: Op) -> None:
    form = folding.computed(op)
    weight = folding.source[op.inputs[1]]
    check_weight(op, weight)
    source = folding.format_of(op.inputs[0])
    inputs = [folding.operand(op.inputs[0]), folding.add(weight)]
    if len(op.inputs) > 2:
        bias = bias_codes(op, folding.source[op.inputs[2]], weight, source)
        inputs.append(folding.add(bias))
    folding.emit(op, tuple(inputs), folding.made(op.output, form))


def fold_quantization(graph: Graph) -> Graph:
    """The integer graph of a float graph with FakeQuantize operators.

    Raises:
        UnsupportedError: lists every tensor that lacks a quantizer or cannot have its own.
    """
    names: dict[str, str] = {}
    for op in graph.ops:
        if isinstance(op, FakeQuantize) and op.format.bounds is None:
            names.setdefault(op.inputs[0], op.output)
    return _Folding(graph, _wanted(graph), names).run()
