"""Images as a camera could have taken them too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgesmith.pipeline.training.options import Training


def augmented(x: Tensor, options: Training) -> Tensor:
    """Images [N, C, H, W], some mirrored, all shifted with zeros behind them; anything else as
    it is.
    """
    if x.ndim != 4:
        return x
    if options.flip:
        mirrored = torch.rand(len(x)) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    shift = options.shift
    rows, columns = shift if isinstance(shift, tuple) else (shift, shift)
    if not rows and not columns:
        return x
    height, width = x.shape[-2:]
    # [N, C, 2 * rows + 1, 2 * columns + 1, H, W]: a view of every image at every shift.
    padded = F.pad(x, (columns, columns, rows, rows))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    down, right = (torch.randint(0, 2 * reach + 1, (len(x),)) for reach in (rows, columns))
    return windows[torch.arange(len(x)), :, down, right]
