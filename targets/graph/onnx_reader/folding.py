"""Arithmetic on what is known while reading: shapes, axes, sizes and plain constants.

torch exports `view` and `flatten` as Shape, Gather and Concat nodes; all of it is
computed here, in NumPy, with ONNX's rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import AttributeProto, TensorProto

from edgesmith.pipeline.errors import ModelFileError, UnsupportedError
from edgesmith.targets.graph.ir import Array
from edgesmith.targets.graph.onnx_reader.model import Model, Node
from edgesmith.targets.graph.onnx_reader.values import Constant, Value

MAX_FOLDED = 1 << 24
"""Elements that a folded constant may have: shape arithmetic is small, hostile files are not."""

Folder = Callable[[Node, Sequence[Array]], Array]
_CASTS: Mapping[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float32,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
    TensorProto.BOOL: np.bool_,
    TensorProto.INT8: np.int8,
    TensorProto.UINT8: np.uint8,
}


def fold(node: Node, operands: Sequence[Value | None], model: Model) -> tuple[Constant, ...] | None:
    """The node's result where all it needs is known; None where it has to be translated.

    Raises:
        ModelFileError: the operands do not fit.
        UnsupportedError: the result would be absurdly large.
    """
    if node.op == "Constant":
        return (_stored(node, model),)
    if node.op in ("Shape", "Size") and operands and operands[0] is not None:
        shape = np.array(operands[0].shape, np.int64)
        if node.op == "Size":
            return (Constant(np.array(math.prod(operands[0].shape), np.int64), node.outputs[0]),)
        start, end = node.integer("start"), node.integer("end", len(shape))
        return (Constant(shape[start:end], node.outputs[0]),)
    folder = _FOLDERS.get(node.op)
    known = [item for item in operands if isinstance(item, Constant) and not item.is_codes]
    if len(known) != len(operands) or not node.outputs:
        return None
    if node.op == "ConstantOfShape" and known:
        return (_filled(node, known[0], model),)
    if folder is None:
        return None
    arrays = [item.array for item in known]
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(folder(node, arrays))
    except (ValueError, IndexError, OverflowError, TypeError, ZeroDivisionError) as error:
        raise ModelFileError(
            f"{node.title} cannot be computed from its constants: {error}",
            fix="export the model again",
        ) from error
    if result.dtype == np.float64:
        result = result.astype(np.float32)
    return (Constant(result, node.outputs[0]),)


def _stored(node: Node, model: Model) -> Constant:
    label = next(filter(None, node.outputs), node.name)
    for name, attribute in node.attributes.items():
        if name == "value" and attribute.type == AttributeProto.TENSOR:
            return model.decode(attribute.t, label)
        if name in ("value_float", "value_floats"):
            values = attribute.f if name == "value_float" else list(attribute.floats)
            return Constant(np.array(values, np.float32), label)
        if name in ("value_int", "value_ints"):
            values = attribute.i if name == "value_int" else list(attribute.ints)
            return Constant(np.array(values, np.int64), label)
    raise UnsupportedError(
        f"{node.title} holds neither a dense tensor nor numbers", fix="export the model again"
    )


def _limited(node: Node, shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    if min(sizes, default=0) < 0 or math.prod(sizes) > MAX_FOLDED:
        raise UnsupportedError(
            f"{node.title} would make a constant of shape {list(sizes)}",
            fix="compute it in the model from smaller constants",
        )
    return sizes


def _filled(node: Node, shape: Constant, model: Model) -> Constant:
    sizes = _limited(node, shape.array.reshape(-1).tolist())
    stored = node.attributes.get("value")
    value: Array = np.zeros(1, np.float32)
    if stored is not None and stored.type == AttributeProto.TENSOR:
        value = model.decode(stored.t, node.title).array.reshape(-1)
    if value.size != 1:
        raise ModelFileError(f"{node.title} fills with {value.size} values", fix="export it again")
    return Constant(np.full(sizes, value[0]), node.outputs[0])


def _gather(node: Node, arrays: Sequence[Array]) -> Array:
    return np.take(arrays[0], arrays[1].astype(np.int64), axis=node.integer("axis"))


def _concat(node: Node, arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays, axis=node.integer("axis"))


def _cast(node: Node, arrays: Sequence[Array]) -> Array:
    kind = _CASTS.get(node.integer("to"))
    if kind is None:
        raise UnsupportedError(f"{node.title} casts to an unknown type", fix="use float32 or int64")
    return arrays[0].astype(kind)


def _slice(node: Node, arrays: Sequence[Array]) -> Array:
    data, starts, ends = arrays[:3]
    axes = arrays[3] if len(arrays) > 3 else np.arange(starts.size)
    steps = arrays[4] if len(arrays) > 4 else np.ones(starts.size, np.int64)
    index: list[slice] = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # A backward slice to before the start is written as a large negative end.
        last = None if step < 0 and end < -data.shape[axis] else int(end)
        index[int(axis)] = slice(int(start), last, int(step))
    return data[tuple(index)]


def _range(node: Node, arrays: Sequence[Array]) -> Array:
    start, limit, delta = (array.reshape(-1)[0].item() for array in arrays[:3])
    _limited(node, [max(0, math.ceil((limit - start) / delta))])
    return np.arange(start, limit, delta, dtype=arrays[0].dtype)


def _expand(node: Node, arrays: Sequence[Array]) -> Array:
    target = _limited(node, arrays[1].reshape(-1).tolist())
    return arrays[0] * np.ones(_limited(node, np.broadcast_shapes(arrays[0].shape, target)), bool)


def _divide(node: Node, arrays: Sequence[Array]) -> Array:
    if arrays[0].dtype.kind == "f":
        return np.divide(arrays[0], arrays[1])
    if not np.all(arrays[1]):
        raise ZeroDivisionError("division by zero")
    return np.trunc(np.divide(arrays[0], arrays[1])).astype(arrays[0].dtype)


def _reduce_product(node: Node, arrays: Sequence[Array]) -> Array:
    axes = node.integers("axes")
    if axes is None and len(arrays) > 1:
        axes = tuple(int(axis) for axis in arrays[1].reshape(-1))
    values = arrays[0].astype(np.int64)
    return np.asarray(np.prod(values, axis=axes, keepdims=bool(node.integer("keepdims", 1))))


def _numpy(function: Callable[..., Array]) -> Folder:
    def folder(node: Node, arrays: Sequence[Array]) -> Array:
        _limited(node, np.broadcast_shapes(*(array.shape for array in arrays)))
        return function(*arrays)

    return folder


_FOLDERS: Mapping[str, Folder] = {
    "Add": _numpy(np.add),
    "Sub": _numpy(np.subtract),
    "Mul": _numpy(np.multiply),
    "Div": _divide,
    "Pow": _numpy(np.power),
    "Neg": _numpy(np.negative),
    "Abs": _numpy(np.abs),
    "Sqrt": _numpy(np.sqrt),
    "Floor": _numpy(np.floor),
    "Ceil": _numpy(np.ceil),
    "Reciprocal": _numpy(np.reciprocal),
    "Equal": _numpy(np.equal),
    "Less": _numpy(np.less),
    "Greater": _numpy(np.greater),
    "Not": _numpy(np.logical_not),
    "And": _numpy(np.logical_and),
    "Or": _numpy(np.logical_or),
    "Where": _numpy(np.where),
    "Min": _numpy(np.minimum),
    "Max": _numpy(np.maximum),
    "ReduceProd": _reduce_product,
    "Gather": _gather,
    "Concat": _concat,
    "Cast": _cast,
    "Slice": _slice,
    "Range": _range,
    "Expand": _expand,
}
FOLDED = frozenset((*_FOLDERS, "Constant", "ConstantOfShape", "Shape", "Size"))
"""Operators that may be computed while reading."""
