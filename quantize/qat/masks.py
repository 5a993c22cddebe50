"""Zeros of a pruned model, found again in the network that is quantized.

The layers of that network are made of the model's parameters: batch norms are folded into them,
one parameter becomes several layers (attention's input projection), names change. So masks take
the same way as weights do: a copy of the model whose weights are 1 where the mask keeps one and 0
elsewhere is traced, normalized and folded, and what is 0 there is masked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgesmith.pipeline.errors import CheckpointError, QuantizationError
from edgesmith.quantize.groups import draft_of
from edgesmith.quantize.placement import Placement
from edgesmith.quantize.trace import float_copy

if TYPE_CHECKING:
    from edgesmith.prune.masks import Masks

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@torch.no_grad()
def folded_masks(
    model: nn.Module, masks: Masks, sample_shape: tuple[int, ...]
) -> dict[str, Tensor]:
    """Masks of the network's layers.

    Args:
        model: the pruned model; it is not changed.
        masks: parameter name -> bool, True where a weight stays.
        sample_shape: of one input, without the batch.

    Returns:
        Layer -> bool [O, ...], for layers with at least one zero.

    Raises:
        CheckpointError: a mask belongs to another model.
    """
    if not masks:
        return {}
    shadow = float_copy(model)
    parameters = dict(shadow.named_parameters())
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise CheckpointError(
                f"the mask of {name!r} does not fit {type(model).__name__}",
                fix="run the prune stage again with --force prune",
            )
    for name, value in parameters.items():
        value.copy_(masks[name].float() if name in masks else torch.ones(()))
    for module in shadow.modules():
        if isinstance(module, _NORMS):
            module.reset_running_stats()
    draft = draft_of(shadow, torch.zeros(1, *sample_shape))
    found = {name: weight != 0 for name, (weight, _) in draft.weights.items()}
    return {name: mask for name, mask in found.items() if not mask.all()}


def check_masked_formats(masks: Masks, placement: Placement) -> None:
    """Every masked layer needs a format that has a zero.

    Args:
        masks: by layer, as `folded_masks` finds them.

    Raises:
        QuantizationError: one is binary.
    """
    for name in masks:
        fmt = placement.policy.groups[name].weight
        if fmt is not None and fmt.is_binary:
            raise QuantizationError(
                f"layer {name!r} has weights that were pruned to zero, and the format {fmt.name},"
                " which has no zero",
                fix="give the layer int2 or more bits, or exclude it from `sparsity`",
            )
