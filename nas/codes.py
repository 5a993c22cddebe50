"""Rounded activations that wait for the backward pass as the 8-bit codes that they are.

A layer keeps what it reads until its gradient is computed. Where that was rounded on the way, codes
say the same in a quarter of the memory, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

_CODES = 256


@dataclass(frozen=True, eq=False)
class Grid:
    """What a tensor's values lie on: codes from `least` on, times `scale`.

    Args:
        scale: one number.
    """

    scale: Tensor
    least: float
    most: float

    @property
    def small(self) -> bool:
        """Whether a byte holds every code."""
        return self.most - self.least < _CODES


@dataclass(frozen=True, eq=False)
class _Packed:
    codes: Tensor
    grid: Grid


class Codes:
    """Hooks for `torch.autograd.graph.saved_tensors_hooks`; those of one forward pass."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, Grid]] = {}

    def note(self, values: Tensor, grid: Grid) -> None:
        """These values, all of their storage, lie on the grid."""
        if grid.small:
            storage = values.untyped_storage()
            # As long as the weak reference is held, its address is nobody else's.
            self._known[storage._cdata] = StorageWeakRef(storage), grid

    def pack(self, saved: Tensor) -> Tensor | _Packed:
        """Codes of what is known to have them; anything else as it is."""
        known = self._known.get(saved.untyped_storage()._cdata)
        if known is None or known[0].expired():
            return saved
        grid = known[1]
        codes = (saved / grid.scale).round_().sub_(grid.least)
        return _Packed(codes.to(torch.uint8), grid)

    def unpack(self, held: Tensor | _Packed) -> Tensor:
        """The values again."""
        if isinstance(held, Tensor):
            return held
        return held.codes.float().add_(held.grid.least).mul_(held.grid.scale)
