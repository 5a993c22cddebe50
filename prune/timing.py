"""Whether a pruned model is faster on a target that counts nothing: both are timed, interleaved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesmith.pipeline.errors import NotFasterError
from edgesmith.pipeline.execution import execute_plan
from edgesmith.pipeline.lowering import build_for
from edgesmith.prune.costs import Inputs, exported
from edgesmith.prune.values import Speedup
from edgesmith.targets.base import LatencyOptions
from edgesmith.targets.graph.onnx_reader import read_onnx

if TYPE_CHECKING:
    from torch import nn

    from edgesmith.pipeline.values import BuildProducts
    from edgesmith.quantize.options import PTQOptions
    from edgesmith.targets.base import Target

_OPTIONS = LatencyOptions(warmups=30, runs=300)


def require_faster(timed: Speedup, target: str) -> None:
    """Refuse a pruned model that is not faster.

    Raises:
        NotFasterError: both latencies are named.
    """
    if timed.after.value >= timed.before.value:
        raise NotFasterError(
            f"a pruned model must be faster on the target it was pruned for; on {target!r} it takes"
            f" {timed.after.value:.4g} {timed.after.unit}, unpruned"
            f" {timed.before.value:.4g} {timed.before.unit}",
            fix="prune further (a lower `cost`), or for a target that counts what it runs",
        )


def speedup(
    target: Target,
    whole: nn.Module,
    pruned: nn.Module,
    inputs: Inputs,
    formats: PTQOptions,
    folder: Path,
) -> Speedup | None:
    """Both models on a target, quantized in a moment; None where it cannot be timed here.

    Args:
        inputs: [N, *sample shape], which scales are taken from.
        formats: how the deployed model will be quantized.
        folder: an existing one, for both artifacts.

    Raises:
        TargetUnsupportedError: the target cannot run the models.
    """
    if target.unavailable():
        return None
    before, after = (
        _built(target, exported(model, inputs, formats), folder / name)
        for name, model in (("whole", whole), ("pruned", pruned))
    )
    timed = target.measure_latency(after, Path(before.folder) / before.main, _OPTIONS)
    if timed is None or timed.float_baseline is None:
        return None
    return Speedup(timed.float_baseline.median, timed.deployed.median)


def _built(target: Target, model: bytes, folder: Path) -> BuildProducts:
    folder.mkdir()
    if target.deploys_exported:
        return execute_plan(target.build_exported(model), folder)
    return build_for(read_onnx(model, "model"), target, folder)[0]
