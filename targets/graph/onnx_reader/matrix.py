"""Gemm and MatMul: fully connected where the matrix is constant, batched products otherwise.

A fully connected layer that reads a flattened image multiplies memory as it
lies: its weight's columns are put into memory's order instead of transposing
the image (y = W x = W[:, p] x[p] for every permutation p).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np

from edgesmith.targets.graph import ir
from edgesmith.targets.graph.onnx_reader.layout import View
from edgesmith.targets.graph.onnx_reader.site import Site, operator
from edgesmith.targets.graph.onnx_reader.values import Activation, Constant, Value


def _rows_first(site: Site, value: Activation) -> tuple[Activation, tuple[int, ...]]:
    """The value with its last ONNX axis innermost, and that axis' atoms in memory's order."""
    view = value.view
    memory = tuple(chain.from_iterable(view.physical))
    rows = tuple(chain.from_iterable(view.logical[:-1]))
    columns = memory[len(rows) :]
    if memory[: len(rows)] != rows:
        value = site.importer.arrange(value, view.identity)
        columns = view.logical[-1]
    if view.rank > 2:
        value = site.importer.arrange(value, (*view.logical[:-1], columns))
    return value, columns


def _fully_connected(
    site: Site, value: Activation, weight: Constant, bias: Constant | None
) -> Activation:
    """weight [O, I] in ONNX's column order."""
    if value.view.rank < 2 or value.shape[-1] != weight.shape[1]:
        site.broken(f"multiplies {list(value.shape)} by {list(weight.shape[::-1])}")
    value, memory = _rows_first(site, value)
    columns = value.view.columns(memory)
    if columns is not None:
        if weight.quantization is not None and weight.quantization.axis == 1:
            site.refuse("has a weight quantized per input", "quantize per output channel")
        weight = weight.columns(columns)
    names = [value.tensor, site.importer.constant(weight)]
    if bias is not None:
        names.append(site.importer.constant(bias))
    tensor = site.emit(ir.FullyConnected, names, keep_dims=value.view.rank > 2)
    view = View.of((*value.shape[:-1], weight.shape[0]))
    return site.made(tensor, view, image=False)


@operator("Gemm")
def _gemm(site: Site) -> Activation:
    node = site.node
    weight = site.constant(1, "matrix")
    if weight.array.ndim != 2:
        site.broken(f"has a matrix of shape {list(weight.shape)}")
    value = site.activation(0)
    if value.view.rank != 2:
        site.broken(f"multiplies {list(value.shape)}")
    if node.integer("transA"):
        value = value.viewed(value.view.transposed((1, 0)))
    if not node.integer("transB"):
        weight = weight.transposed((1, 0))
    bias = site.constant(2, "bias") if site.has(2) else None
    weight = _scaled(site, weight, node.number("alpha", 1.0))
    if bias is not None:
        bias = _bias(site, _scaled(site, bias, node.number("beta", 1.0)), weight.shape[0])
    return _fully_connected(site, value, weight, bias)


def _scaled(site: Site, constant: Constant, factor: float) -> Constant:
    if factor == 1.0:
        return constant
    if constant.is_codes:
        site.refuse(f"multiplies by {factor}", "fold alpha and beta into the weights")
    return replace(constant, array=np.asarray(constant.array, np.float32) * np.float32(factor))


def _bias(site: Site, bias: Constant, channels: int) -> Constant:
    """A vector of one value per output channel."""
    if bias.array.size == 1 and not bias.is_codes:
        return replace(bias, array=np.full(channels, bias.array.reshape(-1)[0], np.float32))
    if bias.array.size != channels or bias.shape[-1:] != (channels,):
        site.broken(f"has a bias of shape {list(bias.shape)} for {channels} outputs")
    vector = bias.reshaped((channels,))
    if vector is None:
        site.broken("has a bias quantized along an axis it does not have")
    return vector


@operator("MatMul")
def _matmul(site: Site) -> Activation:
    left, right = site.value(0), site.value(1)
    if isinstance(left, Activation) and isinstance(right, Constant) and right.array.ndim == 2:
        return _fully_connected(site, site.activation(0), right.transposed((1, 0)), None)
    shapes = left.shape, right.shape
    rank = max(len(shape) for shape in shapes)
    if min(len(shape) for shape in shapes) < 2:
        site.refuse(f"multiplies {list(shapes[0])} by {list(shapes[1])}", "multiply matrices only")
    first, adjoint_x = _operand(site, 0, left, rank)
    second, adjoint_y = _operand(site, 1, right, rank)
    tensor = site.emit(ir.BatchMatMul, [first, second], adjoint_x=adjoint_x, adjoint_y=adjoint_y)
    return site.made(tensor, View.of(tensor.shape), image=False)


def _operand(site: Site, position: int, value: Value, rank: int) -> tuple[str, bool]:
    """The tensor of one factor in ONNX's order, or with its last two axes swapped and True."""
    if isinstance(value, Constant):
        whole = value.reshaped((1,) * (rank - value.array.ndim) + value.shape)
        if whole is None:
            site.refuse("has a factor quantized per channel", "quantize it per tensor")
        return site.importer.constant(whole), False
    value = site.activation(position)
    view = value.view.padded(rank)
    value = replace(value, view=view)
    swapped = (*view.logical[:-2], view.logical[-1], view.logical[-2])
    adjoint = site.importer.cost(value, swapped) < site.importer.cost(value, view.identity)
    moved = site.importer.arrange(value, swapped if adjoint else view.identity)
    return moved.tensor, adjoint
