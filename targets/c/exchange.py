"""The files that a test program of a generated network reads and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.targets.graph.ir import Graph, Tensor

INPUTS = "inputs.bin"
OUTPUTS = "outputs.bin"
TRACE = "trace.bin"

Codes = npt.NDArray[np.integer]


def input_bytes(graph: Graph, inputs: Sequence[Codes]) -> bytes:
    """Per sample, the codes of each input; arrays are [samples, *shape]."""
    arrays = [
        np.ascontiguousarray(codes, graph[name].dtype.numpy).reshape(len(codes), -1)
        for name, codes in zip(graph.inputs, inputs, strict=True)
    ]
    return np.concatenate([array.view(np.uint8) for array in arrays], axis=1).tobytes()


def outputs_in(graph: Graph, data: bytes, samples: int) -> dict[str, Codes]:
    """Every graph output, [samples, *shape].

    Raises:
        ToolFailedError: the program wrote less or more than that.
    """
    tensors = [graph[name] for name in graph.outputs]
    return {
        tensor.name: codes
        for tensor, codes in zip(tensors, _split(data, tensors, samples), strict=True)
    }


def trace_in(
    tensors: Mapping[int, Tensor], names: Sequence[str], data: bytes, samples: int
) -> dict[str, Codes]:
    """Traced tensors, [samples, *shape], from records {uint32 index, uint32 bytes, codes}.

    Args:
        tensors: index -> the tensor; records of other indices are skipped.
        names: only for the error message: what every index stands for.
    """
    found: dict[int, list[bytes]] = {index: [] for index in tensors}
    position = 0
    while position + 8 <= len(data):
        index, size = (int(word) for word in np.frombuffer(data, "<u4", 2, position))
        body = data[position + 8 : position + 8 + size]
        position += 8 + size
        if index in found:
            found[index].append(body)
    result = {}
    for index, bodies in found.items():
        if len(bodies) != samples:
            raise _short(f"trace of {names[index]!r} has {len(bodies)} of {samples} samples")
        tensor = tensors[index]
        result[tensor.name] = _split(b"".join(bodies), [tensor], samples)[0]
    return result


def as_tensor(tensor: Tensor, rows: npt.NDArray[np.uint8]) -> Codes:
    """Codes [samples, *shape] from bytes [samples, bytes].

    Raises:
        ToolFailedError: a sample has another number of bytes.
    """
    return _split(rows.tobytes(), [tensor], len(rows))[0]


def _split(data: bytes, tensors: Sequence[Tensor], samples: int) -> list[Codes]:
    sizes = [tensor.elements * tensor.dtype.numpy.itemsize for tensor in tensors]
    if len(data) != samples * sum(sizes):
        raise _short(f"{len(data)} bytes where {samples * sum(sizes)} were expected")
    rows = np.frombuffer(data, np.uint8).reshape(samples, -1)
    ends = np.cumsum(sizes)
    return [
        np.ascontiguousarray(rows[:, end - size : end])
        .view(tensor.dtype.numpy)
        .reshape(samples, *tensor.shape)
        for tensor, size, end in zip(tensors, sizes, ends, strict=True)
    ]


def _short(what: str) -> ToolFailedError:
    return ToolFailedError(
        f"the test program left incomplete results: {what}", fix="read its log in the build folder"
    )


def read(path: Path) -> bytes:
    """A result file.

    Raises:
        ToolFailedError: the program did not write it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _short(f"{path.name} is missing ({error.strerror})") from error
