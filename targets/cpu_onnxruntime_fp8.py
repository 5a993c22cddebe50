"""`cpu-onnxruntime-fp8`: the exported QDQ file with 8-bit floats on ONNX Runtime.

CPUs have no FP8 units, so ONNX Runtime dequantizes and computes in float32; what is true of
hardware is the size of the file and the accuracy, not the latency. Graph optimizations are on
but for those that take float8 for integers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.tools import Tool
from edgesmith.pipeline.values import BuildProducts
from edgesmith.targets.base import TargetDescription
from edgesmith.targets.cpu.measure import CpuTarget
from edgesmith.targets.fp8.target import (
    FORMATS,
    MULTIPLYING,
    ONNXRUNTIME,
    PROFILE,
    Fp8Target,
    run_in,
)

if TYPE_CHECKING:
    from edgesmith.targets.base import Codes
    from edgesmith.targets.cpu.runtime import Runtime


class CpuOnnxRuntimeFp8(Fp8Target, CpuTarget):
    """8-bit floats in ONNX Runtime on this machine's CPU."""

    name: ClassVar[str] = "cpu-onnxruntime-fp8"

    def describe(self) -> TargetDescription:
        return TargetDescription(
            name=self.name,
            title="ONNX Runtime on CPU, FP8",
            summary="QDQ ONNX file with float8 types, computed in float32",
            ops=dict.fromkeys(MULTIPLYING, FORMATS),
            rounding_profile=PROFILE,
        )

    def tools(self) -> Sequence[Tool]:
        return (ONNXRUNTIME,)

    def run(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        return run_in(self.runtime(), products, inputs, trace=trace)

    def float_baseline(self, float_onnx: Path, folder: Path) -> Path | None:
        path = folder / "float.onnx"
        path.write_bytes(float_onnx.read_bytes())
        return path

    def runtime(self) -> Runtime:
        from edgesmith.targets.cpu.runtime import Runtime

        return Runtime("onnxruntime", sys.executable, kernels="float8")
