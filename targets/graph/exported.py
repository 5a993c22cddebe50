"""An exported QDQ file with 8-bit floats, as a graph to look at: tensors and fusable groups.

Such a model has no integer arithmetic, so no IntegerGraph. This reads the file that
`quantize.export` wrote as it is, in ONNX's axis order, so that parity compares what ships
and reports list its layers. Nothing executes these operators.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper

from edgesmith.pipeline.errors import ModelFileError
from edgesmith.targets.graph.ir import DType, Graph, Op, Quantization, Tensor

_DTYPES = {
    TensorProto.FLOAT8E4M3FN: DType.FLOAT8E4M3FN,
    TensorProto.FLOAT8E5M2: DType.FLOAT8E5M2,
    TensorProto.FLOAT: DType.FLOAT32,
    TensorProto.INT4: DType.INT4,
    TensorProto.INT8: DType.INT8,
    TensorProto.INT16: DType.INT16,
    TensorProto.INT32: DType.INT32,
}
_MULTIPLYING = ("Conv", "Gemm", "MatMul")
_CLAMPS = ("Relu", "Clip")


@dataclass(frozen=True)
class OnnxOp(Op):
    """A fusable group of an exported file; its kind is the ONNX operator that it is about."""

    macs: int = 0


@cache
def _kind(operator: str) -> type[OnnxOp]:
    return type(operator, (OnnxOp,), {"__module__": __name__})


def read_exported(data: bytes, name: str) -> Graph:
    """The tensors and groups of a file that `quantize.export` wrote.

    Raises:
        ModelFileError: the file is damaged or of another form.
    """
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
        return _Reader(model).read(name)
    except (KeyError, ValueError, IndexError, DecodeError) as error:
        raise ModelFileError(
            f"{name!r} is no QDQ file as edgesmith exports it: {error}",
            fix="export the model again",
        ) from error


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.initializers = {item.name: item for item in model.graph.initializer}
        self.producers = {node.output[0]: node for node in model.graph.node}
        known = (*model.graph.value_info, *model.graph.input, *model.graph.output)
        self.shapes = {
            item.name: tuple(d.dim_value for d in item.type.tensor_type.shape.dim) for item in known
        }
        self.tensors: dict[str, Tensor] = {}
        self.real: dict[str, str] = {}  # value in the file -> tensor whose real values it has

    def read(self, name: str) -> Graph:
        inputs = tuple(item.name for item in self.graph.input)
        for source in inputs:
            self._activation(source, source, None)
        ops = []
        for node in self.graph.node:
            if node.op_type == "DequantizeLinear":
                self._dequantize(node)
            elif node.op_type == "Identity":
                self._activation(node.output[0], node.output[0], None)
            if node.output[0] in self.real and self._is_activation(node.output[0]):
                ops.append(self._group(node))
        outputs = tuple(self.real[item.name] for item in self.graph.output)
        return Graph(name, self.tensors, tuple(ops), inputs, outputs)

    def _is_activation(self, name: str) -> bool:
        return not self.tensors[self.real[name]].is_constant

    def _dequantize(self, node: onnx.NodeProto) -> None:
        scale = np.asarray(numpy_helper.to_array(self.initializers[node.input[1]]), np.float32)
        zero = self.initializers[node.input[2]]
        axis = next((a.i for a in node.attribute if a.name == "axis"), None) if scale.ndim else None
        zeros = np.zeros(scale.size, np.int64)
        if _DTYPES[zero.data_type].is_integer:
            zeros = np.asarray(numpy_helper.to_array(zero), np.int64).reshape(-1)
        quantization = Quantization(scale.reshape(-1), zeros, axis)
        source = self.producers.get(node.input[0])
        if source is not None and source.op_type == "Clip":
            codes = source.input[0]
        else:
            codes = node.input[0]
        if codes not in self.initializers:
            dtype = _DTYPES[zero.data_type]
            made = Tensor(node.output[0], self.shapes[node.output[0]], dtype, quantization)
            self.tensors[made.name] = made
            self.real[node.output[0]] = made.name
            return
        self._constant(codes, quantization)
        self.real[node.output[0]] = codes

    def _constant(self, name: str, quantization: Quantization | None) -> None:
        proto = self.initializers[name]
        dtype = _DTYPES[proto.data_type]
        made = Tensor(name, tuple(proto.dims), dtype, quantization, _stored(proto, dtype))
        self.tensors[name] = made
        self.real[name] = name

    def _activation(self, value: str, name: str, quantization: Quantization | None) -> None:
        self.tensors[name] = Tensor(name, self.shapes[value], DType.FLOAT32, quantization)
        self.real[value] = name

    def _group(self, node: onnx.NodeProto) -> OnnxOp:
        """The group whose output `node` is: everything back to other groups' outputs."""
        nodes = list(self._behind(node))
        about = [each for each in nodes if each.op_type in _MULTIPLYING]
        about += [each for each in nodes if each.op_type not in _CLAMPS]
        operands = {
            self.real[value]: None
            for each in reversed(nodes)
            for value in each.input
            if self._operand(value)
        }
        kind = about[0].op_type if about else "Quantize"
        inputs = tuple(operands) or (self.graph.input[0].name,)
        output = self.real[node.output[0]]
        return _kind(kind)(output, inputs, (output,), self._macs(kind, inputs, output))

    def _behind(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The nodes of the group, from its last one on, quantizers left out."""
        source = node.input[0]
        made = self.producers.get(source)
        while made is not None and made.op_type in ("QuantizeLinear", "Clip"):
            if made.op_type == "Clip" and not self._clips_codes(made):
                break
            source = made.input[0]
            made = self.producers.get(source)
        waiting = [source]
        while waiting:
            value = waiting.pop(0)
            found = self.producers.get(value)
            if value in self.real or found is None:
                continue
            yield found
            waiting += list(found.input)

    def _clips_codes(self, node: onnx.NodeProto) -> bool:
        made = self.producers.get(node.input[0])
        return made is not None and made.op_type == "QuantizeLinear"

    def _operand(self, value: str) -> bool:
        """Whether a value is a tensor of the model; float initializers become one here."""
        if value in self.real:
            return True
        if value not in self.initializers or value.count("/"):
            return False
        if self.initializers[value].data_type != TensorProto.FLOAT:
            return False
        self._constant(value, None)
        return True

    def _macs(self, kind: str, inputs: tuple[str, ...], output: str) -> int:
        if kind not in _MULTIPLYING:
            return 0
        weights = [self.tensors[each] for each in inputs if self.tensors[each].data is not None]
        weights = [each for each in weights if len(each.shape) > 1]
        if not weights:
            return self.tensors[output].elements * self.tensors[inputs[0]].shape[-1]
        return self.tensors[output].elements * math.prod(weights[0].shape[1:])


def _stored(proto: onnx.TensorProto, dtype: DType) -> npt.NDArray[np.generic]:
    array = numpy_helper.to_array(proto)
    if dtype.is_float8:
        return array.view(np.uint8)
    return np.asarray(array.astype(dtype.numpy))
