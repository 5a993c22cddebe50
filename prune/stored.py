"""A pruned model on disk: plan, weights, masks, result; no module is ever pickled."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pydantic
import safetensors.torch
from torch import nn

from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.torch_model import WEIGHTS, load_weights, read_checkpoint
from edgesmith.prune.driver import Pruned
from edgesmith.prune.masks import save_masks
from edgesmith.prune.surgery import apply_plan
from edgesmith.prune.values import PrunePlan, PruneResult

T = TypeVar("T")

PLAN, RESULT = "plan.json", "prune.json"


def save_pruned(pruned: Pruned, folder: Path) -> None:
    """Write into an existing folder."""
    save_smaller(pruned.module, pruned.plan, folder)
    (folder / RESULT).write_text(to_json(pruned.result), encoding="utf-8")
    if pruned.masks:
        save_masks(folder, pruned.masks)


def save_smaller(module: nn.Module, plan: PrunePlan, folder: Path) -> None:
    """Write a smaller module, as `load_pruned` reads it, into an existing folder."""
    state = {name: value.clone() for name, value in module.state_dict().items()}
    safetensors.torch.save_file(state, str(folder / WEIGHTS))
    (folder / PLAN).write_text(to_json(plan), encoding="utf-8")


def load_pruned(folder: Path, original: nn.Module, stage: str = "prune") -> nn.Module:
    """A smaller module, in eval mode.

    Args:
        original: the model that was cut; only its structure is used, and it is not changed.
        stage: that wrote it.

    Raises:
        CacheError: the plan is missing or damaged.
        CheckpointError: plan or weights belong to another model.
    """
    module = apply_plan(original, _read(PrunePlan, folder / PLAN, stage))
    load_weights(module, read_checkpoint(folder / WEIGHTS), f"the weights of `{stage}`")
    return module


def load_result(folder: Path) -> PruneResult:
    """What pruning did.

    Raises:
        CacheError: the file is missing or damaged.
    """
    return _read(PruneResult, folder / RESULT, "prune")


def _read(kind: type[T], path: Path, stage: str) -> T:
    try:
        return from_json(kind, path.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        raise CacheError(
            f"{path.name} of the smaller model cannot be read: {type(error).__name__}",
            fix=f"run the stage again with --force {stage}",
        ) from error
