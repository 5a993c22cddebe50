"""The model that is quantized: the trained one, or the pruned one where the spec prunes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from edgesmith.pipeline.spec import Spec
    from edgesmith.pipeline.stage import StageContext
    from edgesmith.prune.values import PruneResult

PRUNE = "prune"


def prunes(spec: Spec) -> bool:
    """Whether the spec names the stage `prune`."""
    return spec.has_stage(PRUNE)


def with_pruning(spec: Spec, *stages: str) -> tuple[str, ...]:
    """What a stage requires that takes the model to quantize: `stages`, and `prune` if it runs."""
    return (*stages, PRUNE) if prunes(spec) else stages


def model_to_quantize(context: StageContext) -> nn.Module:
    """The float model that goes on, from the outputs of `load` and, where it ran, `prune`.

    Raises:
        CheckpointError: weights or plan do not fit the factory's model.
        CacheError: a file is missing or damaged.
    """
    from edgesmith.pipeline.torch_model import build, load_model

    spec = context.spec
    if PRUNE not in context.inputs:
        return load_model(spec, context.inputs["load"])
    from edgesmith.prune.stored import load_pruned

    assert spec.model.kind == "torch"
    return load_pruned(context.inputs[PRUNE], build(spec.model, spec.folder))


def pruning_result(context: StageContext) -> PruneResult | None:
    """What pruning did; None where nothing was pruned.

    Raises:
        CacheError: the file is missing or damaged.
    """
    if PRUNE not in context.inputs:
        return None
    from edgesmith.prune.stored import load_result

    return load_result(context.inputs[PRUNE])
