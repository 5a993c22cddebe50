"""Running a file that `onnx_writer` wrote: its axis order and its intermediate tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from edgesmith.targets.graph.onnx_writer import TO_LOGICAL, TO_STORAGE

Codes = npt.NDArray[np.integer]


def _turn(array: Codes, order: tuple[int, ...]) -> Codes:
    """Reorder the axes behind the sample axis, for rank-4 tensors."""
    if array.ndim != 5:
        return array
    return np.ascontiguousarray(array.transpose(0, *(axis + 1 for axis in order)))


def to_storage(array: Codes) -> Codes:
    """[samples, *IR shape] -> [samples, *file shape]."""
    return _turn(array, TO_STORAGE)


def from_storage(outputs: Mapping[str, Codes]) -> dict[str, Codes]:
    """File outputs `<tensor>_q` -> IR tensors, [samples, *IR shape]."""
    return {name.removesuffix("_q"): _turn(value, TO_LOGICAL) for name, value in outputs.items()}


def has_float8(model: bytes) -> bool:
    """Whether a file has constants of an 8-bit float type, as scales' zero points are."""
    types = {onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT8E5M2}
    found = onnx.load_from_string(model).graph.initializer
    return any(item.data_type in types for item in found)


def with_outputs_of(model: bytes, kind: str) -> bytes:
    """The same model with what nodes of `kind` make of activations as graph outputs too."""
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    constants = {item.name for item in proto.graph.initializer}
    present = {item.name for item in proto.graph.output}
    known = {item.name: item for item in proto.graph.value_info}
    for node in proto.graph.node:
        name = node.output[0]
        if node.op_type == kind and node.input[0] not in constants and name not in present:
            proto.graph.output.append(known[name])
    return bytes(proto.SerializeToString(deterministic=True))
