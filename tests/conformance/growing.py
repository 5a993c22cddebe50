"""A graph that grows by one operator at a time, with the draws that all of its steps make."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Activation, DType, Op, Quantization, Tensor
from edgesmith.targets.graph.shapes import infer

Shape = tuple[int, ...]
T = TypeVar("T")
MOST_ELEMENTS = 4000  # of a tensor that operators go on from


@dataclass
class Growing:
    """The graph so far; the next operator reads `x`, and maybe others of `made`."""

    rng: np.random.Generator
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)  # inputs and activations, newest last
    current: str = ""

    @property
    def x(self) -> Tensor:
        return self.tensors[self.current]

    @property
    def dtype(self) -> DType:
        return self.x.dtype

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def pick(self, values: Sequence[T]) -> T:
        return values[self.integer(0, len(values) - 1)]

    def codes(self, shape: Shape, dtype: DType) -> ir.Array:
        values = self.rng.integers(dtype.qmin, dtype.qmax, shape, endpoint=True)
        return values.astype(dtype.numpy)

    def quantization(self, dtype: DType | None = None) -> Quantization:
        scale = float(np.exp(self.rng.uniform(np.log(0.005), np.log(0.2))))
        if (dtype or self.dtype) is DType.INT16:
            return Quantization.per_tensor(scale / 256, 0)
        zero = self.pick((-128, 127)) if self.chance(0.3) else self.integer(-128, 127)
        return Quantization.per_tensor(scale, zero)

    def mostly(self, usual: Quantization) -> Quantization:
        """What an operator's kernels want; rarely another one, for which rewrites must care."""
        return usual if self.chance(0.85) else self.quantization()

    def activation(self) -> Activation:
        return self.pick((Activation.NONE, Activation.NONE, Activation.RELU, Activation.RELU6))

    def names(self) -> tuple[str, tuple[str, ...]]:
        """The next operator's name and outputs."""
        return f"op{len(self.ops)}", (f"t{len(self.ops)}",)

    def others(self, shapes: Collection[Shape] | None = None) -> list[Tensor]:
        """Activations of x's type, itself too, all or of some shapes."""
        found = [self.tensors[name] for name in self.made]
        alike = [each for each in found if each.dtype is self.dtype]
        return [each for each in alike if shapes is None or each.shape in shapes]

    def add_input(self, shape: Shape, dtype: DType) -> None:
        name = f"x{len(self.inputs)}" if self.inputs else "x"
        self.tensors[name] = Tensor(name, shape, dtype, self.quantization(dtype))
        self.inputs.append(name)
        self.made.append(name)
        self.current = name

    def add(
        self, op: Op, quantization: Quantization | None = None, dtype: DType | None = None
    ) -> None:
        operands = tuple(self.tensors[name] if name else None for name in op.inputs)
        shape = infer(op, operands)[0]
        kind = dtype or self.dtype
        chosen = quantization or self.quantization(kind)
        self.tensors[op.output] = Tensor(op.output, shape, kind, chosen)
        self.ops.append(op)
        self.made.append(op.output)
        self.current = op.output

    def constant(self, name: str, tensor: Tensor) -> str:
        self.tensors[name] = replace(tensor, name=name)
        return name

    def constant_like(self, shape: Shape) -> str:
        """An operand of x's type that is known beforehand."""
        codes = self.codes(shape, self.dtype)
        tensor = Tensor("", shape, self.dtype, self.quantization(), codes)
        return self.constant(f"c{len(self.ops)}", tensor)

    def weights(self, shape: Shape, axis: int, reach: int) -> tuple[str, str]:
        """A weight and its bias; sums of `reach` products stay within int32."""
        index = len(self.ops)
        kind = self.pick((DType.INT8, DType.INT8, DType.INT4, DType.INT2))
        low = kind.qmin if self.chance(0.2) else -kind.qmax
        channels = shape[axis]
        per_channel = self.chance(0.7)
        scales = self.rng.uniform(0.2, 1.0, channels if per_channel else 1).astype(np.float32)
        scales /= np.float32(kind.qmax * math.sqrt(reach))
        zeros = np.zeros(scales.size, np.int64)
        codes = self.rng.integers(low, kind.qmax, shape, endpoint=True).astype(np.int8)
        weight = Tensor(
            "", shape, kind, Quantization(scales, zeros, axis if per_channel else None), codes
        )
        wide = DType.INT64 if self.dtype is DType.INT16 else DType.INT32
        biases = self.rng.integers(-20_000, 20_000, channels).astype(wide.numpy)
        quantized = Quantization(scales * self.x.q.scale, zeros, 0 if per_channel else None)
        bias = Tensor("", (channels,), wide, quantized, biases)
        return self.constant(f"w{index}", weight), self.constant(f"b{index}", bias)
