"""Members of a front as they ship: built for the target and measured there as a whole."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgesmith.nas.evaluation import Evaluator
from edgesmith.nas.space import Choice
from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.values import BuildProducts, Kind, Measurement
from edgesmith.targets.base import LatencyOptions, Target
from edgesmith.targets.c.vectors import random_codes
from edgesmith.targets.cost import Metric
from edgesmith.targets.graph.ir import Graph

_INPUTS = 4
_LATENCY = LatencyOptions(warmups=20, runs=200, burst=10)


def remeasured(
    evaluator: Evaluator, choices: Mapping[str, Choice], target: Target
) -> dict[str, Measurement]:
    """Metrics of a candidate's own artifact, by the names that cost models use.

    Raises:
        EdgesmithError: it cannot be built, does not fit, or cannot be run.
    """
    graph = evaluator.graph(choices)
    with tempfile.TemporaryDirectory(prefix="edgesmith-front-") as folder:
        products = execute_plan(target.build(graph), Path(folder))
        target.check_fit(products)
        return _on_core(target, products, graph) or _here(target, products)


def _on_core(target: Target, products: BuildProducts, graph: Graph) -> dict[str, Measurement]:
    """What an emulated core counts; nothing where there is none."""
    device = target.device(products, random_codes(graph, _INPUTS, seed=0xF207))
    if device is None:
        return {}
    found = {
        Metric.INSTRUCTIONS: device.instructions,
        Metric.CYCLES: device.cycles,
        Metric.TIME: device.time,
        Metric.FLASH: device.flash,
        Metric.ARENA: device.arena,
    }
    return {metric.value: each for metric, each in found.items() if each is not None}


def _here(target: Target, products: BuildProducts) -> dict[str, Measurement]:
    """What this machine measures."""
    size = float(target.deployed_bytes(products))
    flash = Measurement(Metric.FLASH.value, size, "bytes", Kind.MEASURED, target.name, 1)
    found = {Metric.FLASH.value: flash}
    timed = target.measure_latency(products, None, _LATENCY)
    if timed is not None:
        found[Metric.TIME.value] = timed.deployed.median
    return found
