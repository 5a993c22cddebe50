"""TFLite file -> IntegerGraph, with every offset, length and index checked.

The file is hostile until proven otherwise: the generated accessors read only
where asked, vector lengths are capped by the file's size before anything is
allocated, and whatever an accessor trips over becomes a `ModelFileError`.

A leading QUANTIZE from float and a trailing DEQUANTIZE to float are removed:
an IntegerGraph takes and gives codes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import ModelFileError, UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import Array, DType, Graph, Op, Quantization, Tensor
from edgesmith.targets.graph.tflite_codec import BUILTIN_NAMES, DECODERS, OPTIONS
from edgesmith.targets.graph.tflite_writer import TENSOR_TYPES
from edgesmith.targets.graph.validate import verify

_DTYPES = {code: dtype for dtype, code in TENSOR_TYPES.items()}
_TYPE_NAMES = {value: name for name, value in vars(schema.TensorType).items() if name.isupper()}
_MALFORMED = (struct.error, LookupError, ValueError, TypeError, ArithmeticError)
_WEIGHTED = (ir.Conv2D, ir.DepthwiseConv2D, ir.FullyConnected)
_MAX_ELEMENTS = 1 << 31
_MAX_RANK = 8


def unpack_codes(raw: npt.NDArray[np.uint8], dtype: DType, elements: int) -> Array:
    """Codes, one per element, of what `tflite_writer.pack_codes` packs.

    Raises:
        ValueError: `raw` has fewer bytes than `elements` need.
    """
    need = (elements * dtype.bits + 7) // 8
    if raw.size < need:
        raise ValueError(f"buffer has {raw.size} bytes where {need} are needed")
    if dtype.bits >= 8:
        return np.frombuffer(raw[:need].tobytes(), dtype.numpy.newbyteorder("<")).astype(
            dtype.numpy
        )
    per_byte = 8 // dtype.bits
    shifts = np.arange(per_byte, dtype=np.uint8) * dtype.bits
    lanes = (raw[:need, None] >> shifts & ((1 << dtype.bits) - 1)).reshape(-1)[:elements]
    sign = 1 << (dtype.bits - 1)
    return ((lanes.astype(np.int8) ^ sign) - sign).astype(np.int8)


@dataclass
class _OperatorSource:
    """One operator of the file, as the codecs see it."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Any
    kind: str
    tensors: dict[str, Tensor]

    def tensor(self, position: int) -> Tensor:
        if position >= len(self.inputs) or not self.inputs[position]:
            raise ModelFileError(
                f"{self.kind} {self.name!r} lacks its input {position}", fix="re-export the model"
            )
        return self.tensors[self.inputs[position]]

    def result(self) -> Tensor:
        if not self.outputs:
            raise ModelFileError(f"{self.kind} {self.name!r} has no output", fix="re-export it")
        return self.tensors[self.outputs[0]]

    def integers(self, position: int) -> tuple[int, ...]:
        data = self.tensor(position).data
        if data is None:
            raise UnsupportedError(
                f"{self.kind} {self.name!r}: input {position} is computed at run time",
                fix="export the model with static shapes and parameters",
            )
        return tuple(int(value) for value in data.reshape(-1))

    def refuse(self, reason: str, fix: str) -> UnsupportedError:
        return UnsupportedError(f"{self.kind} {self.name!r}: {reason}", fix=fix)


class _File:
    """The tables of one file, read once."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.model: Any = schema.Model.GetRootAs(data, 0)
        version = self.model.Version()
        if version != 3:
            raise ModelFileError(f"schema version {version}, expected 3", fix="re-export the model")
        if self.model.SubgraphsLength() != 1:
            raise UnsupportedError(
                f"{self.model.SubgraphsLength()} subgraphs; control flow has no integer form",
                fix="export a model without while, if or call operators",
            )
        self.subgraph: Any = self.model.Subgraphs(0)
        self.names = self._unique_names()

    def bounded(self, length: int, what: str) -> int:
        """A vector length that the file can hold: at least four bytes an element."""
        if not 0 <= length <= self.size // 4:
            raise ModelFileError(f"{what}: length {length} exceeds the file", fix="re-export it")
        return length

    def _unique_names(self) -> list[str]:
        names: list[str] = []
        seen: set[str] = set()
        for index in range(self.bounded(self.subgraph.TensorsLength(), "tensors")):
            raw = self.subgraph.Tensors(index).Name()
            name = raw.decode("utf-8") if raw else f"tensor_{index}"
            if name in seen:
                name = f"{name}#{index}"
            seen.add(name)
            names.append(name)
        return names

    def buffer(self, index: int) -> npt.NDArray[np.uint8] | None:
        if not 0 <= index < self.bounded(self.model.BuffersLength(), "buffers"):
            raise ModelFileError(f"buffer index {index} out of range", fix="re-export the model")
        buffer = self.model.Buffers(index)
        offset, size = buffer.Offset(), buffer.Size()
        if offset > 1:
            raise UnsupportedError(
                f"buffer {index} lies outside the FlatBuffer ({size} bytes at {offset})",
                fix="export the model without external buffers (it exceeds 2 GB)",
            )
        if buffer.DataLength() == 0:
            return None
        return np.asarray(buffer.DataAsNumpy(), np.uint8)

    def tensors(self) -> Iterator[Tensor]:
        for index, name in enumerate(self.names):
            yield self._tensor(self.subgraph.Tensors(index), name)

    def _tensor(self, table: Any, name: str) -> Tensor:
        dtype = _DTYPES.get(table.Type())
        if dtype is None:
            raise UnsupportedError(
                f"tensor {name!r} has type {_TYPE_NAMES.get(table.Type(), table.Type())}",
                fix="use a full-integer model (int8 or int16 activations)",
            )
        if table.IsVariable() or table.Sparsity() is not None:
            raise UnsupportedError(
                f"tensor {name!r} is variable or sparse", fix="export dense, stateless tensors"
            )
        shape = self._shape(table, name)
        raw = self.buffer(table.Buffer())
        data = None
        if raw is not None:
            data = unpack_codes(raw, dtype, math.prod(shape)).reshape(shape)
        return Tensor(name, shape, dtype, self._quantization(table, name, shape), data)

    def _shape(self, table: Any, name: str) -> tuple[int, ...]:
        shape = tuple(table.Shape(axis) for axis in range(min(table.ShapeLength(), _MAX_RANK + 1)))
        if len(shape) > _MAX_RANK or min(shape, default=1) < 1 or math.prod(shape) > _MAX_ELEMENTS:
            raise ModelFileError(
                f"tensor {name!r} has shape {list(shape)}", fix="export positive static shapes"
            )
        signature = range(1, min(table.ShapeSignatureLength(), len(shape)))
        dynamic = [axis for axis in signature if table.ShapeSignature(axis) < 0]
        if dynamic:
            raise UnsupportedError(
                f"tensor {name!r} has dynamic axes {dynamic}",
                fix="export the model with static shapes (only the batch may be dynamic)",
            )
        return shape

    def _quantization(
        self,
        table: Any,
        name: str,
        shape: tuple[int, ...],
    ) -> Quantization | None:
        stored = table.Quantization()
        if stored is None or stored.ScaleLength() == 0:
            return None
        count = self.bounded(stored.ScaleLength(), f"scales of {name!r}")
        scale = np.asarray(stored.ScaleAsNumpy(), np.float32).copy()
        zero = np.zeros(count, np.int64)
        if stored.ZeroPointLength():
            zero = np.asarray(stored.ZeroPointAsNumpy(), np.int64).copy()
        if zero.size != scale.size:
            raise ModelFileError(
                f"tensor {name!r} has {scale.size} scales and {zero.size} zero points",
                fix="re-export the model",
            )
        if count == 1:
            return Quantization(scale, zero)
        axis = stored.QuantizedDimension()
        if not 0 <= axis < len(shape) or shape[axis] != count:
            raise ModelFileError(
                f"tensor {name!r} of shape {list(shape)} has {count} scales on axis {axis}",
                fix="re-export the model",
            )
        return Quantization(scale, zero, axis)

    def _indices(self, length: int, at: Any, what: str) -> tuple[str, ...]:
        found: list[str] = []
        for position in range(self.bounded(length, what)):
            index = at(position)
            if not -1 <= index < len(self.names):
                raise ModelFileError(f"{what}: tensor index {index} out of range", fix="re-export")
            found.append(self.names[index] if index >= 0 else "")
        return tuple(found)

    def ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        graph = self.subgraph
        inputs = self._indices(graph.InputsLength(), graph.Inputs, "graph inputs")
        outputs = self._indices(graph.OutputsLength(), graph.Outputs, "graph outputs")
        return inputs, outputs

    def operators(self, tensors: dict[str, Tensor]) -> Iterator[Op]:
        codes = self._codes()
        unknown: list[str] = []
        for position in range(self.bounded(self.subgraph.OperatorsLength(), "operators")):
            table = self.subgraph.Operators(position)
            if not 0 <= table.OpcodeIndex() < len(codes):
                raise ModelFileError(
                    f"operator {position} has opcode index {table.OpcodeIndex()}", fix="re-export"
                )
            code, kind = codes[table.OpcodeIndex()]
            what = f"operator {position} ({kind})"
            inputs = self._indices(table.InputsLength(), table.Inputs, what)
            outputs = self._indices(table.OutputsLength(), table.Outputs, what)
            if not (inputs and inputs[0] and all(outputs) and outputs):
                raise ModelFileError(f"{what} lacks an input or output", fix="re-export the model")
            name = outputs[0]
            if code not in DECODERS:
                unknown.append(f"{kind} {name!r}")
                continue
            source = _OperatorSource(
                name, inputs, outputs, self._options(table, code, what), kind, tensors
            )
            yield DECODERS[code](source)
        if unknown:
            raise UnsupportedError(
                f"no integer form for {', '.join(unknown)}",
                fix="replace these operators in the model, or keep them outside of it",
            )

    def _codes(self) -> list[tuple[int, str]]:
        found = []
        for index in range(self.bounded(self.model.OperatorCodesLength(), "operator codes")):
            table = self.model.OperatorCodes(index)
            code = max(table.DeprecatedBuiltinCode(), table.BuiltinCode())
            custom = table.CustomCode()
            kind = f"custom {custom.decode()}" if custom else BUILTIN_NAMES.get(code, str(code))
            found.append((code, kind))
        return found

    def _options(self, table: Any, code: int, what: str) -> Any:
        if code not in OPTIONS:
            return None
        kind, options_type = OPTIONS[code]
        stored = table.BuiltinOptions()
        options = options_type()
        if stored is None:
            # A table without fields: every accessor gives the schema's default.
            options.Init(b"\x04\x00\x04\x00\x04\x00\x00\x00", 4)
        elif table.BuiltinOptionsType() != kind:
            raise ModelFileError(f"{what}: options belong to another operator", fix="re-export it")
        else:
            options.Init(stored.Bytes, stored.Pos)
        return options


def _strip_float_edges(graph: Graph) -> Graph:
    """Remove QUANTIZE from a float input and DEQUANTIZE to a float output."""
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    dropped: set[str] = set()
    for op in graph.ops:
        source, result = op.inputs[0], op.outputs[0]
        only = len(graph.consumers[source]) == 1
        if isinstance(op, ir.Quantize) and source in inputs and only:
            if graph[source].dtype is DType.FLOAT32:
                inputs[inputs.index(source)] = result
                dropped.add(op.name)
        elif isinstance(op, ir.Dequantize) and result in outputs and not graph.consumers[result]:
            outputs[outputs.index(result)] = source
            dropped.add(op.name)
    ops = tuple(op for op in graph.ops if op.name not in dropped)
    gone = {
        name
        for op in graph.ops
        if op.name in dropped
        for name in (*op.inputs, *op.outputs)
        if graph[name].dtype is DType.FLOAT32
    }
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name not in gone}
    return replace(graph, ops=ops, tensors=tensors, inputs=tuple(inputs), outputs=tuple(outputs))


def _with_bias_scales(graph: Graph) -> Graph:
    """Biases that the file gives no scale: it is input scale * weight scale by definition.

    Source: the TFLite 8-bit quantization specification.
    """
    found: dict[str, Tensor] = {}
    for op in graph.ops:
        if not isinstance(op, _WEIGHTED) or len(op.inputs) < 3 or not op.inputs[2]:
            continue
        source, weight, bias = (graph[name] for name in op.inputs[:3])
        if bias.data is None or bias.quantization is not None or not bias.dtype.is_integer:
            continue
        with np.errstate(over="ignore"):  # what becomes infinite, `verify` refuses by name
            scales = source.q.scalar[0] * weight.q.scale
        axis = 0 if weight.q.is_per_channel else None
        implied = Quantization(scales, np.zeros(scales.shape, np.int64), axis)
        found.setdefault(bias.name, replace(bias, quantization=implied))
    return graph.with_tensors(*found.values())


def _used(graph: Graph) -> Graph:
    """Without the tensors that only the file needed (shapes, axes, paddings)."""
    names = {*graph.inputs, *graph.outputs}
    for op in graph.ops:
        names.update(op.inputs, op.outputs)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in names}
    return replace(graph, tensors=tensors)


def _require_integers(graph: Graph) -> None:
    floats = [tensor.name for tensor in graph.tensors.values() if not tensor.dtype.is_integer]
    if floats:
        raise UnsupportedError(
            f"{len(floats)} tensors are float32, among them {floats[0]!r}",
            fix="give a full-integer model; quantize the float one with a spec and `edgesmith run`",
        )


def read_tflite(data: bytes, name: str = "model", *, allow_float: bool = False) -> Graph:
    """Read a TFLite file.

    Args:
        data: the file's bytes.
        name: the graph's name.
        allow_float: accept float32 tensors (float twins); the executor does not.

    Raises:
        ModelFileError: the file is truncated, inconsistent or not TFLite.
        UnsupportedError: an operator, type or shape without an integer form.
    """
    if len(data) < 8 or not schema.Model.ModelBufferHasIdentifier(data, 0):
        raise ModelFileError(
            f"{name!r} is not a TFLite file (no TFL3 identifier in {len(data)} bytes)",
            fix="pass the .tflite file itself; check that the download was complete",
        )
    try:
        file = _File(data)
        tensors = {tensor.name: tensor for tensor in file.tensors()}
        inputs, outputs = file.ends()
        graph = Graph(name, tensors, tuple(file.operators(tensors)), inputs, outputs)
        graph = _with_bias_scales(_used(_strip_float_edges(graph)))
        if not allow_float:
            _require_integers(graph)
        return verify(graph)
    except _MALFORMED as error:
        raise ModelFileError(
            f"{name!r} is truncated or malformed: {type(error).__name__}: {error}",
            fix="check that the download was complete, or export the model again",
        ) from error
