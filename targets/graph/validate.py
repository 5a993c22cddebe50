"""The invariants of an IntegerGraph, checked between every two phases.

Readers and rewrites end with `verify`, so that a fault is reported where it was
made and names the tensor, not where a target later trips over it.
"""

from __future__ import annotations

import math

import numpy as np

from edgesmith.pipeline.errors import ModelFileError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Op, Quantization, Tensor
from edgesmith.targets.graph.shapes import infer

MAX_ELEMENTS = 1 << 31
MAX_RANK = 8
MAX_OPERANDS = 1 << 16
_OPERANDS: dict[type[Op], tuple[int, int]] = {
    **dict.fromkeys((ir.Conv2D, ir.DepthwiseConv2D, ir.FullyConnected, ir.LayerNorm), (2, 3)),
    **dict.fromkeys((ir.BatchMatMul, ir.Add, ir.Sub, ir.Mul), (2, 2)),
    ir.Concat: (1, MAX_OPERANDS),
}
"""The fewest and most operands of every kind that does not have exactly one."""
_FIX = "export the model again; if edgesmith made this graph itself, please report it"


def takes_operands(kind: type[Op], fewest: int, most: int) -> None:
    """Register how many operands an operator kind has, where not exactly one."""
    _OPERANDS[kind] = (fewest, most)


def _fault(message: str) -> ModelFileError:
    return ModelFileError(message, fix=_FIX)


def verify(graph: Graph) -> Graph:
    """Check every invariant of the IR and return the graph as it is.

    Operators have as many operands as their kind takes, read only what is an
    input, a constant or already produced, and assign every tensor once; shapes
    follow from shape inference; no graph output is a constant; integer tensors
    are quantized, activations per tensor, with finite positive scales, zero
    points inside their type and axes inside their shape; codes and padding values fit their type.

    Raises:
        ModelFileError: an invariant does not hold; the message names the tensor.
    """
    for name, tensor in graph.tensors.items():
        if name != tensor.name:
            raise _fault(f"tensor {tensor.name!r} is filed as {name!r}")
        _check_tensor(tensor)
    known = _check_ends(graph)
    names: set[str] = set()
    for op in graph.ops:
        if op.name in names:
            raise _fault(f"two operators are named {op.name!r}")
        names.add(op.name)
        _check_op(graph, op, known)
    missing = [name for name in graph.outputs if name not in known]
    if missing:
        raise _fault(f"graph output {missing[0]!r} is never produced")
    for tensor in graph.activations():
        if tensor.quantization is not None and tensor.quantization.is_per_channel:
            raise _fault(f"activation {tensor.name!r} has a scale per channel")
    return graph


def _check_ends(graph: Graph) -> set[str]:
    """The tensors that exist before the first operator runs."""
    for name in (*graph.inputs, *graph.outputs):
        if name not in graph.tensors:
            raise _fault(f"graph input or output {name!r} is not among the tensors")
    # Outputs may repeat: a model that returns one tensor twice, or its copy, is read as that.
    if len(set(graph.inputs)) != len(graph.inputs):
        raise _fault(f"graph inputs {list(graph.inputs)} repeat a tensor")
    constants = {tensor.name for tensor in graph.constants()}
    for what, names in (("input", graph.inputs), ("output", graph.outputs)):
        both = constants.intersection(names)
        if both:
            raise _fault(f"graph {what} {min(both)!r} is a constant")
    return constants.union(graph.inputs)


def _check_op(graph: Graph, op: Op, known: set[str]) -> None:
    fewest, most = _OPERANDS.get(type(op), (1, 1))
    if not fewest <= len(op.inputs) <= most:
        raise _fault(
            f"{op.kind} {op.name!r} has {len(op.inputs)} operands, expected "
            f"{fewest if fewest == most else f'{fewest} to {most}'}"
        )
    for name in (*filter(None, op.inputs), *op.outputs):
        if name not in graph.tensors:
            raise _fault(f"{op.kind} {op.name!r} names the unknown tensor {name!r}")
    for name in filter(None, op.inputs):
        if name not in known:
            raise _fault(f"{op.kind} {op.name!r} reads tensor {name!r} before it is produced")
    for name in op.outputs:
        if name in known:
            raise _fault(f"{op.kind} {op.name!r} assigns tensor {name!r} a second time")
        known.add(name)
    for name, shape in zip(op.outputs, infer(op, graph.operands(op)), strict=True):
        if graph[name].shape != shape:
            raise _fault(
                f"tensor {name!r} has shape {list(graph[name].shape)}, but {op.kind} "
                f"{op.name!r} produces {list(shape)}"
            )
    if isinstance(op, ir.Pad) and op.value is not None:
        dtype = graph[op.output].dtype
        if dtype.is_integer and not dtype.qmin <= op.value <= dtype.qmax:
            raise _fault(f"{op.kind} {op.name!r} pads with {op.value}, which is no {dtype} code")


def _check_tensor(tensor: Tensor) -> None:
    shape = tensor.shape
    if len(shape) > MAX_RANK or min(shape, default=1) < 1 or math.prod(shape) > MAX_ELEMENTS:
        raise _fault(
            f"tensor {tensor.name!r} has shape {list(shape)}; expected at most {MAX_RANK} axes, "
            f"each at least 1, and at most {MAX_ELEMENTS} elements"
        )
    if tensor.quantization is not None:
        _check_quantization(tensor, tensor.quantization)
    elif tensor.dtype.is_integer:
        raise _fault(f"{tensor.dtype} tensor {tensor.name!r} has no scale and zero point")
    if tensor.data is not None:
        _check_data(tensor, tensor.data)


def _check_quantization(tensor: Tensor, quantization: Quantization) -> None:
    name, scale, zero = tensor.name, quantization.scale, quantization.zero_point
    if not tensor.dtype.is_integer:
        raise _fault(f"float tensor {name!r} has a quantization")
    axis = quantization.axis
    if axis is not None and not 0 <= axis < len(tensor.shape):
        raise _fault(f"tensor {name!r} is quantized along axis {axis} of {len(tensor.shape)}")
    expected = 1 if axis is None else tensor.shape[axis]
    if scale.shape != (expected,) or zero.shape != (expected,):
        raise _fault(
            f"tensor {name!r} has {scale.size} scales and {zero.size} zero points, "
            f"expected {expected}"
        )
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise _fault(f"tensor {name!r} has a scale that is not finite and positive")
    if zero.min() < tensor.dtype.qmin or zero.max() > tensor.dtype.qmax:
        raise _fault(f"tensor {name!r} has a zero point outside {tensor.dtype}")


def _check_data(tensor: Tensor, data: np.ndarray) -> None:
    name = tensor.name
    if data.shape != tensor.shape or data.dtype != tensor.dtype.numpy:
        raise _fault(
            f"constant {name!r} holds {data.dtype}{list(data.shape)}, "
            f"expected {tensor.dtype.numpy}{list(tensor.shape)}"
        )
    if tensor.dtype is DType.FLOAT32:
        if not np.isfinite(data).all():
            raise _fault(f"constant {name!r} holds NaN or infinite values")
    elif tensor.dtype.bits < 8 and not (
        tensor.dtype.qmin <= data.min() and data.max() <= tensor.dtype.qmax
    ):
        raise _fault(f"constant {name!r} holds codes outside {tensor.dtype}")
