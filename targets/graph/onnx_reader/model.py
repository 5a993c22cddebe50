"""An ONNX file as plain values, with every guard before anything is believed.

Nothing here knows an operator. The file is parsed once into frozen nodes in
execution order; initializers stay in the protobuf until they are asked for.
External data is read only from inside the model's own folder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto, numpy_helper

from edgesmith.pipeline.errors import ModelFileError, UnsupportedError
from edgesmith.targets.graph.ir import Array
from edgesmith.targets.graph.onnx_reader.values import Bounds, Constant
from edgesmith.targets.graph.validate import MAX_ELEMENTS, MAX_RANK

MIN_OPSET = 13
MAX_FILE_BYTES = 1 << 31
STANDARD_DOMAINS = ("", "ai.onnx")

_AGAIN = "check that the download was complete, or export the model again"
_PACKED: Mapping[int, Bounds] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    getattr(TensorProto, "INT2", -1): (-2, 1),
    getattr(TensorProto, "UINT2", -1): (0, 3),
}
_PLAIN = {
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT16,
    TensorProto.UINT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
}


@dataclass(frozen=True, eq=False)
class Node:
    """One ONNX node; an absent optional input is the empty string."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeProto] = field(repr=False)

    @property
    def title(self) -> str:
        """How errors name the node."""
        return f"{self.op} {self.name!r}"

    def _attribute(self, name: str, kind: int) -> AttributeProto | None:
        attribute = self.attributes.get(name)
        if attribute is not None and attribute.type != kind:
            raise ModelFileError(f"{self.title}: attribute {name!r} has the wrong type", fix=_AGAIN)
        return attribute

    def integer(self, name: str, default: int = 0) -> int:
        attribute = self._attribute(name, AttributeProto.INT)
        return default if attribute is None else int(attribute.i)

    def number(self, name: str, default: float) -> float:
        attribute = self._attribute(name, AttributeProto.FLOAT)
        return default if attribute is None else float(attribute.f)

    def text(self, name: str, default: str) -> str:
        attribute = self._attribute(name, AttributeProto.STRING)
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def integers(self, name: str) -> tuple[int, ...] | None:
        attribute = self._attribute(name, AttributeProto.INTS)
        return None if attribute is None else tuple(int(value) for value in attribute.ints)


@dataclass(frozen=True)
class Port:
    """A graph input or output; `shape` is empty for outputs, whose shapes are inferred."""

    name: str
    element: int
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Model:
    """A parsed file: nodes in execution order, ports, and where constants are."""

    name: str
    opset: int
    nodes: tuple[Node, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    initializers: Mapping[str, TensorProto]
    folder: Path | None

    def constant(self, name: str) -> Constant:
        """The initializer of that name."""
        return self.decode(self.initializers[name], name)

    def decode(self, tensor: TensorProto, name: str) -> Constant:
        """A stored tensor as NumPy array; int4 codes one per int8 element.

        Raises:
            ModelFileError: data is missing, too short, or outside the model's folder.
            UnsupportedError: the element type has no integer form.
        """
        dims = tuple(int(size) for size in tensor.dims)
        if min(dims, default=0) < 0 or len(dims) > MAX_RANK or math.prod(dims) > MAX_ELEMENTS:
            raise ModelFileError(f"initializer {name!r} has shape {list(dims)}", fix=_AGAIN)
        if tensor.data_type not in _PLAIN and tensor.data_type not in _PACKED:
            raise UnsupportedError(
                f"initializer {name!r} has the type {_type_name(tensor.data_type)}",
                fix="export the model in float32 with integer codes",
            )
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor = _with_external_data(tensor, name, self.folder)
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ModelFileError(
                f"initializer {name!r} does not hold the {math.prod(dims)} elements of its "
                f"shape {list(dims)}: {error}",
                fix=_AGAIN,
            ) from error
        bounds = _PACKED.get(tensor.data_type)
        if bounds is not None:
            array = array.astype(np.uint8 if bounds[0] == 0 else np.int8)
        if array.dtype.kind == "f":
            array = _finite(array, name)
        return Constant(array, name, bounds)


def _finite(array: Array, name: str) -> npt.NDArray[np.float32]:
    if np.isnan(array).any():
        raise ModelFileError(
            f"initializer {name!r} holds NaN values",
            fix="repair the checkpoint; a NaN weight or scale makes every output meaningless",
        )
    return array.astype(np.float32, copy=False)


def _type_name(code: int) -> str:
    known: dict[int, str] = {value: key for key, value in TensorProto.DataType.items()}
    return known.get(code, f"number {code}")


def load(source: Path | bytes, name: str) -> Model:
    """Parse a file and check what can be checked without knowing operators.

    Raises:
        ModelFileError: missing, truncated, corrupt, cyclic, or larger than 2 GiB.
        UnsupportedError: dynamic shapes, old opset, sparse initializers.
    """
    data = source if isinstance(source, bytes) else _read(source)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
        model = _parse(proto, name, None if isinstance(source, bytes) else source.parent)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"{name!r} is not an ONNX file, or a damaged one: {error}", fix=_AGAIN
        ) from error
    return model


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelFileError(
                f"{path} has {size} bytes, more than ONNX files can have (2 GiB)", fix=_AGAIN
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"cannot read {path}: {error.strerror}", fix="check the path and its permissions"
        ) from error


def _parse(proto: onnx.ModelProto, name: str, folder: Path | None) -> Model:
    graph = proto.graph
    if not graph.node and not graph.output:
        raise ModelFileError(f"{name!r} holds no ONNX graph", fix=_AGAIN)
    if graph.sparse_initializer:
        raise UnsupportedError(
            f"{name!r} has {len(graph.sparse_initializer)} sparse initializers",
            fix="store the weights densely",
        )
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    inputs = tuple(_port(item, name) for item in graph.input if item.name not in initializers)
    outputs = tuple(Port(item.name, _element(item)) for item in graph.output)
    nodes = tuple(_node(node, index) for index, node in enumerate(graph.node))
    known = [port.name for port in inputs] + list(initializers)
    return Model(
        name,
        _opset(proto, name),
        _ordered(nodes, known, name),
        inputs,
        outputs,
        initializers,
        folder,
    )


def _opset(proto: onnx.ModelProto, name: str) -> int:
    versions = [item.version for item in proto.opset_import if item.domain in STANDARD_DOMAINS]
    if not versions:
        raise ModelFileError(f"{name!r} names no operator set", fix=_AGAIN)
    if max(versions) < MIN_OPSET:
        raise UnsupportedError(
            f"{name!r} uses operator set {max(versions)}",
            fix=f"export with opset {MIN_OPSET} or later, or convert with "
            "onnx.version_converter.convert_version",
        )
    return int(max(versions))


def _element(item: onnx.ValueInfoProto) -> int:
    return int(item.type.tensor_type.elem_type)


def _port(item: onnx.ValueInfoProto, model: str) -> Port:
    if not item.type.HasField("tensor_type"):
        raise UnsupportedError(
            f"input {item.name!r} of {model!r} is no tensor", fix="export with tensor inputs only"
        )
    stored = item.type.tensor_type
    if not stored.HasField("shape"):
        raise UnsupportedError(
            f"input {item.name!r} of {model!r} has no shape", fix="export with a fixed batch of 1"
        )
    dims = stored.shape.dim
    dynamic = [i for i, dim in enumerate(dims) if not dim.HasField("dim_value")]
    if dynamic:
        raise UnsupportedError(
            f"input {item.name!r} of {model!r} has dynamic axes {dynamic}",
            fix="export with a fixed batch of 1 and fixed sizes (no dynamic_axes)",
        )
    shape = tuple(int(dim.dim_value) for dim in dims)
    if min(shape, default=1) < 1 or len(shape) > MAX_RANK or math.prod(shape) > MAX_ELEMENTS:
        raise ModelFileError(
            f"input {item.name!r} of {model!r} has shape {list(shape)}", fix=_AGAIN
        )
    return Port(item.name, int(stored.elem_type), shape)


def _node(node: onnx.NodeProto, index: int) -> Node:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    outputs = tuple(node.output)
    name = node.name or next(filter(None, outputs), f"node {index}")
    return Node(node.op_type, node.domain, name, tuple(node.input), outputs, attributes)


def _ordered(nodes: tuple[Node, ...], known: list[str], model: str) -> tuple[Node, ...]:
    """Nodes in execution order (Kahn); every name is assigned once and read after."""
    producer: dict[str, int] = {}
    present = set(known)
    for index, node in enumerate(nodes):
        for output in filter(None, node.outputs):
            if output in producer or output in present:
                raise ModelFileError(
                    f"{node.title} of {model!r} assigns {output!r} a second time", fix=_AGAIN
                )
            producer[output] = index
    for node in nodes:
        for name in filter(None, node.inputs):
            if name not in producer and name not in present:
                raise ModelFileError(
                    f"{node.title} of {model!r} reads {name!r}, which nothing produces", fix=_AGAIN
                )
    order = list(_kahn(nodes, producer))
    if len(order) < len(nodes):
        done = set(order)
        stuck = next(node for index, node in enumerate(nodes) if index not in done)
        raise ModelFileError(
            f"{stuck.title} of {model!r} depends on its own output (a cycle)", fix=_AGAIN
        )
    return tuple(nodes[index] for index in order)


def _kahn(nodes: tuple[Node, ...], producer: Mapping[str, int]) -> Iterator[int]:
    before = [{producer[name] for name in node.inputs if name in producer} for node in nodes]
    after: list[list[int]] = [[] for _ in nodes]
    for index, needed in enumerate(before):
        for other in needed:
            after[other].append(index)
    waiting = [len(needed) for needed in before]
    ready = [index for index in range(len(nodes) - 1, -1, -1) if not waiting[index]]
    while ready:
        index = ready.pop()
        yield index
        for other in reversed(after[index]):
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)


def _with_external_data(tensor: TensorProto, name: str, folder: Path | None) -> TensorProto:
    """The tensor with the bytes of its external file, which must lie in the model's folder."""
    stored = {entry.key: entry.value for entry in tensor.external_data}
    location = stored.get("location", "")
    if folder is None:
        _refuse_external(name, location, "the model was given as bytes, without a folder")
    base = folder.resolve()
    path = (base / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(base):
        _refuse_external(name, location, "the path leaves the model's folder")
    try:
        offset, length = int(stored.get("offset", 0)), int(stored.get("length", -1))
        if offset < 0 or path.stat().st_size > MAX_FILE_BYTES:
            _refuse_external(name, location, "the offset is negative or the file too large")
        with path.open("rb") as file:
            file.seek(offset)
            raw = file.read(length)
    except OSError as error:
        _refuse_external(name, location, f"it cannot be read ({error.strerror})")
    except (ValueError, OverflowError):
        _refuse_external(name, location, "offset or length is no valid number")
    if length >= 0 and len(raw) != length:
        _refuse_external(name, location, f"it ends after {len(raw)} of {length} bytes")
    return TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw)


def _refuse_external(name: str, location: str, reason: str) -> NoReturn:
    raise ModelFileError(
        f"initializer {name!r} lies in the external file {location!r}, but {reason}",
        fix="keep the data file beside the model, or save the model as one file",
    )
