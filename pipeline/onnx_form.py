"""The exported QDQ ONNX file in ONNX Runtime: predictions, and every named activation."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgesmith.targets.cpu.runtime import Runtime
from edgesmith.targets.graph.onnx_trace import has_float8, with_outputs_of

FloatArray = npt.NDArray[np.float32]


def run_exported(model: Path, inputs: FloatArray) -> FloatArray:
    """Outputs [samples, ...] for inputs [samples, *sample shape].

    Raises:
        ToolFailedError: ONNX Runtime refused the file.
    """
    kernels = "float8" if has_float8(model.read_bytes()) else "default"
    runtime = Runtime("onnxruntime", sys.executable, kernels)
    results = runtime.run(model, [inputs[:, None]])
    output = next(iter(results.values()))
    return np.asarray(output, np.float32)[:, 0]


def trace_exported(model: Path, inputs: FloatArray) -> dict[str, FloatArray]:
    """Values of every dequantized activation, by name, [samples, ...]; optimizations off.

    Raises:
        ToolFailedError: ONNX Runtime refused the file.
    """
    with tempfile.TemporaryDirectory(prefix="edgesmith-trace-") as folder:
        path = Path(folder) / "traced.onnx"
        path.write_bytes(with_outputs_of(model.read_bytes(), "DequantizeLinear"))
        runtime = Runtime("onnxruntime", sys.executable, kernels="reference")
        results = runtime.run(path, [inputs[:, None]])
    # The file's batch of one is the first axis, unless the model moved it.
    return {
        name: np.asarray(value[:, 0] if value.shape[1] == 1 else value, np.float32)
        for name, value in results.items()
    }
