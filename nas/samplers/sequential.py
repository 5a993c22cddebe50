"""First the architecture, then its formats: the baseline that a joint search has to beat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import Field

from edgesmith.nas.samplers._record import Record, seeds
from edgesmith.nas.samplers._subspace import Subspace, format_genes
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.samplers.linas import Linas
from edgesmith.nas.values import Proposal, Task


@dataclass(frozen=True)
class Sequential(Sampler):
    """Half of the evaluations at the widest formats; then formats of some of the front found.

    Args:
        members: of that front whose formats are searched, spread over it, the ends among them; more
            where these leave evaluations.
        search: what searches either.
    """

    name: ClassVar[str] = "sequential"
    members: Annotated[int, Field(ge=1)] = 4
    search: Linas = field(default_factory=Linas)

    def run(self, task: Task, log: Log) -> Asking:
        record, formats = Record(task), format_genes(task.space)
        architectures = Subspace(
            task.space,
            (0,) * len(task.space.genes),
            tuple(gene.name for gene in task.space.genes if gene.name not in formats),
        )
        yield from record.ask(
            each for each in seeds(task) if architectures.lowered(each.candidate) is not None
        )
        half = task.evaluations // 2 if formats else task.evaluations
        yield from self._searched(architectures, record, half - len(record.asked), log, 0)
        # The first ones share what is left; where they have too few formats for it, others follow.
        members = record.best(len(record.measured)) if record.measured and formats else []
        for number, member in enumerate(members, 1):
            if not record.left:
                return
            narrower = Subspace(task.space, member, tuple(formats))
            yield from record.ask(_uniform(narrower))
            share = -(-record.left // max(min(self.members, len(members)) + 1 - number, 1))
            yield from self._searched(narrower, record, share, log, number)

    def _searched(
        self, part: Subspace, record: Record, evaluations: int, log: Log, number: int
    ) -> Asking:
        inner = part.record(record, max(evaluations, 0), record.task.seed + number)
        yield from part.relayed(self.search.continued(inner, log), record)


def _uniform(part: Subspace) -> list[Proposal]:
    """Each format alone, where all of the genes have as many."""
    most = max((len(gene.choices) for gene in part.space.genes), default=0)
    rows = [[min(at, size - 1) for size in part.space.sizes] for at in range(1, most)]
    found = [part.lifted(part.space.canonical(row)) for row in rows]
    return [Proposal(each, "uniform formats") for each in found]
