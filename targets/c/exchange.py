"""The files that a test program of a generated network reads and writes, wherever it runs.

Inputs and outputs: per sample, the codes of each tensor, one behind the other, little-endian.
Trace: records {uint32 tensor, uint32 bytes, codes}, in the order of execution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgesmith.pipeline.errors import ToolFailedError
from edgesmith.targets.graph.ir import Graph, Tensor

INPUTS = "inputs.bin"
OUTPUTS = "outputs.bin"
TRACE = "trace.bin"

Codes = npt.NDArray[np.integer]
Rows = npt.NDArray[np.uint8]  # [samples, bytes]


@dataclass(frozen=True)
class TensorType:
    """How bytes of a tensor are read: little-endian elements in `shape`, without samples."""

    dtype: npt.DTypeLike
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        return cls(tensor.dtype.numpy, tensor.shape)

    @property
    def bytes(self) -> int:
        """Of one sample."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


def output_types(graph: Graph) -> list[TensorType]:
    """Of every graph output, in order."""
    return [TensorType.of(graph[name]) for name in graph.outputs]


def as_stored(graph: Graph, inputs: Sequence[Codes]) -> list[Codes]:
    """Codes of the graph inputs, [samples, *shape], in the types that the network reads."""
    return [
        np.ascontiguousarray(codes, graph[name].dtype.numpy)
        for name, codes in zip(graph.inputs, inputs, strict=True)
    ]


def joined(arrays: Sequence[npt.NDArray[Any]]) -> bytes:
    """The file of arrays [samples, *shape]."""
    rows = [np.ascontiguousarray(each).reshape(len(each), -1).view(np.uint8) for each in arrays]
    return np.concatenate(rows, axis=1).tobytes()


def split(data: bytes, types: Sequence[TensorType], samples: int) -> list[Codes]:
    """The arrays of a file, each [samples, *shape].

    Raises:
        ToolFailedError: the program wrote less or more than that.
    """
    ends = np.cumsum([each.bytes for each in types], dtype=np.int64)
    expected = int(ends[-1]) if types else 0
    if len(data) != samples * expected:
        raise _wrong(f"the outputs have {len(data)} bytes; {samples} x {expected} were expected")
    rows = np.frombuffer(data, np.uint8).reshape(samples, expected)
    return [
        np.ascontiguousarray(rows[:, end - each.bytes : end])
        .view(each.dtype)
        .reshape(samples, *each.shape)
        for each, end in zip(types, ends, strict=True)
    ]


def traced_rows(data: bytes, samples: int) -> dict[int, Rows]:
    """Tensor index -> its bytes in each sample; of several writings in one sample, the last.

    Raises:
        ToolFailedError: the trace ends early, or samples differ in what they traced.
    """
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(data):
        head, at = data[at : at + 8], at + 8
        tensor, size = (int.from_bytes(word, "little") for word in (head[:4], head[4:]))
        body, at = data[at : at + size], at + size
        found.setdefault(tensor, []).append(body)
    if at > len(data):
        raise _wrong("its trace ends within a tensor")
    for tensor, bodies in found.items():
        if len(bodies) % samples or len(set(map(len, bodies))) != 1:
            raise _wrong(f"tensor {tensor} was traced {len(bodies)} times in {samples} samples")
    return {
        tensor: np.frombuffer(
            b"".join(bodies[len(bodies) // samples - 1 :: len(bodies) // samples]), np.uint8
        ).reshape(samples, -1)
        for tensor, bodies in found.items()
    }


def input_bytes(graph: Graph, inputs: Sequence[Codes]) -> bytes:
    """The file of a graph's inputs; arrays are [samples, *shape]."""
    return joined(as_stored(graph, inputs))


def outputs_in(graph: Graph, data: bytes, samples: int) -> dict[str, Codes]:
    """Every graph output, [samples, *shape].

    Raises:
        ToolFailedError: the program wrote less or more than that.
    """
    return dict(zip(graph.outputs, split(data, output_types(graph), samples), strict=True))


def trace_in(
    tensors: Mapping[int, Tensor], names: Sequence[str], data: bytes, samples: int
) -> dict[str, Codes]:
    """Traced tensors, [samples, *shape].

    Args:
        tensors: index -> the tensor; records of other indices are skipped.
        names: only for the error message: what every index stands for.

    Raises:
        ToolFailedError: the trace is not of these tensors.
    """
    rows = traced_rows(data, samples)
    missing = [names[index] for index in tensors if index not in rows]
    if missing:
        raise _wrong(f"its trace lacks {missing[0]!r}")
    return {tensor.name: as_tensor(tensor, rows[index]) for index, tensor in tensors.items()}


def as_tensor(tensor: Tensor, rows: Rows) -> Codes:
    """Codes [samples, *shape] from bytes [samples, bytes].

    Raises:
        ToolFailedError: a sample has another number of bytes.
    """
    return split(rows.tobytes(), [TensorType.of(tensor)], len(rows))[0]


def _wrong(what: str) -> ToolFailedError:
    return ToolFailedError(
        f"the test program left results of another network: {what}",
        fix="build the artifact again; read the program's log if it stays",
    )


def read(path: Path) -> bytes:
    """A result file.

    Raises:
        ToolFailedError: the program did not write it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _wrong(f"{path.name} is missing ({error.strerror})") from error
