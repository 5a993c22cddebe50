"""Random search: the baseline that every other sampler has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgesmith.nas.samplers._record import Record
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.values import Proposal, Task


@dataclass(frozen=True)
class Random(Sampler):
    """Every choice equally likely; what is known to exceed a limit is drawn again.

    Args:
        batch: candidates at a time.
    """

    name: ClassVar[str] = "random"
    batch: Annotated[int, Field(ge=1)] = 50

    def run(self, task: Task, log: Log) -> Asking:
        record = Record(task)
        generator = np.random.default_rng([task.seed])
        while drawn := record.drawn(self.batch, generator):
            yield from record.ask(Proposal(each, "random") for each in drawn)
