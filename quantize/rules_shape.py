"""Normalization rules of operators that only move values: reshape, slice, concat, pad, resize."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from types import EllipsisType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edgesmith.quantize import ops
from edgesmith.quantize.draft import Call, Ref
from edgesmith.quantize.rules import rule

Index = int | slice | EllipsisType | None


@rule(
    torch.clone,
    torch.detach,
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    *("clone", "detach", "contiguous", "float", "to", "type_as"),
    shape_only=True,
)
def _identity(call: Call, input: Ref) -> Ref:
    return input


@rule(
    torch.reshape,
    torch.flatten,
    torch.squeeze,
    torch.unsqueeze,
    torch.unflatten,
    *("view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten"),
    shape_only=True,
)
def _reshape(call: Call, input: Ref) -> Ref:
    return call.reshape(input)


@rule(torch.permute, "permute")
def _permute(call: Call, input: Ref, *dims: int | Sequence[int]) -> Ref:
    order = [axis for dim in dims for axis in ([dim] if isinstance(dim, int) else dim)]
    return _transposed(call, input, [axis % input.rank for axis in order])


@rule(torch.transpose, torch.swapaxes, "transpose", "swapaxes")
def _transpose(call: Call, input: Ref, dim0: int, dim1: int) -> Ref:
    order = list(range(input.rank))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _transposed(call, input, order)


@rule(getattr)
def _attribute(call: Call, input: Ref, name: str) -> Ref:
    if name != "mT" and not (name == "T" and input.rank == 2):
        call.refuse(f"attribute {name!r} of an activation", "use transpose or reshape")
    return _transpose(call, input, -2, -1)


def _transposed(call: Call, x: Ref, order: list[int]) -> Ref:
    if order == sorted(order):
        return x
    return call.emit(ops.Transpose(tuple(order)), x)


@rule(torch.cat, torch.concat, torch.concatenate)
def _concat(call: Call, tensors: Sequence[Ref | Tensor], dim: int = 0) -> Ref:
    rank = len(call.fact.shape)
    if dim % rank in call.fact.batch_axes:
        call.refuse("it joins along the batch axis", "concatenate along another axis")
    if len(tensors) == 1 and isinstance(tensors[0], Ref):
        return tensors[0]
    return call.emit(ops.Concat(dim % rank), *tensors)


@rule(torch.chunk, torch.split, torch.unbind, "chunk", "split", "unbind")
def _pieces(call: Call, input: Ref, *rest: object, **named: object) -> tuple[Ref, ...]:
    """The results' shapes say where to cut; an unbound axis is cut into ones and dropped."""
    results = call.fact.values[0]
    axis = named.get("dim", rest[-1] if rest and (len(rest) == 2 or _unbinds(call)) else 0)
    assert isinstance(axis, int)
    axis %= input.rank
    if axis in input.batch_axes:
        call.refuse("it cuts the batch axis", "cut another axis")
    made: list[Ref] = []
    begin = 0
    for index, result in enumerate(results):
        end = begin + (1 if _unbinds(call) else result.shape[axis])
        piece = call.emit(ops.Slice(axis, begin, end), input)
        pieces = tuple(run[index] for run in call.fact.values)
        made.append(call.reshape(piece, replace(call.fact, values=pieces)))
        begin = end
    return tuple(made)


def _unbinds(call: Call) -> bool:
    return call.node.target in (torch.unbind, "unbind")


@rule(operator.getitem)
def _getitem(call: Call, input: Ref | tuple[Ref, ...], index: Index | tuple[Index, ...]) -> Ref:
    if isinstance(input, tuple):
        assert isinstance(index, int)
        return input[index]
    entries = index if isinstance(index, tuple) else (index,)
    if not all(entry is None or isinstance(entry, int | slice | EllipsisType) for entry in entries):
        call.refuse("it indexes with a tensor", "index with numbers and slices")
    result = input
    for axis, entry in enumerate(_per_axis(entries, input.rank)):
        result = _sliced(call, result, axis, entry)
    return call.reshape(result)


def _per_axis(entries: tuple[Index, ...], rank: int) -> list[int | slice]:
    """One entry per existing axis: new axes dropped, the ellipsis filled in."""
    kept = [entry for entry in entries if entry is not None]
    missing = rank - sum(not isinstance(entry, EllipsisType) for entry in kept)
    filled: list[int | slice] = []
    for entry in kept:
        filled += [slice(None)] * missing if isinstance(entry, EllipsisType) else [entry]
    return filled + [slice(None)] * (rank - len(filled))


def _sliced(call: Call, x: Ref, axis: int, entry: int | slice) -> Ref:
    size = x.shape[axis]
    if isinstance(entry, int):
        entry = slice(entry % size, entry % size + 1)
    begin, end, step = entry.indices(size)
    if (begin, end, step) == (0, size, 1):
        return x
    if axis in x.batch_axes:
        call.refuse("it takes part of the batch", "slice other axes than the batch")
    return call.emit(ops.Slice(axis, begin, max(begin, end), step), x)


@rule(F.pad, padding="pad")
def _pad(
    call: Call, input: Ref, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Ref:
    if mode != "constant" or value not in (None, 0):
        call.refuse(f"mode {mode!r}, value {value}", "pad with zeros")
    sides = [0] * (2 * input.rank - len(pad)) + [
        side for pair in reversed(list(zip(pad[::2], pad[1::2], strict=True))) for side in pair
    ]
    before, after = tuple(sides[::2]), tuple(sides[1::2])
    if min(sides) < 0 or any(before[axis] or after[axis] for axis in input.batch_axes):
        call.refuse(f"padding {tuple(pad)} crops or pads the batch", "crop by slicing")
    if not any(sides):
        return input
    return call.emit(ops.Pad(before, after), input)


@rule(F.interpolate, F.upsample)
def _resize(
    call: Call,
    input: Ref,
    size: object = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Ref:
    if input.rank != 4 or antialias or mode not in ("nearest", "bilinear"):
        call.refuse(
            f"mode {mode!r} on {input.rank} axes, antialias {antialias}",
            "use nearest or bilinear on [N, C, H, W]",
        )
    target = call.fact.shape[2:]
    if scale_factor is not None and not recompute_scale_factor:
        factors = scale_factor if isinstance(scale_factor, Sequence) else [scale_factor] * 2
        if any(s * f != t for s, f, t in zip(input.shape[2:], factors, target, strict=True)):
            call.refuse(f"scale_factor {scale_factor} does not give whole sizes", "give `size`")
    kind: Literal["nearest", "bilinear"] = "nearest" if mode == "nearest" else "bilinear"
    return call.emit(ops.Resize(target, kind, bool(align_corners)), input)
