"""`cpu-onnxruntime-fp8`: the exported QDQ file with 8-bit floats on ONNX Runtime.

There is no integer arithmetic to lower to: the artifact is the exported file itself, byte
for byte. CPUs have no FP8 units, so ONNX Runtime dequantizes and computes in float32; what
is true of hardware is the size of the file and the accuracy, not the latency. Graph
optimizations are on but for those that take float8 for integers. What the file should
compute is ONNX Runtime's own result without any optimization.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.pipeline.tools import Tool
from edgesmith.pipeline.values import BuildPlan, BuildProducts
from edgesmith.targets.base import OpFormat, TargetDescription
from edgesmith.targets.cpu.measure import CpuTarget

if TYPE_CHECKING:
    from edgesmith.targets.base import Codes
    from edgesmith.targets.cpu.runtime import Runtime
    from edgesmith.targets.graph.ir import Graph

MODEL_FILE = "model.onnx"

_FORMATS = tuple(
    OpFormat(activation, weight, "float32", per_channel=True)
    for activation in ("float8e4m3fn", "float8e5m2", "float32")
    for weight in ("float8e4m3fn", "float8e5m2")
)


class CpuOnnxRuntimeFp8(CpuTarget):
    """8-bit floats in ONNX Runtime on this machine's CPU."""

    name: ClassVar[str] = "cpu-onnxruntime-fp8"
    deploys_exported: ClassVar[bool] = True

    def describe(self) -> TargetDescription:
        return TargetDescription(
            name=self.name,
            title="ONNX Runtime on CPU, FP8",
            summary="QDQ ONNX file with float8 types, computed in float32",
            ops=dict.fromkeys(("Conv", "Gemm", "MatMul"), _FORMATS),
            rounding_profile="onnxruntime-unoptimized",
        )

    def tools(self) -> Sequence[Tool]:
        return (Tool("onnxruntime", "pip install onnxruntime", package=True),)

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

    def run(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        return _values(self.runtime(), products, inputs, trace=trace)

    def reference(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        runtime = replace(self.runtime(), kernels="reference")
        return _values(runtime, products, inputs, trace=trace)

    def float_baseline(self, float_onnx: Path, folder: Path) -> Path | None:
        path = folder / "float.onnx"
        path.write_bytes(float_onnx.read_bytes())
        return path

    def runtime(self) -> Runtime:
        from edgesmith.targets.cpu.runtime import Runtime

        return Runtime("onnxruntime", sys.executable, kernels="float8")


def _values(
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
