"""How far an output may reach over the input that a sliding window still needs."""

from __future__ import annotations

import numpy as np

from edgesmith.targets.c.program import Overlap
from edgesmith.targets.graph.ir import Padding, Pair

Shape = tuple[int, ...]


def overlap(
    source: Shape,
    result: Shape,
    stride: Pair,
    padding: Padding,
    *,
    element_bytes: int = 1,
    positions_per_step: int = 1,
    delay: int = 0,
) -> Overlap:
    """The overlap of a window operator that works position by position.

    A step reads the windows of `positions_per_step` consecutive output positions and writes
    all channels of them; `delay` steps are read in full before the first of them is written.
    Input before the first element of every later window is not needed any more.

    Args:
        source, result: shapes [N, H, W, C] of input and output.
        element_bytes: of both.
    """
    batch, height, width, channels = source
    _, out_height, out_width, out_channels = result
    rows = np.clip(np.arange(out_height) * stride[0] - padding.top, 0, height)
    columns = np.clip(np.arange(out_width) * stride[1] - padding.left, 0, width)
    image = (rows[:, None] * width + columns).reshape(-1)
    starts = (np.arange(batch)[:, None] * height * width + image).reshape(-1)
    needed = np.minimum.accumulate(starts[::-1])[::-1] * channels
    begins = np.arange(0, len(starts), positions_per_step)
    ends = np.minimum(begins + positions_per_step, len(starts))
    begins, ends = begins[delay:], ends[: max(len(ends) - delay, 0)]
    lead = ends * out_channels - needed[begins]
    nothing_left = -batch * height * width * channels
    return Overlap(int(lead.max(initial=nothing_left)) * element_bytes)
