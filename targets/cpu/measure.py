"""What every CPU target measures, whatever its file: latency against float, and peak memory."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.values import BuildPlan, BuildProducts
from edgesmith.targets.base import LatencyOptions, LatencyRun, Target

if TYPE_CHECKING:
    from edgesmith.targets.cpu.runtime import Runtime
    from edgesmith.targets.graph.ir import DType, Graph


CPU_METRICS = ("time", "flash")
"""What the cost model of a CPU runtime knows; flash is the file."""


class CpuTarget(Target):
    """A runtime on this machine's CPU, in a worker process."""

    fuses_padding: ClassVar[bool] = False
    """Whether the runtime computes padding inside the convolution that reads it."""
    probes_convert: ClassVar[bool] = False
    """Whether probes convert at their inputs and outputs, which costs what `boundary` tells."""

    def probe(self, graph: Graph) -> BuildPlan:
        """A file in which operators run in the form that they have inside a model."""
        return self.build(graph)

    def boundary(self, dtype: DType, elements: int) -> BuildPlan:
        """A file that does once what a probe adds at an input, and once what at an output."""
        raise NotImplementedError

    @abstractmethod
    def runtime(self) -> Runtime:
        """The runtime that executes the file."""

    def measure_latency(
        self, products: BuildProducts, baseline: Path | None, options: LatencyOptions
    ) -> LatencyRun | None:
        from edgesmith.targets.cpu.statistics import latency_series

        models = [Path(products.folder) / products.main, *([baseline] if baseline else [])]
        samples = self.runtime().latency(models, options)
        conditions = {"threads": str(options.threads), "warmups": str(options.warmups)}
        series = [
            latency_series(form, times, self.name, conditions)
            for form, times in zip(("deployed", "float"), samples, strict=False)
        ]
        return LatencyRun(series[0], series[1] if baseline else None)

    def peak_memory_bytes(self, products: BuildProducts) -> int | None:
        return self.runtime().peak_memory(Path(products.folder) / products.main)
