"""Latency of a deployed model and its float baseline, interleaved in one worker process."""

from __future__ import annotations

from pathlib import Path

from edgesmith.pipeline.values import BuildProducts
from edgesmith.targets.base import LatencyOptions, LatencyRun
from edgesmith.targets.cpu.runtime import Runtime
from edgesmith.targets.cpu.statistics import latency_series


def measure_interleaved(
    target: str,
    runtime: Runtime,
    products: BuildProducts,
    baseline: Path | None,
    options: LatencyOptions,
) -> LatencyRun:
    """Time both models in turn, one sample a call.

    Raises:
        ToolFailedError: the runtime refused a model, crashed or hung.
    """
    models = [Path(products.folder) / products.main, *([baseline] if baseline else [])]
    samples = runtime.latency(models, options)
    conditions = {"threads": str(options.threads), "warmups": str(options.warmups)}
    series = [
        latency_series(form, times, target, conditions)
        for form, times in zip(("deployed", "float"), samples, strict=False)
    ]
    return LatencyRun(series[0], series[1] if baseline else None)
