"""The model that is quantized: the trained one, or what searching or pruning made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from edgesmith.nas.values import SearchResult
    from edgesmith.pipeline.spec import Spec
    from edgesmith.pipeline.stage import StageContext
    from edgesmith.prune.values import PruneResult

SEARCH, PRUNE = "search", "prune"
SMALLER = (SEARCH, PRUNE)
"""Stages that make a smaller model, each of what the one before gives."""


def smaller(spec: Spec) -> tuple[str, ...]:
    """Those of `SMALLER` that the spec names."""
    return tuple(stage for stage in SMALLER if spec.has_stage(stage))


def with_pruning(spec: Spec, *stages: str) -> tuple[str, ...]:
    """What a stage requires that takes the model to quantize: `stages`, and those of `SMALLER`."""
    return (*stages, *smaller(spec))


def teacher_of(context: StageContext) -> nn.Module | None:
    """The trained model, where what is quantized was made smaller: it knows more; else None.

    Raises:
        CheckpointError, CacheError: as `model_to_quantize`.
    """
    from edgesmith.pipeline.torch_model import load_model

    if not smaller(context.spec):
        return None
    return load_model(context.spec, context.inputs["load"])


def model_to_quantize(context: StageContext) -> nn.Module:
    """The float model that goes on, from the outputs of `load` and of `SMALLER`, where they ran.

    Raises:
        CheckpointError: weights or plan do not fit the factory's model.
        CacheError: a file is missing or damaged.
    """
    from edgesmith.pipeline.torch_model import build, load_model

    spec = context.spec
    made = [stage for stage in SMALLER if stage in context.inputs]
    if not made:
        return load_model(spec, context.inputs["load"])
    from edgesmith.prune.stored import load_pruned

    assert spec.model.kind == "torch"
    model = build(spec.model, spec.folder)
    for stage in made:
        model = load_pruned(context.inputs[stage], model, stage)
    return model


def pruning_result(context: StageContext) -> PruneResult | None:
    """What pruning did; None where nothing was pruned.

    Raises:
        CacheError: the file is missing or damaged.
    """
    if PRUNE not in context.inputs:
        return None
    from edgesmith.prune.stored import load_result

    return load_result(context.inputs[PRUNE])


def search_result(context: StageContext) -> SearchResult | None:
    """What the search found; None where there was none.

    Raises:
        CacheError: the file is missing or damaged.
    """
    if SEARCH not in context.inputs:
        return None
    from edgesmith.nas.stored import load_result

    return load_result(context.inputs[SEARCH])
