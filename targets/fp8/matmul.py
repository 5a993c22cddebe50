"""Products of 8-bit floats on hardware that has them: one call, `torch._scaled_mm`.

On GPUs of compute capability 8.9 and newer that is cuBLASLt's FP8 matrix product on tensor
cores; on CPUs torch computes it in float32. Products of codes are exact in float32, sums are
rounded in the hardware's order. Scales are applied after the sum, so that weights can have one
per channel. An 8-bit float has no zero point: what fills rows up to the 16 that the hardware
wants is the code of zero.

Formats: Micikevicius et al., "FP8 Formats for Deep Learning" (arXiv:2209.05433).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

_MULTIPLE = 16


@dataclass(frozen=True)
class Coded:
    """A tensor as codes, with one scale or one per entry of `axis`; `zero` is of integers."""

    codes: Tensor
    scale: Tensor
    axis: int | None = None
    zero: Tensor | None = None

    @property
    def is_float8(self) -> bool:
        return self.codes.dtype in (torch.float8_e4m3fn, torch.float8_e5m2)

    def real(self) -> Tensor:
        """The values, float32."""
        shape = [1] * self.codes.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        values = self.codes.to(torch.float32)
        if self.zero is not None:
            values = values - self.zero.to(torch.float32).reshape(shape)
        return values * self.scale.reshape(shape)

    def transposed(self, order: list[int]) -> Coded:
        """The same codes with their axes in another order."""
        axis = None if self.axis is None else order.index(self.axis)
        return replace(self, codes=self.codes.permute(order), axis=axis)


def multiplies(left: object, right: object) -> bool:
    """Whether the hardware multiplies two operands: 8-bit floats, not E5M2 both."""
    if not (isinstance(left, Coded) and isinstance(right, Coded)):
        return False
    types = {left.codes.dtype, right.codes.dtype}
    return left.is_float8 and right.is_float8 and torch.float8_e4m3fn in types


def product(left: Tensor, right: Tensor) -> Tensor:
    """left [M, K] times right [N, K] transposed, codes as values at scale 1: float32 [M, N]."""
    rows, columns = left.shape[0], right.shape[0]
    one = torch.ones((), device=left.device)
    found = torch._scaled_mm(
        _filled(left, 0),
        _filled(right, _MULTIPLE).t(),
        scale_a=one,
        scale_b=one,
        out_dtype=torch.float32,
        use_fast_accum=False,
    )
    return found[:rows, :columns]


def _filled(codes: Tensor, rows: int) -> Tensor:
    """Zeros behind the last axis up to a multiple of 16; behind the first too, of `rows`."""
    short = [(-codes.shape[1]) % _MULTIPLE, (-codes.shape[0]) % rows if rows else 0]
    padded = F.pad(codes.contiguous().view(torch.uint8), (0, short[0], 0, short[1]))
    return padded.view(codes.dtype)


def linear(x: Coded, weight: Coded) -> Tensor:
    """x [..., K] times weight [N, K] transposed: real values [..., N]."""
    codes = x.codes.reshape(-1, x.codes.shape[-1])
    found = product(codes, weight.codes) * x.scale * weight.scale.reshape(-1)
    return found.reshape(*x.codes.shape[:-1], -1)


def matmul(left: Coded, right: Coded) -> Tensor:
    """left [..., M, K] times right [..., K, N], as `torch.matmul`: real values."""
    batch = torch.broadcast_shapes(left.codes.shape[:-2], right.codes.shape[:-2])
    several = [
        each.codes.expand(*batch, *each.codes.shape[-2:]).reshape(-1, *each.codes.shape[-2:])
        for each in (left, right)
    ]
    found = [product(a, b.t()) for a, b in zip(*several, strict=True)]
    sizes = (*batch, left.codes.shape[-2], right.codes.shape[-1])
    # A scale per channel of the right operand is one per column, as of a transposed weight.
    return torch.stack(found).reshape(sizes) * left.scale * right.scale


def convolution(
    x: Coded,
    weight: Coded,
    *,
    strides: list[int],
    pads: list[int],
    dilations: list[int],
    groups: int,
) -> Tensor:
    """x [N, C, *space] with weight [O, C / groups, *kernel]: unfolded, then matrix products.

    Returns:
        Real values [N, O, *space], without bias.
    """
    kernel = weight.codes.shape[2:]
    patches, space = windows(x.codes, list(kernel), strides, pads, dilations)
    size = patches.shape[1] // groups
    filters = weight.codes.reshape(groups, weight.codes.shape[0] // groups, -1)
    parts = []
    for group, rows in enumerate(filters):
        taken = patches[:, group * size : (group + 1) * size]
        parts.append(product(taken.flatten(1), rows))
    sums = torch.cat(parts, 1) * x.scale * weight.scale.reshape(-1)
    return sums.reshape(x.codes.shape[0], *space, -1).movedim(-1, 1)


def windows(
    codes: Tensor, kernel: list[int], strides: list[int], pads: list[int], dilations: list[int]
) -> tuple[Tensor, list[int]]:
    """What every output of a convolution reads: codes [N * outputs, C, *kernel].

    Args:
        codes: [N, C, *space].
        pads: before every axis of space, then after; filled with zeros.

    Returns:
        The windows, and the sizes of the output's space.
    """
    axes = len(kernel)
    around = [side for at in reversed(range(axes)) for side in (pads[at], pads[axes + at])]
    padded = F.pad(codes.contiguous().view(torch.uint8), around)
    space = [
        (size - dilation * (length - 1) - 1) // stride + 1
        for size, dilation, length, stride in zip(
            padded.shape[2:], dilations, kernel, strides, strict=True
        )
    ]
    batch, channels, *steps = padded.stride()
    view = padded.as_strided(
        (padded.shape[0], *space, padded.shape[1], *kernel),
        (
            batch,
            *(step * stride for step, stride in zip(steps, strides, strict=True)),
            channels,
            *(step * dilation for step, dilation in zip(steps, dilations, strict=True)),
        ),
    )
    rows = view.reshape(-1, padded.shape[1], *kernel)
    return rows.view(codes.dtype), space
