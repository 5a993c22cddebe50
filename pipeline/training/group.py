"""Processes that train one model together: each a part of every batch, all the same steps.

Gradients are added up over the processes before every step, so that weights stay the same in all of
them. What depends on chance is drawn from the same seeds everywhere; what depends on a part of the
batch, or on time, is agreed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

Pair = tuple[float, float]
_PATIENCE = timedelta(minutes=30)  # the first one judges alone, on all of the selection split


class Group:
    """One process that trains alone; others inherit from it.

    Attributes:
        rank: number of this process; the first, 0, judges, writes and reports.
        count: of all processes.
    """

    rank = 0
    count = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """What this process has of a batch; at least two samples of one with two per process."""
        return batch

    def agreed(self, ok: bool) -> bool:
        """Whether it is so in all processes."""
        return ok

    def mean(self, value: float) -> float:
        """Over all processes."""
        return value

    def add(self, parameters: Iterable[Tensor], share: float) -> None:
        """Add up gradients, each process's by its share of the batch."""

    def told(self, ask: Callable[[], Pair]) -> Pair:
        """What the first process finds; the others wait for it."""
        return ask()

    def close(self) -> None:
        """Leave the others; called once, whatever has happened: libraries that find a group open
        wait for its members.
        """


class Gloo(Group):
    """One of several processes on this machine, joined by a file.

    Args:
        meeting: a path where nothing is yet, the same in all processes.

    Raises:
        RuntimeError: the others did not come, or, later, one of them is gone.
    """

    def __init__(self, rank: int, count: int, meeting: Path) -> None:
        self.rank, self.count = rank, count
        dist.init_process_group(
            "gloo", f"file://{meeting}", timeout=_PATIENCE, rank=rank, world_size=count
        )

    def part(self, batch: Tensor) -> Tensor:
        return batch.tensor_split(self.count)[self.rank]

    def agreed(self, ok: bool) -> bool:
        return self.mean(float(ok)) == 1.0

    def mean(self, value: float) -> float:
        held = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(held)
        return float(held) / self.count

    def add(self, parameters: Iterable[Tensor], share: float) -> None:
        # A parameter that no sub-network of this step has is without a gradient in all processes.
        gradients = [each.grad for each in parameters if each.grad is not None]
        flat = torch.cat([each.flatten() for each in gradients]).mul_(share)
        dist.all_reduce(flat)
        for each, summed in zip(
            gradients, flat.split([each.numel() for each in gradients]), strict=True
        ):
            each.copy_(summed.view(each.shape))

    def told(self, ask: Callable[[], Pair]) -> Pair:
        held = torch.tensor(ask() if self.first else (0.0, 0.0), dtype=torch.float64)
        dist.broadcast(held, 0)
        first, second = held.tolist()
        return first, second

    def close(self) -> None:
        dist.destroy_process_group()
