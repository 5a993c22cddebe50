"""Formats and zeros of layers, read from graphs: against counting by hand."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from edgesmith.pipeline.jsonvalue import to_json
from edgesmith.pipeline.layer_formats import POLICY, layer_formats, read_policy, zero_codes
from edgesmith.pipeline.values import (
    INT8_ACTIVATION,
    INT8_WEIGHT,
    INT16_ACTIVATION,
    GroupFormats,
    Policy,
    QFormat,
)
from edgesmith.targets.graph.ir import DType, FullyConnected, Graph, Quantization, Tensor

ZEROS = [
    (DType.INT8, np.array([[0, 1, 0], [-1, 0, 2]], np.int8), 0, 3),
    (DType.INT8, np.array([[5, 1, 5], [-1, 0, 2]], np.int8), 5, 2),
    (DType.INT4, np.array([[0, 1, 0], [7, 0, -7]], np.int8), 0, 3),
    (
        DType.FLOAT8E4M3FN,
        np.array([[0.0, -0.0, 1.0]], ml_dtypes.float8_e4m3fn).view(np.uint8),
        0,
        2,
    ),
]


def quantization(zero: int, channels: int = 1) -> Quantization:
    axis = 0 if channels > 1 else None
    scale = np.full(channels, 0.5, np.float32)
    return Quantization(scale, np.full(channels, zero, np.int64), axis)


@pytest.mark.parametrize(("dtype", "data", "zero", "expected"), ZEROS)
def test_zero_codes_are_counted_as_what_they_stand_for(
    dtype: DType, data: npt.NDArray[np.generic], zero: int, expected: int
) -> None:
    tensor = Tensor("w", data.shape, dtype, quantization(zero), data)
    assert zero_codes(tensor) == expected


def test_zero_points_per_channel_count_for_their_own_row() -> None:
    found = Quantization(np.ones(2, np.float32), np.array([1, 0], np.int64), 0)
    tensor = Tensor("w", (2, 2), DType.INT8, found, np.array([[1, 0], [1, 0]], np.int8))
    assert zero_codes(tensor) == 2


def dense(weight: DType) -> Graph:
    codes = np.array([[0, 1, 2, 0], [3, 0, 0, -3]], np.int8)
    tensors = {
        each.name: each
        for each in (
            Tensor("input", (1, 4), DType.INT8, quantization(0)),
            Tensor("fc.weight", (2, 4), weight, quantization(0, 2), codes),
            Tensor("fc.bias", (2,), DType.INT32, quantization(0, 2), np.array([1, 2], np.int32)),
            Tensor("fc", (1, 2), DType.INT16, quantization(0)),
        )
    }
    op = FullyConnected("fc", ("input", "fc.weight", "fc.bias"), ("fc",))
    return Graph("dense", tensors, (op,), ("input",), ("fc",))


def test_a_layer_has_the_formats_of_the_policy_and_the_bytes_of_the_graph() -> None:
    int3 = QFormat.parse("int3-symmetric-narrow-per-channel")
    policy = Policy(
        {
            "input": GroupFormats(None, INT8_ACTIVATION),
            "fc": GroupFormats(int3, INT16_ACTIVATION),
        }
    )
    graph = dense(DType.INT4)
    found = layer_formats(graph, graph.ops[0], policy, {"fc": (10, 2)})
    assert (found.weight, found.reads, found.writes) == ("int3", "int8", "int16")
    assert (found.weights, found.zeros, found.code_bytes) == (8, 4, 4)
    assert found.per_channel
    assert found.channels == (10, 2)


def test_a_model_file_has_the_formats_that_it_stores() -> None:
    graph = dense(DType.INT8)
    found = layer_formats(graph, graph.ops[0], Policy({}), {})
    assert (found.weight, found.code_bytes, found.channels) == ("int8", 8, None)


def test_the_policy_is_read_where_the_model_was_quantized_here(tmp_path: Path) -> None:
    assert read_policy(None) == read_policy(tmp_path) == Policy({})
    policy = Policy({"fc": GroupFormats(INT8_WEIGHT, INT8_ACTIVATION)})
    (tmp_path / POLICY).write_text(to_json(policy))
    assert read_policy(tmp_path) == policy
