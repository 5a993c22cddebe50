"""IntegerGraph -> TFLite, written directly: every scale, zero point and code as it is.

The FlatBuffer is made through the generated object API; nothing passes through
text or a converter. Constants are aligned to 16 bytes, as TFLite's schema asks
(`force_align`), so a runtime may map them in place. The same graph gives the
same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph.ir import DType, Graph, Op, Tensor
from edgesmith.targets.graph.tflite_codec import ENCODERS, Encoded

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
ALIGNMENT = 16

TENSOR_TYPES: dict[DType, int] = {
    DType.INT2: schema.TensorType.INT2,
    DType.INT4: schema.TensorType.INT4,
    DType.INT8: schema.TensorType.INT8,
    DType.INT16: schema.TensorType.INT16,
    DType.INT32: schema.TensorType.INT32,
    DType.INT64: schema.TensorType.INT64,
    DType.UINT8: schema.TensorType.UINT8,
    DType.FLOAT32: schema.TensorType.FLOAT32,
}


def pack_codes(codes: npt.NDArray[np.generic], dtype: DType) -> npt.NDArray[np.uint8]:
    """The bytes that TFLite stores; sub-byte codes are packed low bits first."""
    if dtype.bits >= 8:
        little = codes.astype(dtype.numpy.newbyteorder("<"), copy=False)
        return np.frombuffer(little.tobytes(), np.uint8)
    per_byte = 8 // dtype.bits
    flat = codes.reshape(-1).astype(np.uint8) & ((1 << dtype.bits) - 1)
    padded = np.zeros(-(-flat.size // per_byte) * per_byte, np.uint8)
    padded[: flat.size] = flat
    lanes = padded.reshape(-1, per_byte) << (np.arange(per_byte, dtype=np.uint8) * dtype.bits)
    return np.asarray(np.bitwise_or.reduce(lanes, axis=1), np.uint8)


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes start at a multiple of 16; the generated class ignores alignment."""

    def Pack(self, builder: Any) -> int:
        data = self.data
        if data is not None:
            builder.StartVector(1, len(data), ALIGNMENT)
            builder.head = int(builder.Head() - len(data))
            builder.Bytes[builder.head : builder.head + len(data)] = bytes(data)
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


@dataclass
class _Assembly:
    """Tables of the file while it grows; every list index is what the file refers to."""

    buffers: list[Any] = field(default_factory=lambda: [_AlignedBuffer()])
    tensors: list[Any] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    codes: dict[tuple[int, int], int] = field(default_factory=dict)

    def add_tensor(self, tensor: Tensor) -> None:
        table = schema.TensorT()
        table.name = tensor.name.encode()
        table.shape = list(tensor.shape)
        table.type = TENSOR_TYPES[tensor.dtype]
        table.hasRank = True
        table.buffer = 0
        if tensor.data is not None:
            buffer = _AlignedBuffer()
            buffer.data = pack_codes(tensor.data, tensor.dtype)
            table.buffer = len(self.buffers)
            self.buffers.append(buffer)
        if tensor.quantization is not None:
            quantization = schema.QuantizationParametersT()
            quantization.scale = tensor.quantization.scale
            quantization.zeroPoint = tensor.quantization.zero_point
            quantization.quantizedDimension = tensor.quantization.axis or 0
            table.quantization = quantization
        self.index[tensor.name] = len(self.tensors)
        self.tensors.append(table)

    def operator(self, encoded: Encoded) -> Any:
        for tensor in encoded.extra:
            if tensor.name not in self.index:
                self.add_tensor(tensor)
        table = schema.OperatorT()
        key = (encoded.code, encoded.version)
        table.opcodeIndex = self.codes.setdefault(key, len(self.codes))
        inputs = list(encoded.inputs)
        # Runtimes take a missing bias as a shorter list; -1 at its end fails to prepare.
        while inputs and not inputs[-1]:
            inputs.pop()
        table.inputs = [self.index[name] if name else -1 for name in inputs]
        table.outputs = [self.index[name] for name in encoded.outputs]
        table.builtinOptionsType = encoded.options_type
        table.builtinOptions = encoded.options
        return table


def _operator_code(code: int, version: int) -> Any:
    table = schema.OperatorCodeT()
    # Readers older than the 127th operator look at the deprecated byte only.
    table.deprecatedBuiltinCode = min(code, 127)
    table.builtinCode = code
    table.version = version
    return table


def _encode(op: Op, graph: Graph) -> list[Encoded]:
    encoder = ENCODERS.get(type(op))
    if encoder is None:
        raise UnsupportedError(
            f"{op.kind} {op.name!r} has no TFLite operator", fix="choose a target that takes it"
        )
    return list(encoder(op, graph))


def write_tflite(graph: Graph, description: str = "edgesmith") -> bytes:
    """Serialize a graph that is legal for TFLite.

    Raises:
        UnsupportedError: an operator or padding has no TFLite form.
    """
    encoded = [item for op in graph.ops for item in _encode(op, graph)]
    used = dict.fromkeys(
        name
        for names in (graph.inputs, *((*op.inputs, *op.outputs) for op in graph.ops))
        for name in names
        if name
    )
    assembly = _Assembly()
    for name in used:
        assembly.add_tensor(graph[name])
    subgraph = schema.SubGraphT()
    subgraph.name = graph.name.encode()
    subgraph.operators = [assembly.operator(item) for item in encoded]
    subgraph.tensors = assembly.tensors
    subgraph.inputs = [assembly.index[name] for name in graph.inputs]
    subgraph.outputs = [assembly.index[name] for name in graph.outputs]
    model = schema.ModelT()
    model.version = SCHEMA_VERSION
    model.description = description.encode()
    model.subgraphs = [subgraph]
    model.buffers = assembly.buffers
    model.operatorCodes = [_operator_code(*key) for key in assembly.codes]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())
