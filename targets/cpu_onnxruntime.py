"""`cpu-onnxruntime`: a QDQ ONNX file on ONNX Runtime, graph optimizations on.

ONNX Runtime rounds half to even in float where TFLite rounds in integers:
outputs may differ from the reference executor by one LSB an operator, which
the description states as its budget. Traces run with graph optimizations off,
so that every tensor exists.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.tools import Tool
from edgesmith.pipeline.values import BuildPlan, BuildProducts
from edgesmith.targets.base import TargetDescription
from edgesmith.targets.cpu.measure import CPU_METRICS, CpuTarget
from edgesmith.targets.cpu.tflite import BOTH, TFLITE_OPS, WEIGHTED

if TYPE_CHECKING:
    from edgesmith.targets.base import Codes
    from edgesmith.targets.cpu.runtime import Runtime
    from edgesmith.targets.graph.ir import DType, Graph

MODEL_FILE = "model.onnx"


class CpuOnnxRuntime(CpuTarget):
    """ONNX Runtime on this machine's CPU."""

    name: ClassVar[str] = "cpu-onnxruntime"
    probes_convert: ClassVar[bool] = True

    def describe(self) -> TargetDescription:
        return TargetDescription(
            name=self.name,
            title="ONNX Runtime on CPU",
            summary="QDQ ONNX file, measured on this machine with ONNX Runtime",
            ops={**TFLITE_OPS, "FullyConnected": WEIGHTED, "Gelu": BOTH, "LayerNorm": BOTH},
            rounding_profile="litert-reference",
            # Softmax and GELU interpolate tables in int16; where GELU saturates, between codes.
            lsb_budget={"*": 1, "Softmax/int16": 8, "Gelu/int16": 32},
            explicit_padding=True,
            cost_metrics=CPU_METRICS,
        )

    def tools(self) -> Sequence[Tool]:
        return (Tool("onnxruntime", "pip install onnxruntime", package=True),)

    def build(self, graph: Graph) -> BuildPlan:
        from edgesmith.targets.graph.onnx_writer import write_onnx

        return BuildPlan({MODEL_FILE: write_onnx(graph)}, main=MODEL_FILE)

    def probe(self, graph: Graph) -> BuildPlan:
        from edgesmith.targets.cpu.onnx_probe import probe

        return BuildPlan({MODEL_FILE: probe(graph)}, main=MODEL_FILE)

    def boundary(self, dtype: DType, elements: int) -> BuildPlan:
        from edgesmith.targets.cpu.onnx_probe import boundary

        return BuildPlan({MODEL_FILE: boundary(dtype, elements)}, main=MODEL_FILE)

    def shipped(self, products: BuildProducts) -> Graph:
        from edgesmith.targets.graph.onnx_reader import read_onnx

        return read_onnx(Path(products.folder) / products.main, "model")

    def run(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        from edgesmith.targets.graph.onnx_trace import from_storage, to_storage, with_outputs_of

        model = Path(products.folder) / products.main
        fed = [to_storage(array) for array in inputs]
        if not trace:
            return from_storage(self.runtime().run(model, fed))
        with tempfile.TemporaryDirectory(prefix="edgesmith-trace-") as folder:
            wide = Path(folder) / MODEL_FILE
            wide.write_bytes(with_outputs_of(model.read_bytes(), "QuantizeLinear"))
            found = from_storage(replace(self.runtime(), kernels="reference").run(wide, fed))
        return {**dict(zip(self.shipped(products).inputs, inputs, strict=True)), **found}

    def float_baseline(self, float_onnx: Path, folder: Path) -> Path | None:
        path = folder / "float.onnx"
        path.write_bytes(float_onnx.read_bytes())
        return path

    def runtime(self) -> Runtime:
        from edgesmith.targets.cpu.runtime import Runtime

        return Runtime("onnxruntime", sys.executable)
