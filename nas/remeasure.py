"""Members of a front as they ship: built for the target, proven, and measured there as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgesmith.pipeline.lowering import build_for, deploy_exported, prove
from edgesmith.pipeline.values import BuildProducts, Kind, Measurement
from edgesmith.quantize.export import to_onnx
from edgesmith.quantize.ptq import QuantizedModel
from edgesmith.targets.base import LatencyOptions, Target
from edgesmith.targets.c.vectors import random_codes
from edgesmith.targets.cost import Metric
from edgesmith.targets.graph.ir import Graph
from edgesmith.targets.graph.onnx_reader import read_onnx

_INPUTS = 4
_LATENCY = LatencyOptions(warmups=20, runs=200, burst=10)


@dataclass(frozen=True)
class Member:
    """A candidate that was built.

    Args:
        measured: by the names that cost models use.
        compared: tensors of the artifact that are, bit for bit, those that were scored.
    """

    measured: dict[str, Measurement]
    compared: int


def deployed(quantized: QuantizedModel, target: Target, folder: Path) -> Member:
    """A candidate's own artifact.

    Args:
        quantized: the candidate as it was scored.
        folder: where it is built; it stays there.

    Raises:
        EdgesmithError: it cannot be built, does not fit, is not what was scored, or cannot be run.
    """
    exported, searched = to_onnx(quantized).SerializeToString(), quantized.searched()
    if target.deploys_exported:
        products, parity = deploy_exported(exported, searched, target, folder)
        return Member(_here(target, products), parity.compared)
    products, graph = build_for(read_onnx(exported, "candidate"), target, folder)
    parity, _ = prove(searched, target, products, graph.positions)
    return Member(_on_core(target, products, graph) or _here(target, products), parity.compared)


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
