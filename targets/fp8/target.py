"""What the FP8 targets share: the artifact is the exported file itself, byte for byte.

There is no integer arithmetic to lower to. What such a file should compute is ONNX Runtime's
own result without any graph optimization.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.pipeline.tools import Tool
from edgesmith.pipeline.values import BuildPlan, BuildProducts
from edgesmith.targets.base import OpFormat, Target

if TYPE_CHECKING:
    from edgesmith.targets.base import Codes
    from edgesmith.targets.cpu.runtime import Runtime
    from edgesmith.targets.graph.ir import Graph

MODEL_FILE = "model.onnx"
MULTIPLYING = ("Conv", "Gemm", "MatMul")
ONNXRUNTIME = Tool("onnxruntime", "pip install onnxruntime", package=True)
PROFILE = "onnxruntime-unoptimized"

FORMATS = tuple(
    OpFormat(activation, weight, "float32", per_channel=True)
    for activation in ("float8e4m3fn", "float8e5m2", "float32")
    for weight in ("float8e4m3fn", "float8e5m2")
)


class Fp8Target(Target):
    """A runtime of exported QDQ files with 8-bit floats."""

    deploys_exported: ClassVar[bool] = True

    def build(self, graph: Graph) -> BuildPlan:
        raise TargetUnsupportedError(
            f"{self.name!r} takes no integer model such as {graph.name!r}",
            fix="deploy a float model from a spec, quantized to fp8-e4m3 or fp8-e5m2",
        )

    def build_exported(self, exported: bytes) -> BuildPlan:
        return BuildPlan({MODEL_FILE: exported}, main=MODEL_FILE)

    def shipped(self, products: BuildProducts) -> Graph:
        from edgesmith.targets.graph.exported import read_exported

        return read_exported((Path(products.folder) / products.main).read_bytes(), "model")

    def reference(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        from edgesmith.targets.cpu.runtime import Runtime

        runtime = Runtime("onnxruntime", sys.executable, kernels="reference")
        return run_in(runtime, products, inputs, trace=trace)


def run_in(
    runtime: Runtime, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool
) -> dict[str, Codes]:
    """Real values: inputs and outputs of such a file are float32."""
    from edgesmith.targets.graph.onnx_trace import with_outputs_of

    model = Path(products.folder) / products.main
    if not trace:
        return runtime.run(model, inputs)
    with tempfile.TemporaryDirectory(prefix="edgesmith-trace-") as folder:
        wide = Path(folder) / MODEL_FILE
        wide.write_bytes(with_outputs_of(model.read_bytes(), "DequantizeLinear"))
        return runtime.run(wide, inputs)
