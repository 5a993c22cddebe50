"""An IntegerGraph as one file, lossless: NumPy's zip of arrays, structure as JSON inside.

Scales, zero points and codes are stored as arrays, never as text; nothing is pickled. The
same graph gives the same bytes. It is how artifacts without a model format of their own
(a folder of C) say what they are.
"""

from __future__ import annotations

import io
import json
import lzma
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from edgesmith.pipeline.errors import ModelFileError
from edgesmith.pipeline.jsonvalue import from_json, to_data, to_json
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Layout, Op, Quantization, Tensor

VERSION = 1
_STRUCTURE = "structure"
_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    OSError,
    MemoryError,  # a damaged header that asks for far too much
    RuntimeError,  # zip: an encryption flag, a method that there is not
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    ValidationError,
)


@dataclass(frozen=True)
class _TensorRecord:
    """A tensor but for its arrays; `axis` is the quantization's."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    quantized: bool
    axis: int | None
    constant: bool


@dataclass(frozen=True)
class _Structure:
    """A graph but for its arrays; `version` is raised whenever the format changes."""

    version: int
    name: str
    tensors: tuple[_TensorRecord, ...]
    ops: tuple[tuple[str, dict[str, Any]], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    origin: dict[str, str]
    layout: dict[str, Layout]
    positions: tuple[str, ...] = field(default=())


def _kinds() -> dict[str, type[Op]]:
    return {kind.__name__: kind for kind in Op.__subclasses__() if kind.__module__ == ir.__name__}


def write_graph(graph: Graph) -> bytes:
    """The file's bytes."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    records = []
    for index, tensor in enumerate(graph.tensors.values()):
        quantization = tensor.quantization
        if quantization is not None:
            arrays[f"scale_{index}"] = quantization.scale
            arrays[f"zero_{index}"] = quantization.zero_point
        if tensor.data is not None:
            arrays[f"data_{index}"] = np.ascontiguousarray(tensor.data)
        records.append(
            _TensorRecord(
                tensor.name,
                tensor.shape,
                tensor.dtype,
                quantization is not None,
                None if quantization is None else quantization.axis,
                tensor.data is not None,
            )
        )
    for index, positions in enumerate(graph.positions.values()):
        arrays[f"positions_{index}"] = positions
    structure = _Structure(
        VERSION,
        graph.name,
        tuple(records),
        tuple((op.kind, to_data(op)) for op in graph.ops),
        graph.inputs,
        graph.outputs,
        dict(graph.origin),
        dict(graph.layout),
        tuple(graph.positions),
    )
    text = np.frombuffer(to_json(structure).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{_STRUCTURE: text}, **arrays)
    return buffer.getvalue()


def read_graph(data: bytes) -> Graph:
    """The graph that `write_graph` wrote.

    Raises:
        ModelFileError: the bytes are damaged, of another format version, or something else.
    """
    try:
        return _graph(_arrays(data))
    except _DAMAGE as error:
        raise ModelFileError(
            f"the graph file cannot be read: {error}", fix="build the artifact again"
        ) from error


def _arrays(data: bytes) -> dict[str, Any]:
    """Every array; each is read to its end, which checks its sum, before it is looked at."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return {
        name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
        for name, body in members.items()
    }


def _graph(arrays: dict[str, Any]) -> Graph:
    text = arrays[_STRUCTURE].tobytes()
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("its structure is none")
    version = fields.get("version", 0)
    if version != VERSION:
        raise ModelFileError(
            f"the graph file has format version {version}; this edgesmith reads {VERSION}",
            fix="build the artifact again, or use the edgesmith that built it",
        )
    structure = from_json(_Structure, text)
    tensors = {}
    for index, record in enumerate(structure.tensors):
        quantization = None
        if record.quantized:
            quantization = Quantization(
                arrays[f"scale_{index}"], arrays[f"zero_{index}"], record.axis
            )
        codes = arrays[f"data_{index}"] if record.constant else None
        tensors[record.name] = Tensor(record.name, record.shape, record.dtype, quantization, codes)
    kinds = _kinds()
    return Graph(
        structure.name,
        tensors,
        tuple(_op(kinds[kind], fields) for kind, fields in structure.ops),
        structure.inputs,
        structure.outputs,
        structure.origin,
        structure.layout,
        {name: arrays[f"positions_{index}"] for index, name in enumerate(structure.positions)},
    )


def _op(kind: type[Op], fields: dict[str, Any]) -> Op:
    from edgesmith.pipeline.jsonvalue import adapter

    return adapter(kind).validate_python(fields)
