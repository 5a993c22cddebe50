"""Mean, variance and range of every tensor, from batch-norm statistics alone.

A batch norm tells the mean and the deviation of each channel of its output, taken as normal;
activation functions make clipped normals of them. Layers without a batch norm and additions
take their operands' elements as independent, means and pools take them as one (the variance
stays), and max pooling takes the largest mean. A range is `sigmas` deviations around the
mean, cut by what the operands' ranges allow.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv:1906.04721, section 4.2 and appendix C (clipped normal).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import QuantizationError
from edgesmith.quantize import ops
from edgesmith.quantize.channel_statistics import Statistics
from edgesmith.quantize.network import INPUT, Network, Step
from edgesmith.quantize.options import DataFree

_FIX = "remove `data_free`, so that ranges are found on calibration data"
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
_GRID = 257
_ELEMENTWISE = (ops.Relu, ops.Clamp, ops.HardSwish, ops.Gelu, ops.Sigmoid, ops.Tanh)
_LIKE_VALUES = (  # operators that move, repeat, average or select values
    *(ops.Reshape, ops.Transpose, ops.Pad, ops.Slice, ops.Resize, ops.Concat),
    *(ops.Pool, ops.Mean, ops.Requantize),
)


@dataclass(frozen=True, eq=False)
class Moments:
    """Of every element of a tensor, float64, shaped as for one sample.

    Args:
        known: mean and variance come from batch norms; otherwise only the range means something.
    """

    mean: Tensor
    variance: Tensor
    low: Tensor
    high: Tensor
    known: bool

    @classmethod
    def of_constant(cls, value: Tensor) -> Moments:
        value = value.double()
        return cls(value, torch.zeros_like(value), value, value, known=True)

    def cut(self, sigmas: float) -> Moments:
        """With the range no wider than so many deviations around the mean."""
        if not self.known:
            return self
        reach = sigmas * self.variance.sqrt()
        low = torch.maximum(self.low, torch.minimum(self.mean - reach, self.high))
        high = torch.minimum(self.high, torch.maximum(self.mean + reach, self.low))
        return replace(self, low=low, high=high)

    def each(self, run: Callable[[Tensor], Tensor]) -> Moments:
        """One function of values applied to all four."""
        return Moments(
            run(self.mean), run(self.variance), run(self.low), run(self.high), self.known
        )


@torch.no_grad()
def moments(
    network: Network, sample_shape: tuple[int, ...], options: DataFree
) -> dict[str, Moments]:
    """Moments of the input, the constants and every step's output.

    Raises:
        QuantizationError: the network has no batch norms, or a tensor about which they say
            nothing.
    """
    if not network.statistics:
        raise QuantizationError(
            "the model has no batch norm behind a convolution or linear layer, whose statistics"
            " tell the ranges in data-free mode",
            fix=_FIX,
        )
    middle, reach = (options.high + options.low) / 2, (options.high - options.low) / 2
    ones = torch.ones(1, *sample_shape, dtype=torch.float64)
    found = {name: Moments.of_constant(value) for name, value in network.constants().items()}
    # The input's distribution is unknown; a uniform one stands in where only ranges are asked.
    found[INPUT] = Moments(
        middle * ones, reach**2 / 3 * ones, options.low * ones, options.high * ones, known=False
    )
    for step in network.steps:
        operands = [found[name] for name in step.inputs]
        result = _through(network, step, operands).cut(options.sigmas)
        if step.activation is not None:
            result = _elementwise(step.activation, result)
        found[step.name] = result
    return found


def _through(network: Network, step: Step, operands: list[Moments]) -> Moments:
    op = step.op
    if isinstance(op, ops.Layer):
        return _layer(step, network.layer(step.name), network.statistics.get(step.name), *operands)
    if isinstance(op, _ELEMENTWISE):
        return _elementwise(op, *operands)
    if isinstance(op, ops.Concat):
        return Moments(
            op.run(*(m.mean for m in operands)),
            op.run(*(m.variance for m in operands)),
            op.run(*(m.low for m in operands)),
            op.run(*(m.high for m in operands)),
            all(m.known for m in operands),
        )
    if isinstance(op, _LIKE_VALUES):
        return operands[0].each(op.run)
    if isinstance(op, ops.Add | ops.Sub | ops.Mul):
        return _combined(op, *operands)
    if isinstance(op, ops.Softmax):
        zeros = torch.zeros_like(operands[0].mean)
        return Moments(zeros, zeros, zeros, zeros + 1, known=False)
    raise QuantizationError(
        f"batch norms say nothing about {step.name!r}, the result of a {op.label}", fix=_FIX
    )


def run_layer(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A layer with other parameters, in float64; without bias by default."""
    assert isinstance(layer.bias, Tensor)
    none = torch.zeros_like(layer.bias, dtype=torch.float64)
    parameters = {"weight": weight.double(), "bias": none if bias is None else bias.double()}
    result: Tensor = torch.func.functional_call(layer, parameters, (x,))
    return result


def _layer(step: Step, layer: nn.Module, statistics: Statistics | None, x: Moments) -> Moments:
    assert isinstance(layer.weight, Tensor)
    assert isinstance(layer.bias, Tensor)
    weight = layer.weight
    middle = run_layer(layer, (x.low + x.high) / 2, weight, layer.bias)
    reach = run_layer(layer, (x.high - x.low) / 2, weight.abs())
    if statistics is not None:
        last = isinstance(step.op, ops.Linear)
        shape = [1] * middle.ndim
        shape[-1 if last else 1] = -1
        mean = statistics.mean.reshape(shape).expand_as(middle)
        variance = statistics.deviation.square().reshape(shape).expand_as(middle)
        # What batch norm saw is wider than what it may see now at most by rounding.
        low, high = torch.minimum(middle - reach, mean), torch.maximum(middle + reach, mean)
        return Moments(mean, variance, low, high, known=True)
    if not x.known:
        raise QuantizationError(
            f"no batch norm lies between the network's input and the output of {step.name!r},"
            " nor directly behind it",
            fix=_FIX,
        )
    mean, variance = (
        run_layer(layer, x.mean, weight, layer.bias),
        run_layer(layer, x.variance, weight.square()),
    )
    return Moments(mean, variance, middle - reach, middle + reach, known=True)


def _combined(op: ops.Op, a: Moments, b: Moments) -> Moments:
    if isinstance(op, ops.Mul):
        variance = a.variance * b.variance
        variance = variance + a.variance * b.mean.square() + b.variance * a.mean.square()
    else:
        variance = a.variance + b.variance
    ends = torch.stack([op.run(x, y) for x in (a.low, a.high) for y in (b.low, b.high)])
    known = a.known and b.known
    return Moments(op.run(a.mean, b.mean), variance, ends.amin(0), ends.amax(0), known)


def _elementwise(op: ops.Op, x: Moments) -> Moments:
    low, high = _extremes(op, x)
    if isinstance(op, ops.Relu | ops.Clamp):
        bounds = (0.0, None) if isinstance(op, ops.Relu) else (op.low, op.high)
        mean, variance = clipped_normal(x.mean, x.variance.sqrt(), *bounds)
    else:
        mean, variance = _of_normal(op, x.mean, x.variance.sqrt())
    return Moments(mean, variance, low, high, x.known)


def clipped_normal(
    mean: Tensor, deviation: Tensor, low: float | None, high: float | None
) -> tuple[Tensor, Tensor]:
    """Mean and variance of a normal variable clamped to [low, high]."""
    a = -math.inf if low is None else low
    b = math.inf if high is None else high
    sigma = deviation.clamp_min(1e-12)
    alpha, beta = (a - mean) / sigma, (b - mean) / sigma
    below, above = _cumulative(alpha), _cumulative(-beta)
    inside = (1 - below - above).clamp_min(0)
    first, second = _density(alpha), _density(beta)
    # Moments of the part inside, relative to the mean; at infinite ends x * density is 0.
    middle = sigma * (first - second)
    edges = torch.nan_to_num(alpha * first, nan=0.0) - torch.nan_to_num(beta * second, nan=0.0)
    spread = sigma.square() * (inside + edges)
    left = torch.zeros_like(mean) if low is None else below * (low - mean)
    right = torch.zeros_like(mean) if high is None else above * (high - mean)
    left2 = torch.zeros_like(mean) if low is None else below * (low - mean).square()
    right2 = torch.zeros_like(mean) if high is None else above * (high - mean).square()
    shift = middle + left + right
    variance = (spread + left2 + right2 - shift.square()).clamp_min(0)
    return mean + shift, variance


def _cumulative(x: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-x / math.sqrt(2))


def _density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)


def _of_normal(op: ops.Op, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of op(x) for a normal x: Gauss-Hermite quadrature."""
    total = math.sqrt(2 * math.pi)
    first, second = torch.zeros_like(mean), torch.zeros_like(mean)
    for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
        value = op.run(mean + node * deviation)
        first += weight / total * value
        second += weight / total * value.square()
    return first, (second - first.square()).clamp_min(0)


def _extremes(op: ops.Op, x: Moments) -> tuple[Tensor, Tensor]:
    """Smallest and largest op(v) for v in the range; exact where op is monotone."""
    low, high = op.run(x.low), op.run(x.low)
    for share in torch.linspace(0, 1, _GRID).tolist():
        value = op.run(x.low + share * (x.high - x.low))
        low, high = torch.minimum(low, value), torch.maximum(high, value)
    return low, high
