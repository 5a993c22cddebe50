"""SAME and VALID padding as TFLite resolves them, and back from explicit numbers.

Source: TFLite `kernels/padding.h`: SAME pads so that out = ceil(in / stride),
with the odd element after (bottom or right).
"""

from __future__ import annotations

from enum import StrEnum

from edgesmith.targets.graph.ir import Padding, Pair


class PaddingScheme(StrEnum):
    """The two padding schemes that TFLite stores."""

    SAME = "same"
    VALID = "valid"


def _same_axis(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    out = -(-size // stride)
    reach = (kernel - 1) * dilation + 1
    total = max(0, (out - 1) * stride + reach - size)
    return total // 2, total - total // 2


def same_padding(size: Pair, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Padding:
    """The explicit padding that SAME means for an input of `size` (height, width)."""
    top, bottom = _same_axis(size[0], kernel[0], stride[0], dilation[0])
    left, right = _same_axis(size[1], kernel[1], stride[1], dilation[1])
    return Padding(top, bottom, left, right)


def scheme_of(
    padding: Padding, size: Pair, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)
) -> PaddingScheme | None:
    """The scheme that equals this explicit padding, or None where neither does."""
    if padding == Padding():
        return PaddingScheme.VALID
    if padding == same_padding(size, kernel, stride, dilation):
        return PaddingScheme.SAME
    return None


def output_size(
    size: Pair, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair = (1, 1)
) -> Pair:
    """Spatial output size (height, width); not positive where the window does not fit."""
    height = size[0] + padding.top + padding.bottom - (kernel[0] - 1) * dilation[0] - 1
    width = size[1] + padding.left + padding.right - (kernel[1] - 1) * dilation[1] - 1
    return height // stride[0] + 1, width // stride[1] + 1
