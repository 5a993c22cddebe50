"""GELU: int8 is LiteRT's in every bit, int16 is close to real arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.targets.graph import ir
from edgesmith.targets.graph.ir import DType, Graph, Quantization, Tensor
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.reference.gelu import gelu_table16
from edgesmith.targets.graph.tflite_reader import read_tflite
from edgesmith.targets.graph.tflite_writer import write_tflite
from tests.oracles import run_litert
from tests.targets.graph.reference.draw import Draw, graph_of

ALL_INT8 = np.arange(-128, 128).astype(np.int8)[np.newaxis]
ALL_INT16 = np.arange(-32768, 32768).astype(np.int16)[np.newaxis]


def gelu(source: Quantization, result: Quantization, dtype: DType, approximate: bool) -> Graph:
    size = 1 << dtype.bits
    x, y = Tensor("x", (size,), dtype, source), Tensor("y", (size,), dtype, result)
    return graph_of(ir.Gelu("y", ("x",), ("y",), approximate), x, y)


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_every_int8_code_equals_litert(seed: int, approximate: bool) -> None:
    draw = Draw(seed)
    source, result = (draw.quantization(DType.INT8) for _ in range(2))
    graph = gelu(source, result, DType.INT8, approximate)
    data = write_tflite(graph)
    assert read_tflite(data).ops == graph.ops
    wanted = next(iter(run_litert(data, [ALL_INT8], reference=True).values()))
    for profile in PROFILES.values():
        np.testing.assert_array_equal(execute(graph, [ALL_INT8], profile)["y"], wanted)


def real_gelu(x: float, approximate: bool) -> float:
    if approximate:
        return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + math.erf(x / math.sqrt(2)))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 30), st.floats(1.0, 3.0), st.booleans())
def test_int16_is_within_interpolation_of_real_arithmetic(
    reach: float, wider: float, approximate: bool
) -> None:
    """`reach` is the largest input; outputs are stored no finer than inputs are."""
    source, result = (Quantization.per_tensor(reach * k / 32768) for k in (1, wider))
    graph = gelu(source, result, DType.INT16, approximate)
    scale, output_scale = (float(graph[name].q.scale[0]) for name in ("x", "y"))
    exact = [real_gelu(code * scale, approximate) / output_scale for code in ALL_INT16[0].tolist()]
    found = execute(graph, [ALL_INT16], PROFILES["tflite-micro"])["y"]
    # Half a code each for the sample, the interpolation and the exact value's own rounding.
    assert np.abs(found[0] - np.array(exact)).max() < 1.5 + reach / 40


def test_int16_errs_more_only_where_it_saturates() -> None:
    """Between a sample that fits and one that does not, by at most 32 codes per scale ratio."""
    source, result = Quantization.per_tensor(8 / 32768), Quantization.per_tensor(6 / 32768)
    graph = gelu(source, result, DType.INT16, False)
    scale, output_scale = (float(graph[name].q.scale[0]) for name in ("x", "y"))
    exact = np.array([real_gelu(c * scale, False) / output_scale for c in ALL_INT16[0].tolist()])
    found = execute(graph, [ALL_INT16], PROFILES["tflite-micro"])["y"][0]
    error = np.abs(found - np.clip(exact, -32768, 32767))
    assert error.max() <= 32 * 8 / 6 + 1
    assert (error > 1.5 + 8 / 40).sum() < 128


def test_the_int16_table_is_small() -> None:
    x = Tensor("x", (1,), DType.INT16, Quantization.per_tensor(4 / 32768))
    table = gelu_table16(x, x, approximate=False)
    assert table.shape == (513,)
    assert table.min() >= -32768
    assert table.max() <= 32767


def test_int16_with_a_zero_point_is_refused() -> None:
    shifted = Quantization.per_tensor(1e-4, 5)
    graph = gelu(shifted, shifted, DType.INT16, False)
    with pytest.raises(UnsupportedError, match="Gelu 'y': int16 tensors have a zero point"):
        execute(graph, [ALL_INT16], PROFILES["tflite-micro"])
