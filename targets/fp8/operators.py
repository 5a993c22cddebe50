"""The float operators of exported files, in torch: what each computes is ONNX's definition.

Only what `quantize.export_ops` writes. Operands are float32 tensors with a batch axis of one;
those that say how (shapes, axes, bounds) are NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Attributes = Mapping[str, Any]
Operator = Callable[[list[Any], Attributes], Tensor]


def _integers(operand: Any) -> list[int]:
    return [int(each) for each in np.asarray(operand).reshape(-1)]


def conv(operands: list[Any], given: Attributes) -> Tensor:
    """Convolution of one or two axes, in float32; padding may differ between sides."""
    x, weight, *bias = operands
    axes = weight.ndim - 2
    pads = list(given.get("pads", [0] * 2 * axes))
    around = [side for at in reversed(range(axes)) for side in (pads[at], pads[axes + at])]
    function = F.conv1d if axes == 1 else F.conv2d
    found: Tensor = function(
        F.pad(x, around),
        weight,
        bias[0] if bias else None,
        stride=list(given.get("strides", [1] * axes)),
        dilation=list(given.get("dilations", [1] * axes)),
        groups=int(given.get("group", 1)),
    )
    return found


def gemm(operands: list[Any], given: Attributes) -> Tensor:
    x, weight, *bias = operands
    found: Tensor = x @ (weight.t() if given.get("transB", 0) else weight)
    return found + bias[0] if bias else found


def _clip(operands: list[Any], given: Attributes) -> Tensor:
    x, *bounds = operands
    low, high = ((None if b is None else float(b)) for b in (*bounds, None, None)[:2])
    return torch.clamp(x, low, high) if (low, high) != (None, None) else x


def _average_pool(operands: list[Any], given: Attributes) -> Tensor:
    """`count_include_pad` is 0 in exported files."""
    kernel, strides = list(given["kernel_shape"]), list(given["strides"])
    pads = list(given["pads"])[: len(kernel)]
    function: Any = F.avg_pool1d if len(kernel) == 1 else F.avg_pool2d
    found: Tensor = function(operands[0], kernel, strides, pads, count_include_pad=False)
    return found


def _max_pool(operands: list[Any], given: Attributes) -> Tensor:
    kernel, strides = list(given["kernel_shape"]), list(given["strides"])
    pads = list(given["pads"])[: len(kernel)]
    function: Any = F.max_pool1d if len(kernel) == 1 else F.max_pool2d
    found: Tensor = function(operands[0], kernel, strides, pads)
    return found


def _mean(operands: list[Any], given: Attributes) -> Tensor:
    x, axes = operands
    found: Tensor = x.mean(_integers(axes), keepdim=bool(given.get("keepdims", 1)))
    return found


def _layer_norm(operands: list[Any], given: Attributes) -> Tensor:
    x, gain, offset = operands
    return F.layer_norm(x, (x.shape[-1],), gain, offset, float(given["epsilon"]))


def _gelu(operands: list[Any], given: Attributes) -> Tensor:
    form = given.get("approximate", b"none")
    return F.gelu(operands[0], approximate=form.decode() if isinstance(form, bytes) else form)


def _pad(operands: list[Any], given: Attributes) -> Tensor:
    x, pads = operands[:2]
    sides = _integers(pads)
    pairs = zip(sides[: x.ndim], sides[x.ndim :], strict=True)
    return F.pad(x, [side for pair in reversed(list(pairs)) for side in pair])


def _slice(operands: list[Any], given: Attributes) -> Tensor:
    x, starts, ends, axes, steps = operands
    index: list[slice] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(*map(_integers, (starts, ends, axes, steps)), strict=True):
        index[axis] = slice(start, end, step)
    found: Tensor = x[tuple(index)]
    return found


def _resize(operands: list[Any], given: Attributes) -> Tensor:
    x, sizes = operands[0], _integers(operands[3])[2:]
    if given["mode"] == b"nearest":
        return F.interpolate(x, size=sizes, mode="nearest")
    corners = given["coordinate_transformation_mode"] == b"align_corners"
    return F.interpolate(x, size=sizes, mode="bilinear", align_corners=corners)


OPERATORS: Mapping[str, Operator] = {
    "Conv": conv,
    "Gemm": gemm,
    "MatMul": lambda given, _: torch.matmul(given[0], given[1]),
    "Add": lambda given, _: given[0] + given[1],
    "Sub": lambda given, _: given[0] - given[1],
    "Mul": lambda given, _: given[0] * given[1],
    "Relu": lambda given, _: torch.relu(given[0]),
    "HardSwish": lambda given, _: F.hardswish(given[0]),
    "Sigmoid": lambda given, _: torch.sigmoid(given[0]),
    "Tanh": lambda given, _: torch.tanh(given[0]),
    "Softmax": lambda given, how: torch.softmax(given[0], int(how["axis"])),
    "Gelu": _gelu,
    "LayerNormalization": _layer_norm,
    "Clip": _clip,
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "ReduceMean": _mean,
    "Concat": lambda given, how: torch.cat(given, int(how["axis"])),
    "Reshape": lambda given, _: given[0].reshape(_integers(given[1])),
    "Transpose": lambda given, how: given[0].permute(list(how["perm"])),
    "Pad": _pad,
    "Slice": _slice,
    "Resize": _resize,
    "Identity": lambda given, _: given[0],
}
"""ONNX operator -> its result from its operands and attributes."""
