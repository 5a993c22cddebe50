"""Normalization rules of operators that compute: layers, arithmetic, activations, pooling."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgesmith.quantize import ops
from edgesmith.quantize.channel_statistics import Statistics
from edgesmith.quantize.columns import same_padding
from edgesmith.quantize.draft import Call, Ref
from edgesmith.quantize.rules import rule

Operand = Ref | Tensor | float
Sizes = int | Sequence[int]


def spread(value: Sizes, count: int) -> tuple[int, ...]:
    """One number per axis."""
    return (value,) * count if isinstance(value, int) else tuple(value) * (count // len(value))


@rule(nn.Conv1d, nn.Conv2d)
def _conv_module(call: Call, x: Ref) -> Ref:
    module = call.module
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    if module.padding_mode != "zeros":
        call.refuse(f"padding_mode {module.padding_mode!r}", "train with zero padding")
    return _conv(
        call,
        x,
        module.weight,
        module.bias,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
    )


@rule(F.conv1d, F.conv2d, torch.conv1d, torch.conv2d)
def _conv(
    call: Call,
    input: Ref,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Ref:
    _constant(call, "weight", weight)
    axes = weight.ndim - 2
    if input.rank != weight.ndim:
        call.refuse(f"its input has {input.rank} axes, not {weight.ndim}", "keep the batch axis")
    kernel, dilations = tuple(weight.shape[2:]), spread(dilation, axes)
    if padding == "same":
        before, after = zip(*same_padding(kernel, dilations), strict=True)
        padding = before
        if before != after:  # needs a pad of its own
            pad = ops.Pad((0, 0, *before), (0, 0, *after))
            input, padding = call.emit(pad, input, part=True), 0
    elif isinstance(padding, str):
        padding = 0
    op = ops.Conv(
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        spread(stride, axes),
        spread(padding, axes),
        dilations,
        groups,
    )
    return call.layer(op, input, weight, bias, weight.shape[0])


@rule(nn.Linear)
def _linear_module(call: Call, x: Ref) -> Ref:
    assert isinstance(call.module, nn.Linear)
    return _linear(call, x, call.module.weight, call.module.bias)


@rule(F.linear)
def _linear(call: Call, input: Ref, weight: Tensor, bias: Tensor | None = None) -> Ref:
    _constant(call, "weight", weight)
    return call.layer(
        ops.Linear(weight.shape[1], weight.shape[0]), input, weight, bias, weight.shape[0]
    )


def _constant(call: Call, name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        call.refuse(f"its {name} is computed from the input", "use matmul for two activations")


@rule(nn.BatchNorm1d, nn.BatchNorm2d)
def _batch_norm(call: Call, input: Ref) -> Ref:
    norm = call.module
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    if norm.running_mean is None or norm.running_var is None:
        call.refuse("it has no running statistics", "train with track_running_stats=True")
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    mean = torch.zeros_like(scale) if norm.bias is None else norm.bias.detach().double()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    made = call.emit(ops.BatchNorm(), input)
    call.draft.norms[made.name] = (scale.detach(), shift.detach())
    deviation = norm.running_var.double().sqrt() * scale.detach().abs()
    call.draft.statistics[made.name] = Statistics(mean, deviation)
    return made


@rule(torch.matmul, torch.bmm, operator.matmul, "matmul", "bmm")
def _matmul(call: Call, input: Operand, other: Operand) -> Ref:
    return call.emit(ops.MatMul(), input, other)


@rule(torch.add, operator.add, operator.iadd, "add", "add_")
def _add(call: Call, input: Operand, other: Operand, *, alpha: float = 1) -> Ref:
    _plain(call, alpha)
    return call.emit(ops.Add(), input, other)


@rule(torch.sub, operator.sub, operator.isub, "sub", "sub_")
def _sub(call: Call, input: Operand, other: Operand, *, alpha: float = 1) -> Ref:
    _plain(call, alpha)
    return call.emit(ops.Sub(), input, other)


def _plain(call: Call, alpha: float) -> None:
    if alpha != 1:
        call.refuse(f"alpha is {alpha}", "multiply the second operand explicitly")


@rule(torch.mul, operator.mul, operator.imul, "mul", "mul_")
def _mul(call: Call, input: Operand, other: Operand) -> Ref:
    return call.emit(ops.Mul(), input, other)


@rule(torch.div, operator.truediv, operator.itruediv, "div", "div_")
def _div(call: Call, input: Operand, other: Operand) -> Ref:
    if isinstance(other, Ref):
        call.refuse("it divides by an activation", "divide by constants only")
    return call.emit(ops.Mul(), input, 1.0 / other)


@rule(torch.neg, operator.neg, "neg")
def _neg(call: Call, input: Ref) -> Ref:
    return call.emit(ops.Mul(), input, -1.0)


@rule(F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
def _relu(call: Call, input: Ref, inplace: bool = False) -> Ref:
    return call.emit(ops.Relu(), input)


@rule(F.relu6)
def _relu6(call: Call, input: Ref, inplace: bool = False) -> Ref:
    return call.emit(ops.Clamp(0.0, 6.0), input)


@rule(F.hardtanh)
def _hardtanh(
    call: Call, input: Ref, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Ref:
    return call.emit(ops.Clamp(float(min_val), float(max_val)), input)


@rule(torch.clamp, torch.clip, "clamp", "clip", "clamp_")
def _clamp(call: Call, input: Ref, min: float | None = None, max: float | None = None) -> Ref:
    bounds = [bound for bound in (min, max) if bound is not None]
    if not all(isinstance(bound, int | float) and math.isfinite(bound) for bound in bounds):
        call.refuse("a bound is not a finite number", "clamp to finite numbers")
    if (min, max) == (0, None):
        return call.emit(ops.Relu(), input)
    low, high = (None if bound is None else float(bound) for bound in (min, max))
    return call.emit(ops.Clamp(low, high), input)


@rule(F.hardswish)
def _hardswish(call: Call, input: Ref, inplace: bool = False) -> Ref:
    return call.emit(ops.HardSwish(), input)


@rule(F.hardsigmoid)
def _hardsigmoid(call: Call, input: Ref, inplace: bool = False) -> Ref:
    """relu6(x + 3) / 6: the integer formats have no operator of their own for it."""
    shifted = call.emit(ops.Add(), input, 3.0, part=True)
    clamped = call.emit(ops.Clamp(0.0, 6.0), shifted, part=True)
    return call.emit(ops.Mul(), clamped, 1 / 6)


@rule(F.gelu)
def _gelu(call: Call, input: Ref, approximate: str = "none") -> Ref:
    return call.emit(ops.Gelu(approximate == "tanh"), input)


@rule(F.layer_norm, torch.layer_norm)
def _layer_norm(
    call: Call,
    input: Ref,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Ref:
    if len(normalized_shape) != 1:
        call.refuse(
            f"it normalizes over {len(normalized_shape)} axes", "normalize over the last axis alone"
        )
    size = normalized_shape[0]
    gamma = torch.ones(size) if weight is None else weight.detach()
    beta = torch.zeros(size) if bias is None else bias.detach()
    return call.emit(ops.LayerNorm(float(eps)), input, gamma, beta)


@rule(torch.sigmoid, F.sigmoid, "sigmoid")
def _sigmoid(call: Call, input: Ref) -> Ref:
    return call.emit(ops.Sigmoid(), input)


@rule(F.silu)
def _silu(call: Call, input: Ref, inplace: bool = False) -> Ref:
    return call.emit(ops.Mul(), input, call.emit(ops.Sigmoid(), input, part=True))


@rule(torch.tanh, F.tanh, "tanh")
def _tanh(call: Call, input: Ref) -> Ref:
    return call.emit(ops.Tanh(), input)


@rule(F.softmax, torch.softmax, "softmax")
def _softmax(
    call: Call, input: Ref, dim: int | None = None, _stacklevel: int = 3, dtype: object = None
) -> Ref:
    if dim is None or dim % input.rank in input.batch_axes:
        call.refuse(f"its axis is {dim}", "give `dim`, an axis other than the batch")
    return call.emit(ops.Softmax(dim % input.rank), input)


@rule(F.avg_pool1d, F.avg_pool2d, torch.avg_pool1d)
def _avg_pool(
    call: Call,
    input: Ref,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Ref:
    axes = input.rank - 2
    kernel, pads = spread(kernel_size, axes), spread(padding, axes)
    strides = spread(stride, axes) if stride else kernel
    if divisor_override is not None:
        call.refuse("divisor_override is set", "leave divisor_override out")
    _check_window(call, input, kernel, strides, pads)
    if kernel == input.shape[2:] and not any(pads):
        return _mean(call, input, tuple(range(2, input.rank)), keepdim=True)
    if any(pads) and count_include_pad:
        sides = (0, 0, *pads)
        input, pads = call.emit(ops.Pad(sides, sides), input, part=True), (0,) * axes
    return call.emit(ops.AveragePool(kernel, strides, pads), input)


def _check_window(
    call: Call, x: Ref, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> None:
    """Windows may not hang over the padded input (`ceil_mode`)."""
    padded = [size + 2 * pad for size, pad in zip(x.shape[2:], pads, strict=True)]
    expected = tuple((p - k) // s + 1 for p, k, s in zip(padded, kernel, strides, strict=True))
    if call.fact.shape[2:] != expected:
        call.refuse(
            f"ceil_mode lets windows hang over the border ({call.fact.shape[2:]} instead of"
            f" {expected} windows)",
            "set ceil_mode=False, or pad explicitly",
        )


@rule(F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d)
def _max_pool(
    call: Call,
    input: Ref,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Ref:
    axes = input.rank - 2
    kernel, pads = spread(kernel_size, axes), spread(padding, axes)
    strides = spread(stride, axes) if stride else kernel
    if return_indices or set(spread(dilation, axes)) != {1}:
        call.refuse("it is dilated or returns indices", "use a plain max pooling")
    _check_window(call, input, kernel, strides, pads)
    return call.emit(ops.MaxPool(kernel, strides, pads), input)


@rule(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, torch.adaptive_avg_pool1d)
def _adaptive(call: Call, input: Ref, output_size: object) -> Ref:
    sizes, targets = input.shape[2:], call.fact.shape[2:]
    if set(targets) == {1}:
        return _mean(call, input, tuple(range(2, input.rank)), keepdim=True)
    if any(size % target for size, target in zip(sizes, targets, strict=True)):
        call.refuse(
            f"windows of {sizes} -> {targets} differ in size", "pool to sizes that divide the input"
        )
    kernel = tuple(size // target for size, target in zip(sizes, targets, strict=True))
    return call.emit(ops.AveragePool(kernel, kernel, (0,) * len(kernel)), input)


@rule(torch.mean, "mean")
def _mean(
    call: Call,
    input: Ref,
    dim: Sizes | None = None,
    keepdim: bool = False,
    *,
    dtype: object = None,
) -> Ref:
    given = range(input.rank) if dim is None else (dim,) if isinstance(dim, int) else dim
    axes = tuple(sorted(axis % input.rank for axis in given))
    if set(axes) & set(input.batch_axes):
        call.refuse("it averages over the samples of a batch", "give `dim` without the batch axis")
    return call.emit(ops.Mean(axes, keepdim), input)
