"""Cost models: what layers and models cost on a target, looked up instead of run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesmith.pipeline.errors import TargetUnsupportedError
from edgesmith.targets.cost.base import (
    CostError,
    CostModel,
    ErrorSample,
    Figure,
    Filled,
    LayerCost,
    Metric,
    MetricError,
    ModelCost,
)

if TYPE_CHECKING:
    from edgesmith.targets.base import Target

__all__ = [
    "CostError",
    "CostModel",
    "ErrorSample",
    "Figure",
    "Filled",
    "LayerCost",
    "Metric",
    "MetricError",
    "ModelCost",
    "cost_model",
]


def cost_model(target: Target, folder: Path) -> CostModel:
    """The cost model of a target.

    Args:
        folder: where it keeps what it measures.

    Raises:
        TargetUnsupportedError: the target has none.
    """
    if not target.describe().cost_metrics:
        raise TargetUnsupportedError(
            f"target {target.name!r} has no cost model",
            fix="search for a target that has one (cortex-m4, cpu-litert, ...)",
        )
    from edgesmith.targets.cost.cpu import CpuCost
    from edgesmith.targets.cost.microcontroller import MicrocontrollerCost
    from edgesmith.targets.cpu.measure import CpuTarget
    from edgesmith.targets.mcu.target import MicrocontrollerTarget

    if isinstance(target, CpuTarget):
        return CpuCost(target, folder)
    assert isinstance(target, MicrocontrollerTarget)
    return MicrocontrollerCost(target, folder)
