"""Operators alone, in the form that ONNX Runtime gives them inside a model.

On x86 it fuses a quantized operator only where its inputs come from a QuantizeLinear and its
output goes to a DequantizeLinear, and runs 8-bit convolutions channels-last, between transposes
that neighbours cancel. So a probe takes and gives real numbers, those of 8 bits channels-last.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgesmith.targets.graph.ir import DType, FullyConnected, Graph
from edgesmith.targets.graph.onnx_writer import TO_LOGICAL, TO_STORAGE, storage_shape, write_onnx

_OPSET, _IR = 21, 10


def probe(graph: Graph) -> bytes:
    """The ONNX file of one operator, from and to real numbers."""
    graph = _flat(graph)
    model = onnx.load_from_string(write_onnx(graph))
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    fused = all(each.dtype in (DType.INT8, DType.INT32) for each in graph.tensors.values())
    for value, name in zip(model.graph.input, graph.inputs, strict=True):
        codes, inside, four = value.name, f"{name}/inside", fused and len(graph[name].shape) == 4
        _become_real(value, f"{name}/given", graph[name].shape, channels_last=four)
        if four:
            before.append(_transpose(value.name, inside, TO_STORAGE))
        real = inside if four else value.name
        before.append(helper.make_node("QuantizeLinear", [real, *_scale(name)], [codes]))
    for value, name in zip(model.graph.output, graph.outputs, strict=True):
        codes, inside, four = value.name, f"{name}/outside", fused and len(graph[name].shape) == 4
        _become_real(value, f"{name}/taken", graph[name].shape, channels_last=four)
        real = inside if four else value.name
        after.append(helper.make_node("DequantizeLinear", [codes, *_scale(name)], [real]))
        if four:
            after.append(_transpose(inside, value.name, TO_LOGICAL))
    nodes = [*before, *model.graph.node, *after]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    probed: bytes = model.SerializeToString()
    return probed


def boundary(dtype: DType, elements: int) -> bytes:
    """A file that quantizes so many real numbers and takes them back, and does nothing else."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, elements)) for name in "xy"
    ]
    parameters = [
        numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
        numpy_helper.from_array(np.zeros((), dtype.numpy), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "boundary", values[:1], values[1:], parameters)
    opset = [helper.make_opsetid("", _OPSET)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=_IR).SerializeToString()
    return made


def _flat(graph: Graph) -> Graph:
    """A fully connected layer on rows: its reshapes cost nothing, and ONNX Runtime 1.31 fails on
    one behind a QuantizeLinear of signed codes.
    """
    (op,) = graph.ops
    if not isinstance(op, FullyConnected):
        return graph
    features = graph[op.inputs[1]].shape
    rows = graph[op.output].elements // features[0]
    flat = {
        op.inputs[0]: replace(graph[op.inputs[0]], shape=(rows, features[1])),
        op.output: replace(graph[op.output], shape=(rows, features[0])),
    }
    return replace(graph, tensors={**graph.tensors, **flat}, ops=(replace(op, keep_dims=False),))


def _scale(name: str) -> tuple[str, str]:
    """What the writer calls a tensor's scale and zero point."""
    return f"{name}/scale", f"{name}/zero_point"


def _transpose(given: str, made: str, axes: tuple[int, ...]) -> onnx.NodeProto:
    return helper.make_node("Transpose", [given], [made], perm=axes)


def _become_real(
    value: onnx.ValueInfoProto, name: str, shape: tuple[int, ...], *, channels_last: bool
) -> None:
    stored = shape if channels_last else storage_shape(shape)
    value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, stored))
