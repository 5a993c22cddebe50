"""IntegerGraph: the one integer IR between every reader and every target.

A graph is a list of operators in execution order over named tensors. Layout is
channels-last (NHWC) with an explicit batch axis, weights are laid out as TFLite
lays them out (convolution [O, kh, kw, I/groups], depthwise [1, kh, kw, C*m],
fully connected [O, I]). Codes of sub-byte formats are held one per int8 element;
packing belongs to the writers.

Everything is a frozen value: a rewrite builds a new graph. An operator is one
frozen dataclass whose fields are its attributes, so a reader constructs it, the
reference executor dispatches on its type, and a writer looks it up by its type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.floating]
Array = npt.NDArray[np.generic]


class DType(StrEnum):
    """Storage types that tensors may have. FLOAT32 occurs only in float twins and at edges.

    8-bit floats occur only in exported files as they are (`targets.graph.exported`); their
    codes are bit patterns.
    """

    INT2 = "int2"
    INT4 = "int4"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    FLOAT32 = "float32"
    FLOAT8E4M3FN = "float8e4m3fn"
    FLOAT8E5M2 = "float8e5m2"

    @property
    def bits(self) -> int:
        return 8 if self.is_float8 else int(self.value.lstrip("uintfloa"))

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy type that holds one code per element."""
        if self.is_float8:
            return np.dtype("uint8")
        return np.dtype("int8" if self in (DType.INT2, DType.INT4) else self.value)

    @property
    def is_float8(self) -> bool:
        return self in (DType.FLOAT8E4M3FN, DType.FLOAT8E5M2)

    @property
    def is_integer(self) -> bool:
        return self is not DType.FLOAT32 and not self.is_float8

    @property
    def qmin(self) -> int:
        return 0 if self is DType.UINT8 else -(1 << (self.bits - 1))

    @property
    def qmax(self) -> int:
        return 255 if self is DType.UINT8 else (1 << (self.bits - 1)) - 1


@dataclass(frozen=True, eq=False)
class Quantization:
    """Affine quantization: real = scale * (code - zero_point).

    `scale` is float32 and `zero_point` int64, both of shape [1] (per tensor,
    `axis` None) or [n] along `axis` (per channel).
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int | None = None

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int = 0) -> Quantization:
        return cls(np.array([scale], np.float32), np.array([zero_point], np.int64))

    @classmethod
    def per_channel(cls, scale: npt.ArrayLike, axis: int) -> Quantization:
        """Symmetric, one scale per channel along `axis`."""
        values = np.asarray(scale, np.float32).reshape(-1)
        return cls(values, np.zeros(values.shape, np.int64), axis)

    @property
    def is_per_channel(self) -> bool:
        return self.axis is not None

    @property
    def scalar(self) -> tuple[np.float32, int]:
        """Scale and zero point of a per-tensor quantization."""
        if self.axis is not None:
            raise ValueError("per-channel quantization has no single scale")
        return np.float32(self.scale[0]), int(self.zero_point[0])

    def same_as(self, other: Quantization | None) -> bool:
        """Bit equality of scale, zero point and axis."""
        return (
            other is not None
            and self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def _broadcast(self, values: npt.NDArray[Any], rank: int) -> npt.NDArray[Any]:
        if self.axis is None:
            return values
        shape = [1] * rank
        shape[self.axis] = -1
        return values.reshape(shape)

    def dequantize(self, codes: Array) -> npt.NDArray[np.float32]:
        """Real values of codes whose axes are the tensor's own."""
        scale = self._broadcast(self.scale, codes.ndim)
        zero = self._broadcast(self.zero_point, codes.ndim)
        reals = (codes.astype(np.int64) - zero) * scale.astype(np.float64)
        return np.asarray(reals, np.float32)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named tensor; with `data` (codes) it is a constant."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    quantization: Quantization | None = None
    data: Array | None = None

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Storage in bytes, sub-byte codes packed."""
        return (self.elements * self.dtype.bits + 7) // 8

    @property
    def q(self) -> Quantization:
        """The quantization, for tensors that must have one."""
        if self.quantization is None:
            raise ValueError(f"tensor {self.name!r} is not quantized")
        return self.quantization


class Activation(StrEnum):
    """Clamp fused into an operator's output, in real values."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    RELU_N1_TO_1 = "relu-n1-to-1"


@dataclass(frozen=True)
class Padding:
    """Explicit padding of the two spatial axes, in elements."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


Pair = tuple[int, int]


@dataclass(frozen=True)
class Op:
    """Base of all operators: names of the tensors read and written, in order.

    An absent optional input (a bias) is the empty string.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    kind: ClassVar[str] = "op"

    def __init_subclass__(cls) -> None:
        cls.kind = cls.__name__

    @property
    def output(self) -> str:
        return self.outputs[0]


@dataclass(frozen=True)
class Conv2D(Op):
    """inputs: x [N,H,W,C], weight [O,kh,kw,C/groups], bias [O] or absent."""

    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding = Padding()
    groups: int = 1
    activation: Activation = Activation.NONE


@dataclass(frozen=True)
class DepthwiseConv2D(Op):
    """inputs: x [N,H,W,C], weight [1,kh,kw,C*multiplier], bias [C*multiplier] or absent."""

    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Padding = Padding()
    multiplier: int = 1
    activation: Activation = Activation.NONE


@dataclass(frozen=True)
class FullyConnected(Op):
    """inputs: x [..., I], weight [O,I], bias [O] or absent.

    Without `keep_dims`, x is read as [elements / I, I] and the output is [batch, O].
    """

    activation: Activation = Activation.NONE
    keep_dims: bool = False


@dataclass(frozen=True)
class BatchMatMul(Op):
    """inputs: x [...,M,K], y [...,K,N]; `adjoint_*` swaps the last two axes of that operand."""

    adjoint_x: bool = False
    adjoint_y: bool = False


@dataclass(frozen=True)
class Add(Op):
    """Element-wise with broadcasting."""

    activation: Activation = Activation.NONE


@dataclass(frozen=True)
class Sub(Op):
    """Element-wise with broadcasting."""

    activation: Activation = Activation.NONE


@dataclass(frozen=True)
class Mul(Op):
    """Element-wise with broadcasting."""

    activation: Activation = Activation.NONE


@dataclass(frozen=True)
class AveragePool2D(Op):
    """x [N,H,W,C]; padded positions are not counted. Output scale equals input scale."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = Padding()
    activation: Activation = Activation.NONE


@dataclass(frozen=True)
class MaxPool2D(Op):
    """x [N,H,W,C]. Output scale equals input scale."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = Padding()
    activation: Activation = Activation.NONE


@dataclass(frozen=True)
class Mean(Op):
    """Mean over `axes` (non-negative, sorted)."""

    axes: tuple[int, ...] = ()
    keep_dims: bool = False


@dataclass(frozen=True)
class Relu(Op):
    """A clamp that stands alone: `activation` says which."""

    activation: Activation = Activation.RELU


@dataclass(frozen=True)
class Clip(Op):
    """Clamp to real bounds `low` and `high`; output scale equals input scale."""

    low: float = 0.0
    high: float = 6.0


@dataclass(frozen=True)
class HardSwish(Op):
    """x * relu6(x + 3) / 6."""


@dataclass(frozen=True)
class Logistic(Op):
    """Sigmoid; int8 output has scale 1/256 and zero point -128 (int16: 1/32768, 0)."""


@dataclass(frozen=True)
class Tanh(Op):
    """Hyperbolic tangent; int8 output has scale 1/128 and zero point 0 (int16: 1/32768, 0)."""


@dataclass(frozen=True)
class Gelu(Op):
    """x * (1 + erf(x / sqrt 2)) / 2; `approximate` means its form by tanh.

    tanh form: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))).
    """

    approximate: bool = False


@dataclass(frozen=True)
class LayerNorm(Op):
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta over the last axis.

    inputs: x [..., C], gamma [C] (int8 or int16 codes, symmetric, one scale), beta [C]
    (int32 codes, symmetric, one scale of its own) or absent.
    """

    epsilon: float = 1e-5


@dataclass(frozen=True)
class Softmax(Op):
    """Over the last axis; int8 output has scale 1/256 and zero point -128 (int16: 1/32768, 0)."""

    beta: float = 1.0


@dataclass(frozen=True)
class Concat(Op):
    """All operands share scale and zero point with the output."""

    axis: int = -1


@dataclass(frozen=True)
class Reshape(Op):
    """Also squeeze, expand-dims and flatten."""

    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Transpose(Op):
    permutation: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pad(Op):
    """Constant padding: `before[i]` and `after[i]` elements on axis i, of code `value`.

    `value` None means the zero point, that is real 0.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    value: int | None = None


@dataclass(frozen=True)
class StridedSlice(Op):
    """begin/end/stride per axis, resolved: 0 <= begin <= end <= size, stride >= 1."""

    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()


@dataclass(frozen=True)
class ResizeNearest(Op):
    """x [N,H,W,C] -> [N,*size,C]."""

    size: Pair = (1, 1)
    align_corners: bool = False
    half_pixel_centers: bool = False


@dataclass(frozen=True)
class ResizeBilinear(Op):
    """x [N,H,W,C] -> [N,*size,C]."""

    size: Pair = (1, 1)
    align_corners: bool = False
    half_pixel_centers: bool = False


@dataclass(frozen=True)
class Quantize(Op):
    """float32 -> codes, or codes -> codes of another scale (requantize)."""


@dataclass(frozen=True)
class Dequantize(Op):
    """codes -> float32; allowed only at the graph's outputs."""


@dataclass(frozen=True)
class Layout:
    """How a tensor orders the elements that its source file orders otherwise.

    tensor = source.reshape(split).transpose(permutation).reshape(tensor.shape);
    for a channels-last tensor of an NCHW source of shape [1, C, H, W], `split` is
    (C, H, W) and `permutation` is (1, 2, 0).
    """

    split: tuple[int, ...]
    permutation: tuple[int, ...]

    def from_source(self, samples: Array, shape: tuple[int, ...]) -> Array:
        """[samples, *source shape] -> [samples, *shape]; `shape` is the tensor's."""
        axes = (0, *(axis + 1 for axis in self.permutation))
        split = samples.reshape(len(samples), *self.split)
        return split.transpose(axes).reshape(len(samples), *shape)

    def to_source(self, samples: Array, shape: tuple[int, ...]) -> Array:
        """[samples, *tensor shape] -> [samples, *shape]; `shape` is the source's."""
        moved = tuple(self.split[axis] for axis in self.permutation)
        axes = (0, *(self.permutation.index(axis) + 1 for axis in range(len(self.split))))
        split = samples.reshape(len(samples), *moved)
        return split.transpose(axes).reshape(len(samples), *shape)


@dataclass(frozen=True, eq=False)
class Graph:
    """Operators in execution order over named tensors.

    `origin` maps a tensor's name to the name it had in the source file, where
    that differs; parity and drift reports follow it. `layout` tells, for every
    activation whose elements stand in another order than in the source file, which;
    `positions` does so for constants: element i stood at `positions[name].flat[i]` there.
    """

    name: str
    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    origin: Mapping[str, str] = field(default_factory=dict)
    layout: Mapping[str, Layout] = field(default_factory=dict)
    positions: Mapping[str, IntArray] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def operands(self, op: Op) -> tuple[Tensor | None, ...]:
        """The operator's input tensors; absent optional ones are None."""
        return tuple(self.tensors[name] if name else None for name in op.inputs)

    @cached_property
    def producers(self) -> dict[str, Op]:
        return {name: op for op in self.ops for name in op.outputs}

    @cached_property
    def consumers(self) -> dict[str, tuple[Op, ...]]:
        found: dict[str, list[Op]] = {name: [] for name in self.tensors}
        for op in self.ops:
            for name in dict.fromkeys(op.inputs):
                if name:
                    found[name].append(op)
        return {name: tuple(ops) for name, ops in found.items()}

    def activations(self) -> Iterator[Tensor]:
        """Graph inputs, then every operator's outputs, in execution order."""
        for name in self.inputs:
            yield self.tensors[name]
        for op in self.ops:
            for name in op.outputs:
                yield self.tensors[name]

    def constants(self) -> Iterator[Tensor]:
        return (tensor for tensor in self.tensors.values() if tensor.is_constant)

    def from_source(self, name: str, samples: Array) -> Array:
        """Samples of a tensor as the source file orders them -> as this graph does.

        [samples, *source shape] -> [samples, *tensor shape].
        """
        shape = self.tensors[name].shape
        if name in self.layout:
            return self.layout[name].from_source(samples, shape)
        return samples.reshape(len(samples), *shape)

    def with_tensors(self, *changed: Tensor) -> Graph:
        """The same graph with these tensors added or replaced by name."""
        return replace(self, tensors={**self.tensors, **{t.name: t for t in changed}})
