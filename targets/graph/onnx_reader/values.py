"""What an ONNX value is while the file is read, and the operators that exist only then.

Reading happens in two phases. The first translates every node and knows nothing
of integers: activations are reals, and a QuantizeLinear with its
DequantizeLinear is one `FakeQuantize`. The second (`quantization.py`) moves
every FakeQuantize into the operators around it. A float model needs only the
first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, DType, IntArray, Op, Quantization
from edgesmith.targets.graph.onnx_reader.layout import View
from edgesmith.targets.graph.shapes import preserves_shape
from edgesmith.targets.graph.validate import takes_operands

Bounds = tuple[int, int]


@dataclass(frozen=True)
class Format:
    """How an activation is stored: what a QuantizeLinear asks for.

    `bounds` are the codes that a Clip between Q and DQ leaves, where they are
    narrower than the type.
    """

    dtype: DType
    scale: float
    zero_point: int
    bounds: Bounds | None = None

    @property
    def quantization(self) -> Quantization:
        return Quantization.per_tensor(self.scale, self.zero_point)

    def code(self, real: float) -> float:
        """The code of a real value before clamping to the type, rounded half to even."""
        return float(np.rint(np.float64(real) / np.float64(self.scale))) + self.zero_point

    def holds(self, real: float) -> bool:
        """Whether clamping at `real` and clamping at its code are the same for stored values."""
        code = np.float64(real) / np.float64(self.scale) + self.zero_point
        inside = self.dtype.qmin < code < self.dtype.qmax
        # Within a hundredth of a code the bound was meant to be on the grid.
        return not inside or abs(code - np.rint(code)) < 0.01


@dataclass(frozen=True, eq=False)
class Constant:
    """A value known while reading, in ONNX's axis order.

    Args:
        array: reals or integers; codes where `quantization` is set.
        label: name of the initializer or node that it comes from.
        bounds: range of the integers where narrower than their type (a Clip, or INT4).
        quantization: what DequantizeLinear said; `dtype` is then the storage type.
        positions: for every element, its place in the initializer; None while in order.
    """

    array: Array
    label: str
    bounds: Bounds | None = None
    quantization: Quantization | None = None
    dtype: DType | None = None
    positions: IntArray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def is_codes(self) -> bool:
        return self.quantization is not None

    def reals(self) -> Array:
        """The values themselves, dequantized where they are codes."""
        return self.array if self.quantization is None else self.quantization.dequantize(self.array)

    def transposed(self, permutation: tuple[int, ...]) -> Constant:
        """Axes permuted, the quantized axis with them."""
        quantization = self.quantization
        if quantization is not None and quantization.axis is not None:
            axis = permutation.index(quantization.axis)
            quantization = replace(quantization, axis=axis)
        return replace(
            self,
            array=self.array.transpose(permutation),
            quantization=quantization,
            positions=self._places().transpose(permutation),
        )

    def columns(self, order: IntArray) -> Constant:
        """A matrix with its columns in this order; no quantized axis may be cut."""
        return replace(self, array=self.array[:, order], positions=self._places()[:, order])

    def _places(self) -> IntArray:
        if self.positions is not None:
            return self.positions
        return np.arange(self.array.size, dtype=np.int64).reshape(self.shape)

    def reshaped(self, shape: tuple[int, ...]) -> Constant | None:
        """Under another shape; None where that cuts the quantized axis."""
        quantization = self.quantization
        if quantization is not None and quantization.axis is not None:
            axis = quantization.axis
            before = int(np.prod(self.shape[:axis], dtype=np.int64))
            size = self.shape[axis]
            starts = np.cumprod([1, *shape])[:-1] if shape else np.array([], np.int64)
            found = [i for i, s in enumerate(shape) if s == size and starts[i] == before]
            if not found:
                return None
            quantization = replace(quantization, axis=found[0])
        positions = None if self.positions is None else self.positions.reshape(shape)
        array = self.array.reshape(shape)
        return replace(self, array=array, quantization=quantization, positions=positions)


@dataclass(frozen=True)
class Activation:
    """A value computed at run time.

    Args:
        tensor: the IR tensor that holds it.
        view: how ONNX's axes lie in that tensor.
        label: ONNX's name, for the tensor that a later move in memory makes.
        image: memory is channels-last, as convolutions have it.
        pending: ONNX has reshaped or transposed since the tensor was made.
        code_type: what ONNX has here are not reals but codes, of this NumPy type.
        format: the format of those codes; None for a graph input, whose
            DequantizeLinear is still to come.
    """

    tensor: str
    view: View
    label: str
    image: bool = False
    pending: bool = False
    code_type: str | None = None
    format: Format | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.view.shape

    def viewed(self, view: View) -> Activation:
        """The same tensor under another ONNX shape."""
        return replace(self, view=view, pending=True)


Value = Constant | Activation


@dataclass(frozen=True)
class FakeQuantize(Op):
    """QuantizeLinear then DequantizeLinear: reals rounded to the grid of `format`."""

    format: Format = Format(DType.INT8, 1.0, 0)


@dataclass(frozen=True)
class HardSigmoid(Op):
    """clip(alpha x + beta, 0, 1): has no integer form unless it becomes part of a hard-swish."""

    alpha: float = 1 / 6
    beta: float = 0.5

    @staticmethod
    def gates_hard_swish(alpha: float, beta: float) -> bool:
        """Whether x times the operator with these numbers is the hard-swish of x."""
        return math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5


@dataclass(frozen=True)
class Erf(Op):
    """The error function: has no integer form unless it becomes part of a GELU."""


@dataclass(frozen=True)
class SquareRoot(Op):
    """Has no integer form unless it becomes part of a layer normalization."""


@dataclass(frozen=True)
class Quotient(Op):
    """x divided by a computed value; like `SquareRoot` of use in a normalization alone."""


@dataclass(frozen=True)
class RealPad(ir.Pad):
    """Padding with a real value, before its code is known."""

    real: float = 0.0


preserves_shape(FakeQuantize, HardSigmoid, Erf, SquareRoot, Quotient)
takes_operands(Quotient, 2, 2)
