"""Random graphs of one operator, and the comparison of the executor with a runtime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgesmith.targets.graph.ir import (
    Activation,
    DType,
    Graph,
    Op,
    Quantization,
    Tensor,
)
from edgesmith.targets.graph.reference import PROFILES, execute
from edgesmith.targets.graph.tflite_writer import write_tflite
from tests.oracles import run_litert, run_tflm

Codes = npt.NDArray[np.generic]
Shape = tuple[int, ...]

RUNTIMES = ("tflite-micro", "litert-reference")
ACTIVATIONS = tuple(Activation)
SAMPLES = 3


@dataclass
class Draw:
    """A seeded source of everything that a random graph needs."""

    seed: int

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def integer(self, low: int, high: int) -> int:
        """Both ends included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, options: Iterable[Any]) -> Any:
        choices = list(options)
        return choices[self.integer(0, len(choices) - 1)]

    def pair(self, low: int, high: int) -> tuple[int, int]:
        return self.integer(low, high), self.integer(low, high)

    def scale(self, low: float = 1e-3, high: float = 1.0) -> float:
        return float(np.float32(np.exp(self.rng.uniform(np.log(low), np.log(high)))))

    def zero(self, dtype: DType) -> int:
        return 0 if dtype is DType.INT16 else self.integer(-128, 127)

    def quantization(self, dtype: DType, scale: float | None = None) -> Quantization:
        return Quantization.per_tensor(self.scale() if scale is None else scale, self.zero(dtype))

    def activation(self, name: str, shape: Shape, dtype: DType, **keywords: float) -> Tensor:
        return Tensor(name, shape, dtype, self.quantization(dtype, **keywords))

    def codes(self, shape: Shape, dtype: DType) -> Codes:
        """Uniform codes, with the extremes put in now and then."""
        drawn = self.rng.integers(dtype.qmin, dtype.qmax + 1, shape)
        extreme = self.rng.random(shape)
        drawn = np.where(extreme < 0.04, dtype.qmin, drawn)
        return np.where(extreme > 0.96, dtype.qmax, drawn).astype(dtype.numpy)


def graph_of(op: Op, *tensors: Tensor) -> Graph:
    """A graph of one operator; inputs are the tensors that it reads and that hold no data."""
    by_name = {tensor.name: tensor for tensor in tensors}
    reads = [name for name in dict.fromkeys(op.inputs) if name and not by_name[name].is_constant]
    return Graph("case", by_name, (op,), tuple(reads), op.outputs)


def run_runtime(runtime: str, model: bytes, inputs: Sequence[Codes]) -> Codes:
    if runtime == "tflite-micro":
        return run_tflm(model, inputs)[0]
    return next(iter(run_litert(model, inputs, reference=True).values()))


def assert_same(graph: Graph, runtime: str, draw: Draw, samples: int = SAMPLES) -> None:
    """The executor's output equals the runtime's in every byte."""
    inputs = [draw.codes((samples, *graph[name].shape), graph[name].dtype) for name in graph.inputs]
    wanted = run_runtime(runtime, write_tflite(graph), inputs)
    found = execute(graph, inputs, PROFILES[runtime])[graph.outputs[0]]
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
