"""What the weights of a layer are multiplied with: a convolution's patches, or plain inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def columns_of(layer: nn.Module, x: Tensor) -> Tensor:
    """What each weight meets for inputs [N, ...]: [groups, K, positions of all samples].

    K is the number of weights that make one output, in the order of `layer.weight[0].flatten()`.

    Args:
        layer: a convolution over one or two dimensions, or a linear layer.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1]).transpose(1, 2)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, pads_of(layer), mode)
    # A one-dimensional convolution is one over an image of one row.
    flat = isinstance(layer, nn.Conv1d)
    ones = (1,) if flat else ()
    unfolded: Tensor = F.unfold(  # [N, C * kernel, positions]
        x.unsqueeze(2) if flat else x,
        (*ones, *layer.kernel_size),
        (*ones, *layer.dilation),
        0,
        (*ones, *layer.stride),
    )
    grouped: Tensor = unfolded.unflatten(1, (layer.groups, -1)).permute(1, 2, 0, 3)
    return grouped.reshape(layer.groups, grouped.shape[1], -1)


def same_padding(kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros that torch's `same` adds before and after each axis; an odd one comes after."""
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def pads_of(layer: nn.Conv1d | nn.Conv2d) -> list[int]:
    """As `F.pad` takes them: before and after, the last axis first."""
    if layer.padding == "same":
        sides = same_padding(layer.kernel_size, layer.dilation)
    elif layer.padding == "valid":
        sides = [(0, 0)] * len(layer.kernel_size)
    else:
        sides = [(int(each), int(each)) for each in layer.padding]
    return [side for pair in reversed(sides) for side in pair]
