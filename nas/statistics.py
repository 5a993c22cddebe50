"""Batch statistics of a sub-network, measured with its own weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgesmith.prune.reconstruction import measured_statistics


@torch.no_grad()
def recalibrated(module: nn.Module, inputs: Tensor, together: int | None = None) -> nn.Module:
    """The module in eval mode, its batch norms with the statistics of these inputs.

    Args:
        inputs: [N, *sample shape]; a few hundred suffice.
        together: samples per batch, whose statistics are averaged; all if not given.
    """
    with measured_statistics(module, len(inputs)):
        batches = inputs.split(together or len(inputs))
        # One sample alone has no variance; among others it counts for little.
        for batch in [each for each in batches if len(each) > 1] or batches:
            module(batch)
    return module.eval()
