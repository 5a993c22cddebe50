"""What a reference kernel receives, and the registry that finds it by operator type."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph.ir import Activation, Array, DType, Op, Tensor
from edgesmith.targets.graph.reference.profiles import Profile, ScaleMath
from edgesmith.targets.graph.requantize import Float64Array, Int64Array

# Elements per block of temporary int64 or float64 values: small enough to stay in cache.
BLOCK_ELEMENTS = 1 << 17

ACTIVATION_TYPES = (DType.INT8, DType.INT16)


@dataclass(frozen=True, eq=False)
class Call:
    """One operator with everything it reads.

    `values` has a leading sample axis of size `samples`, or of size 1 where the
    operand is a constant; absent operands are None.
    """

    op: Op
    tensors: tuple[Tensor | None, ...]
    values: tuple[Array | None, ...]
    output: Tensor
    profile: Profile
    samples: int

    def refuse(self, reason: str, fix: str) -> UnsupportedError:
        return UnsupportedError(f"{self.op.kind} {self.op.name!r}: {reason}", fix=fix)

    def tensor(self, position: int) -> Tensor:
        found = self.tensors[position] if position < len(self.tensors) else None
        if found is None:
            raise self.refuse(f"input {position} is missing", "check the graph")
        return found

    def value(self, position: int) -> Array:
        """An operand with its sample axis."""
        found = self.values[position] if position < len(self.values) else None
        if found is None:
            raise self.refuse(f"input {position} is missing", "check the graph")
        return found

    def optional(self, position: int) -> Tensor | None:
        return self.tensors[position] if position < len(self.tensors) else None

    def constant(self, position: int) -> Array:
        """The codes of an operand that must be constant, without sample axis."""
        data = self.tensor(position).data
        if data is None:
            raise self.refuse(
                f"input {position} ({self.tensor(position).name!r}) is not a constant",
                "make it a constant tensor of the graph",
            )
        return data

    def scalar(self, tensor: Tensor) -> tuple[np.float32, int]:
        """Scale and zero point of a tensor that must be quantized per tensor."""
        quantization = tensor.quantization
        if quantization is None or quantization.scale.size != 1:
            raise self.refuse(
                f"tensor {tensor.name!r} has no single scale", "quantize it per tensor"
            )
        return np.float32(quantization.scale[0]), int(quantization.zero_point[0])

    def integer_activations(self, *positions: int) -> None:
        """Refuse any activation that is not int8 or int16, or that mixes the two."""
        types = {self.tensor(position).dtype for position in positions} | {self.output.dtype}
        if len(types) == 1 and types <= set(ACTIVATION_TYPES):
            return
        raise self.refuse(
            f"activations are {', '.join(sorted(types))}",
            "use int8 or int16 for all activations of the operator",
        )


Kernel = Callable[[Any, Call], Array]
_KERNELS: dict[type[Op], Kernel] = {}

F = TypeVar("F", bound=Callable[..., Array])


def kernel(kind: type[Op]) -> Callable[[F], F]:
    """Register a function as the definition of an operator type."""

    def register(function: F) -> F:
        _KERNELS[kind] = function
        return function

    return register


@cache
def _import_kernels() -> None:
    package = __package__ or ""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{package}.{module.name}")


def kernel_of(op: Op) -> Kernel:
    """The kernel of an operator.

    Raises:
        UnsupportedError: no kernel defines that operator type.
    """
    _import_kernels()
    found = _KERNELS.get(type(op))
    if found is None:
        raise UnsupportedError(
            f"{op.kind} {op.name!r} has no reference kernel",
            fix="legalize the graph so that only IntegerGraph operators remain",
        )
    return found


def sample_blocks(samples: int, elements: int) -> Iterator[slice]:
    """Slices over the sample axis so that a block's temporaries of `elements` each stay small."""
    step = max(1, BLOCK_ELEMENTS // max(1, elements))
    return (slice(start, start + step) for start in range(0, samples, step))


def real_multiplier(
    math: ScaleMath, first: npt.ArrayLike, second: npt.ArrayLike, output: npt.ArrayLike
) -> Float64Array:
    """first * second / output in the precision that a runtime uses; one or one per channel."""
    a, b, c = (np.asarray(value, np.float32) for value in (first, second, output))
    if math is ScaleMath.FLOAT32:
        return np.atleast_1d((a * b / c).astype(np.float64))
    if math is ScaleMath.FLOAT32_PRODUCT:
        return np.atleast_1d((a * b).astype(np.float64) / c.astype(np.float64))
    return np.atleast_1d(a.astype(np.float64) * b.astype(np.float64) / c.astype(np.float64))


_BOUNDS: dict[Activation, tuple[float | None, float | None]] = {
    Activation.NONE: (None, None),
    Activation.RELU: (0.0, None),
    Activation.RELU6: (0.0, 6.0),
    Activation.RELU_N1_TO_1: (-1.0, 1.0),
}


def code_of(real: float, scale: np.float32, zero: int) -> int:
    """The code of a clamp's bound: the quotient in float32, ties away from zero."""
    quotient = np.float32(real) / scale
    return zero + int(np.copysign(np.floor(np.abs(quotient) + np.float32(0.5)), quotient))


def activation_range(call: Call, activation: Activation) -> tuple[int, int]:
    """Smallest and largest code of a fused activation (CalculateActivationRangeQuantized)."""
    dtype = call.output.dtype
    low, high = _BOUNDS[activation]
    if low is None:
        return dtype.qmin, dtype.qmax
    scale, zero = call.scalar(call.output)
    top = dtype.qmax if high is None else min(dtype.qmax, code_of(high, scale, zero))
    return max(dtype.qmin, code_of(low, scale, zero)), top


def clamp(values: Int64Array, limits: tuple[int, int], dtype: DType) -> Array:
    """Codes of the output type from int64 values; `values` is overwritten."""
    np.maximum(values, limits[0], out=values)
    np.minimum(values, limits[1], out=values)
    return values.astype(dtype.numpy)


def align(call: Call, position: int) -> Array:
    """An operand reshaped for broadcasting: tensor axes align at the end, samples stay first."""
    value = call.value(position)
    missing = max(0, len(call.output.shape) + 1 - value.ndim)
    return value.reshape(len(value), *(1,) * missing, *value.shape[1:])
