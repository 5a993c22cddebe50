"""The fake-quantized network with a device's rounding: the codes that its kernels compute.

Microcontroller kernels scale accumulators by integers and round twice: at bit 31 of the product,
then at a right shift by n. The fake-quantized network divides reals and rounds once, as ONNX
does. The second rounding of a number that the first one made a tie errs once in about 2^(n + 1)
elements. Layers of int8 weights have n near 8. Narrow weights have large scales and so small n: of
a layer with int3 weights every twentieth code may differ, and accuracy with them.

`FixedPointNetwork` computes the device's codes in torch: products of integers in floats, which
hold them exactly, and TFLite's fixed-point arithmetic on int64. Layers, sums, products, means,
average pools, matrix products and changes of scale equal the reference executor's (profile
`tflite-micro`) bit for bit, and so does what only moves or compares codes. Others (softmax,
sigmoid, tanh, hard-swish, GELU, layer normalization, bilinear resizing) are computed in reals and
may be a code off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatchmethod

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from edgesmith.quantize import ops
from edgesmith.quantize.affine import Affine
from edgesmith.quantize.integers import affine_of
from edgesmith.quantize.network import Network, Step, key
from edgesmith.quantize.placement import Placement
from edgesmith.quantize.ptq import QuantizedModel
from edgesmith.quantize.searched import Searched
from edgesmith.targets.graph.reference.kernel import code_of
from edgesmith.targets.graph.reference.reduce import mean_multiplier
from edgesmith.targets.graph.requantize import Multiplier, quantize_multiplier

FIXED_POINT = (
    ops.Conv,
    ops.Linear,
    ops.Add,
    ops.Sub,
    ops.Mul,
    ops.MatMul,
    ops.Mean,
    ops.AveragePool,
    ops.Requantize,
)
"""Operators that scale accumulators. Others move or compare codes, or are computed in reals."""
_HEADROOM = {8: 20, 16: 15}
"""Bits by which operands of a sum are raised, by the width of the stored codes."""


def on_fixed_point(model: QuantizedModel) -> QuantizedModel | None:
    """The same integers, computed with a device's rounding; None where a format is no integer."""
    policy = model.placement.policy.groups.values()
    weights = [each.weight for each in policy if each.weight is not None]
    if any(fmt.is_float for fmt in (*model.placement.formats.values(), *weights)):
        return None
    network = FixedPointNetwork(model.module, model.placement, model.integers)
    return replace(model, module=network)


@dataclass(frozen=True, eq=False)
class _Scaling:
    """A multiplier per channel or for all, shaped to broadcast; `wide` of 48-bit accumulators."""

    multiplier: Tensor
    shift: Tensor
    wide: bool = False

    @classmethod
    def of(cls, by: Multiplier, shape: Sequence[int] = (1,), *, wide: bool = False) -> _Scaling:
        multiplier, shift = (torch.from_numpy(each).reshape(tuple(shape)) for each in by)
        return cls(multiplier, shift, wide)

    def apply(self, values: Tensor) -> Tensor:
        """int64 accumulators, scaled: MultiplyByQuantizedMultiplier."""
        return self._round_once(values) if self.wide else self.round_twice(_wrapped(values))

    def round_twice(self, values: Tensor) -> Tensor:
        """As C's int32 accumulators are scaled, of any int64 values."""
        left, right = self.shift.clamp_min(0), (-self.shift).clamp_min(0)
        raised = _wrapped(values << left) if left.any() else values
        product = (raised * self.multiplier + (1 << 30)) >> 31
        # Of a negative number a tie falls away from zero; without a shift nothing is rounded.
        lowered = product + ((product >> 63) & -(right > 0).long())
        return (lowered + ((torch.ones_like(right) << right) >> 1)) >> right

    def _round_once(self, values: Tensor) -> Tensor:
        rounded = (self.multiplier + (1 << 15)) >> 16
        reduced = torch.where(self.multiplier < 0x7FFF0000, rounded, 0x7FFF)
        total = 15 - self.shift
        return _wrapped((values * reduced + (torch.ones_like(total) << (total - 1))) >> total)


def _wrapped(values: Tensor) -> Tensor:
    """As C's int32 holds them."""
    return values.int().long()


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer in integers: `weight` as floats, `bias` int64 and shaped to broadcast."""

    weight: Tensor
    bias: Tensor
    scaling: _Scaling


class FixedPointNetwork(Network):
    """A fake-quantized network that rounds as a device does.

    Args:
        fake: the fake-quantized network of `integers`; its modules are shared, not copied.
    """

    def __init__(self, fake: Network, placement: Placement, integers: Searched) -> None:
        layers = {step.name: fake.layer(step.name) for step in fake.layer_steps()}
        quantizers = {name: fake.quantizers[key(name)] for name in fake.quantizer_of.values()}
        super().__init__(fake.steps, layers, fake.constants(), quantizers, fake.quantizer_of)
        self._affines = {
            name: affine_of(integers[root], placement.formats[root])
            for name, root in placement.quantizer_of.items()
        }
        self._integer_layers = {
            step.name: self._layer(step, integers) for step in fake.layer_steps()
        }

    @torch.no_grad()
    def compute(self, step: Step, operands: list[Tensor]) -> Tensor:
        """What a step makes of its operands, as real values of the device's codes."""
        if not isinstance(step.op, FIXED_POINT):
            return super().compute(step, operands)
        inputs = [
            torch.round(value / float(self._affines[name].scale))
            for name, value in zip(step.inputs, operands, strict=True)
        ]
        scaled = self._scaled(step.op, step, inputs)
        affine = self._affines[step.name]
        low, high = _limits(step.activation, affine)
        codes = (scaled + affine.zero_point).clamp(low, high) - affine.zero_point
        return codes.float() * torch.tensor(affine.scale)

    @singledispatchmethod
    def _scaled(self, op: ops.Op, step: Step, inputs: list[Tensor]) -> Tensor:
        """Output codes less their zero point as int64, from those of the inputs as floats."""
        raise NotImplementedError(op.kind)

    @_scaled.register
    def _(self, op: ops.Conv, step: Step, inputs: list[Tensor]) -> Tensor:
        layer = self._integer_layers[step.name]
        convolve = F.conv1d if len(op.kernel) == 1 else F.conv2d
        x = inputs[0].to(layer.weight.dtype)
        # NNPACK would transform (Winograd), and its sums are not exact.
        with torch.backends.nnpack.flags(enabled=False):
            sums = convolve(x, layer.weight, None, op.stride, op.padding, op.dilation, op.groups)
        return layer.scaling.apply(sums.long() + layer.bias)

    @_scaled.register
    def _(self, op: ops.Linear, step: Step, inputs: list[Tensor]) -> Tensor:
        layer = self._integer_layers[step.name]
        sums = F.linear(inputs[0].to(layer.weight.dtype), layer.weight)
        return layer.scaling.apply(sums.long() + layer.bias)

    @_scaled.register
    def _(self, op: ops.Add | ops.Sub, step: Step, inputs: list[Tensor]) -> Tensor:
        output = self._affines[step.name]
        headroom = _HEADROOM[_stored_bits(output)]
        first, second = (float(self._affines[name].scale) for name in step.inputs)
        twice = 2 * max(first, second)
        left, right = (
            _scaling(scale / twice).apply(value.long() << headroom)
            for scale, value in zip((first, second), inputs, strict=True)
        )
        total = left - right if isinstance(op, ops.Sub) else left + right
        return _scaling(twice / ((1 << headroom) * float(output.scale))).apply(total)

    @_scaled.register
    def _(self, op: ops.Mul, step: Step, inputs: list[Tensor]) -> Tensor:
        first, second = (float(self._affines[name].scale) for name in step.inputs)
        by = _scaling(first * second / float(self._affines[step.name].scale))
        return by.apply(inputs[0].long() * inputs[1].long())

    @_scaled.register
    def _(self, op: ops.MatMul, step: Step, inputs: list[Tensor]) -> Tensor:
        first, second = (float(self._affines[name].scale) for name in step.inputs)
        output = self._affines[step.name]
        by = quantize_multiplier(first * second / float(output.scale))
        sums = torch.matmul(inputs[0].double(), inputs[1].double()).long()
        return _Scaling.of(by, wide=_stored_bits(output) == 16).apply(sums)

    @_scaled.register
    def _(self, op: ops.Mean, step: Step, inputs: list[Tensor]) -> Tensor:
        count = math.prod(inputs[0].shape[axis] for axis in op.axes)
        before, after = (self._affines[name].scale for name in (step.inputs[0], step.name))
        total = inputs[0].long().sum(op.axes, op.keep_dims)
        return _Scaling.of(mean_multiplier(before, after, count)).round_twice(total)

    @_scaled.register
    def _(self, op: ops.AveragePool, step: Step, inputs: list[Tensor]) -> Tensor:
        """The mean of the codes themselves, zero point and all, ties away from zero."""
        zero = self._affines[step.name].zero_point
        total, count = (_window_sums(op, x) for x in (inputs[0] + zero, torch.ones_like(inputs[0])))
        magnitude = (total.abs() + count // 2) // count
        return torch.sign(total) * magnitude - zero

    @_scaled.register
    def _(self, op: ops.Requantize, step: Step, inputs: list[Tensor]) -> Tensor:
        before, after = (float(self._affines[name].scale) for name in (step.inputs[0], step.name))
        return _scaling(before / after).apply(inputs[0].long())

    def _layer(self, step: Step, integers: Searched) -> _Layer:
        weight, bias = (integers[f"{step.name}.{part}"] for part in ("weight", "bias"))
        assert weight.codes is not None
        assert bias.codes is not None
        source, output = self._affines[step.inputs[0]], self._affines[step.name]
        shape = (-1, *[1] * (weight.codes.ndim - 2))
        real = float(source.scale) * weight.scale.astype(np.float64) / float(output.scale)
        by = quantize_multiplier(np.broadcast_to(real, bias.codes.shape))
        wide = bias.dtype == "int64"
        return _Layer(
            torch.from_numpy(weight.codes).to(_product_type(weight.codes, source)),
            torch.from_numpy(bias.codes).reshape(shape),
            _Scaling.of(by, shape, wide=wide),
        )


def _scaling(real: float) -> _Scaling:
    return _Scaling.of(quantize_multiplier(real))


def _stored_bits(affine: Affine) -> int:
    return max(8, affine.format.bits)


def _product_type(weight: npt.NDArray[np.int64], source: Affine) -> torch.dtype:
    """The float type in which sums of products are exact, in any order of addition."""
    reach = int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max())
    fmt, zero = source.format, source.zero_point
    bound = reach * max(fmt.qmax - zero, zero - fmt.qmin)
    return torch.float32 if bound < 1 << 24 else torch.float64


def _window_sums(op: ops.AveragePool, x: Tensor) -> Tensor:
    """Sums over the windows of an average pool, of integers that float64 holds."""
    pads = tuple(pad for each in reversed(op.padding) for pad in (each, each))
    images = F.pad(x.double(), pads)
    axes = len(op.kernel)
    for size, stride in zip(op.kernel, op.stride, strict=True):
        images = images.unfold(-axes, size, stride)  # each appends an axis: the next is there
    return images.sum(tuple(range(-axes, 0))).long()


def _limits(activation: ops.Activation | None, affine: Affine) -> tuple[int, int]:
    """Smallest and largest code behind a fused clamp (CalculateActivationRangeQuantized)."""
    lowest, highest = affine.format.qmin, affine.format.qmax
    match activation:
        case None:
            low, high = None, None
        case ops.Relu():
            low, high = 0.0, None
        case ops.Clamp():
            low, high = activation.low, activation.high
    return (
        lowest if low is None else max(lowest, code_of(low, affine.scale, affine.zero_point)),
        highest if high is None else min(highest, code_of(high, affine.scale, affine.zero_point)),
    )
