"""What the function of an ONNX operator sees: its node, its operands, and what it may emit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from edgesmith.pipeline.errors import ModelFileError, UnsupportedError
from edgesmith.targets.graph.ir import Op, Tensor
from edgesmith.targets.graph.onnx_reader.layout import Groups, View
from edgesmith.targets.graph.onnx_reader.model import Node
from edgesmith.targets.graph.onnx_reader.values import Activation, Constant, Value

if TYPE_CHECKING:
    from edgesmith.targets.graph.onnx_reader.importer import Importer

Result = Value | tuple[Value, ...]
Operator = Callable[["Site"], Result]
OPERATORS: dict[str, Operator] = {}
Fn = TypeVar("Fn", bound=Operator)
T = TypeVar("T")


def operator(*names: str) -> Callable[[Fn], Fn]:
    """Register the function that reads the ONNX operators of these names."""

    def register(function: Fn) -> Fn:
        for name in names:
            OPERATORS[name] = function
        return function

    return register


@dataclass(frozen=True)
class Axes:
    """Where ONNX's axes lie in a tensor's memory: `memory[axis]` of `rank` memory axes."""

    memory: tuple[int, ...]
    rank: int

    def groups(self, view: View) -> Groups:
        """The physical grouping of a view of as many ONNX axes."""
        found: list[tuple[int, ...]] = [()] * self.rank
        for axis, position in enumerate(self.memory):
            found[position] = view.logical[axis]
        return tuple(found)

    def view(self, shape: tuple[int, ...]) -> View:
        """A tensor of that ONNX shape, laid out this way."""
        view = View.of(shape)
        return view.arranged(self.groups(view))

    def spread(self, values: Sequence[T], default: T) -> tuple[T, ...]:
        """Values per ONNX axis as values per memory axis."""
        found = [default] * self.rank
        for axis, position in enumerate(self.memory):
            found[position] = values[axis]
        return tuple(found)


def _whole(value: Constant, shape: tuple[int, ...]) -> Constant:
    """The constant under another shape that has the same axes apart from units."""
    reshaped = value.reshaped(shape)
    if reshaped is None:
        raise UnsupportedError(
            f"constant {value.label!r} is quantized per channel but reshaped across channels",
            fix="quantize it per tensor",
        )
    return reshaped


@dataclass(frozen=True)
class Site:
    """One node in its surroundings: what an operator's function sees.

    `alias` replaces the label of a result that ONNX does not name.
    """

    importer: Importer
    node: Node
    alias: str = ""

    def refuse(self, reason: str, fix: str) -> NoReturn:
        """This node cannot be translated."""
        raise UnsupportedError(f"{self.node.title} {reason}", fix=fix)

    def broken(self, reason: str) -> NoReturn:
        """The file contradicts itself here."""
        raise ModelFileError(f"{self.node.title} {reason}", fix="export the model again")

    def has(self, position: int) -> bool:
        return position < len(self.node.inputs) and bool(self.node.inputs[position])

    def value(self, position: int) -> Value:
        if not self.has(position):
            self.broken(f"lacks its input {position}")
        value = self.importer.values[self.node.inputs[position]]
        assert value is not None
        return value

    @property
    def label(self) -> str:
        return self.alias or next(filter(None, self.node.outputs), self.node.name)

    def activation(self, position: int, *, codes: bool = False) -> Activation:
        """An operand that is computed at run time; `codes` says that integer codes will do too."""
        value = self.value(position)
        if isinstance(value, Constant):
            self.refuse(
                f"computes with the constant {value.label!r} as input {position}",
                "simplify the model so that constants are folded (onnxsim), then export it again",
            )
        if not codes and (value.code_type is not None):
            self.refuse(
                "works on integer codes directly",
                "put DequantizeLinear before and QuantizeLinear after it (QDQ format)",
            )
        return value

    def computed(self, values: Sequence[Value]) -> list[Activation]:
        """Those of the node's operands that are computed at run time: at least one, and reals."""
        found = [value for value in values if isinstance(value, Activation)]
        for position, value in enumerate(values):
            if isinstance(value, Activation) or not found:
                self.activation(position)
        return found

    def constant(self, position: int, what: str) -> Constant:
        value = self.value(position)
        if isinstance(value, Activation):
            self.refuse(f"computes its {what} at run time", f"make the {what} a constant")
        return value

    def integers(self, position: int, what: str) -> tuple[int, ...]:
        """A constant vector of integers."""
        constant = self.constant(position, what)
        if constant.array.dtype.kind not in "iu" or constant.is_codes:
            self.broken(f"has a {what} that is not integer")
        return tuple(int(item) for item in constant.array.reshape(-1))

    def axes(self, position: int) -> tuple[int, ...] | None:
        """Axes from the attribute (older operator sets) or the input; None where absent."""
        given = self.node.integers("axes")
        if given is None and self.has(position):
            given = self.integers(position, "axes")
        return given

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis, checked."""
        if not -rank <= axis < rank:
            self.broken(f"has axis {axis} for rank {rank}")
        return axis % rank

    def image(self, value: Activation) -> Activation:
        """The value channels-last: [N,H,W,C], or [N,1,L,C] for three ONNX axes."""
        if value.view.rank not in (3, 4):
            self.refuse(
                f"works on {value.view.rank} axes", "use 1-D or 2-D convolution and pooling only"
            )
        moved = self.importer.arrange(value, value.view.channels_last)
        return replace(moved, image=True, pending=False)

    def spread(self, value: Activation) -> tuple[Activation, Axes]:
        """The value with a memory axis for every ONNX axis, and which."""
        view = value.view
        if view.order is not None:
            order = view.order
            return value, Axes(tuple(order.index(axis) for axis in range(view.rank)), len(order))
        # An image that was flattened to tokens lies as ONNX has it: [N, tokens, channels].
        plain = view.settled(True) == (view.identity, False)
        if value.image and view.rank in (3, 4) and not plain:
            moved = replace(self.importer.arrange(value, view.channels_last), pending=False)
            return moved, Axes((0, 3, 1, 2) if view.rank == 4 else (0, 3, 2), 4)
        moved = self.importer.arrange(value, view.identity)
        return replace(moved, pending=False, image=False), Axes(tuple(range(view.rank)), view.rank)

    def placed(self, value: Value, axes: Axes, *, broadcasts: bool = True) -> str:
        """The name of an operand's tensor, memory laid out by `axes` (of as many ONNX axes).

        `broadcasts` says that a constant may lack leading axes of size 1.
        """
        if isinstance(value, Activation):
            rank = len(axes.memory)
            view = value.view if value.view.rank == rank else value.view.padded(rank)
            padded = replace(value, view=view)
            return self.importer.arrange(padded, axes.groups(view)).tensor
        if value.array.size == 1 and broadcasts:
            return self.importer.constant(_whole(value, (1,)))
        constant = _whole(value, (1,) * (len(axes.memory) - value.array.ndim) + value.shape)
        order = sorted(range(len(axes.memory)), key=axes.memory.__getitem__)
        moved_constant = constant.transposed(tuple(order))
        sizes = [1] * axes.rank
        for position, axis in enumerate(order):
            sizes[axes.memory[axis]] = moved_constant.shape[position]
        while broadcasts and len(sizes) > 1 and sizes[0] == 1:
            del sizes[0]
        return self.importer.constant(_whole(moved_constant, tuple(sizes)))

    def emit(self, kind: type[Op], inputs: Iterable[str], **attributes: Any) -> Tensor:
        return self.importer.emit(kind, inputs, self.label, **attributes)

    def made(self, tensor: Tensor, view: View, *, image: bool) -> Activation:
        """The operator's result; `view` must describe the tensor's memory."""
        if view.memory_shape != tensor.shape:
            self.broken(f"gives {list(tensor.shape)} where {list(view.memory_shape)} is expected")
        self.importer.describe(tensor.name, view)
        return Activation(tensor.name, view, self.label, image=image)

    def alike(self, kind: type[Op], value: Activation, **attributes: Any) -> Activation:
        """An operator that works element by element on memory as it lies."""
        tensor = self.emit(kind, [value.tensor], **attributes)
        self.importer.describe(tensor.name, value.view)
        return replace(value, tensor=tensor.name, label=self.label)
