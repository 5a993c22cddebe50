"""`cuda-fp8`: the exported QDQ file with 8-bit floats on a GPU that multiplies them.

The file is that of `cpu-onnxruntime-fp8`, byte for byte. torch runs it: convolutions as
unfolded windows and matrix products on FP8 tensor cores, the rest in float32
(`fp8/executor.py`). Operators are launched one by one from Python, so a latency is that of
this executor and not of an inference engine. Where there is no such GPU the target is skipped,
and the run says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgesmith.pipeline.tools import Tool
from edgesmith.pipeline.values import BuildProducts
from edgesmith.targets.base import LatencyOptions, LatencyRun, TargetDescription
from edgesmith.targets.fp8.target import FORMATS, MULTIPLYING, ONNXRUNTIME, PROFILE, Fp8Target

if TYPE_CHECKING:
    from edgesmith.targets.base import Codes
    from edgesmith.targets.fp8.executor import Executor

NEEDED = (8, 9)
"""Compute capability: the first one with FP8 tensor cores (Ada; Hopper has 9.0)."""
DIFFERING_CODES = 0.05
"""Share of a tensor's codes that may differ: sums in another order, carried on by layers behind.

About twice what sums with 13 bits of mantissa move in the networks of the tests.
"""


class CudaFp8(Fp8Target):
    """8-bit floats on this machine's NVIDIA GPU."""

    name: ClassVar[str] = "cuda-fp8"
    device_name: ClassVar[str] = "cuda"

    def describe(self) -> TargetDescription:
        # No GPU multiplies E5M2 by E5M2: it is a format of gradients.
        taken = tuple(each for each in FORMATS if {each.activation, each.weight} != {"float8e5m2"})
        return TargetDescription(
            name=self.name,
            title="NVIDIA GPU, FP8",
            summary="QDQ ONNX file with float8 types, multiplied by FP8 tensor cores through torch",
            ops=dict.fromkeys(MULTIPLYING, taken),
            rounding_profile=PROFILE,
            channel_divisor=16,
            differing_codes=DIFFERING_CODES,
        )

    def tools(self) -> Sequence[Tool]:
        return (Tool("torch", "pip install torch", package=True), ONNXRUNTIME)

    def unavailable(self) -> str:
        """Why there is no FP8 on this machine; empty where there is."""
        import torch

        wanted = f"compute capability {NEEDED[0]}.{NEEDED[1]} or newer"
        if not torch.cuda.is_available():
            built = (
                "" if torch.version.cuda else f"; torch {torch.__version__} is built without CUDA"
            )
            return f"no CUDA device with FP8 ({wanted}) here{built}"
        major, minor = torch.cuda.get_device_capability()
        if (major, minor) < NEEDED:
            name = torch.cuda.get_device_name()
            return f"no CUDA device with FP8: {name!r} has {major}.{minor}, not {wanted}"
        return ""

    def run(
        self, products: BuildProducts, inputs: Sequence[Codes], *, trace: bool = False
    ) -> dict[str, Codes]:
        given: Any = inputs  # real values: such a file has no integers at its ends
        found: Any = self._executor(products).run(given, trace=trace)
        values: dict[str, Codes] = found
        return values

    def float_baseline(self, float_onnx: Path, folder: Path) -> Path | None:
        return None

    def measure_latency(
        self, products: BuildProducts, baseline: Path | None, options: LatencyOptions
    ) -> LatencyRun:
        """One sample per call, from the input in host memory to the output's bits there."""
        import torch

        from edgesmith.targets.cpu.statistics import latency_series
        from edgesmith.targets.fp8.executor import float32_products

        executor = self._executor(products)
        sample = [torch.zeros(size) for size in executor.sizes]
        times = []
        with torch.no_grad(), float32_products():
            for call in range(options.warmups + options.runs):
                start = time.perf_counter_ns()
                values = executor.run_one(sample)
                executor.result(values).cpu()  # waits for the device
                if call >= options.warmups:
                    times.append((time.perf_counter_ns() - start) / 1e6)
        conditions = {"threads": str(options.threads), "warmups": str(options.warmups)}
        if executor.device.type == "cuda":
            conditions["device"] = torch.cuda.get_device_name()
        return LatencyRun(latency_series("deployed", times, self.name, conditions), None)

    def peak_memory_bytes(self, products: BuildProducts) -> int | None:
        """Of the device, which loading and one run add."""
        import torch

        if self.device_name != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        executor = self._executor(products)
        with torch.no_grad():
            executor.run_one([torch.zeros(size) for size in executor.sizes])
        return max(0, torch.cuda.max_memory_allocated() - before)

    def _executor(self, products: BuildProducts) -> Executor:
        from edgesmith.targets.fp8.executor import Executor

        return Executor((Path(products.folder) / products.main).read_bytes(), self.device_name)
