"""Batch statistics of a sub-network, measured with its own weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgesmith.prune.reconstruction import measured_statistics

_TOGETHER = 512


@torch.no_grad()
def recalibrated(module: nn.Module, inputs: Tensor) -> nn.Module:
    """The module in eval mode, its batch norms with the statistics of these inputs.

    Args:
        inputs: [N, *sample shape]; of one batch, so a few hundred suffice.
    """
    with measured_statistics(module, len(inputs)):
        module(inputs)
    return module.eval()
