"""A search of some genes, the others fixed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

from edgesmith.nas.samplers._record import Record
from edgesmith.nas.samplers.base import Asking
from edgesmith.nas.space import Candidate, Space
from edgesmith.nas.values import Proposal


def format_genes(space: Space) -> list[str]:
    """Names of the genes that choose formats; the others choose the architecture."""
    names = [gene.name for gene in space.genes]
    return [name for name in names if name.startswith(("weights:", "activations:"))]


@dataclass(frozen=True)
class Subspace:
    """What is left of a space where only some genes vary.

    Args:
        base: the choices of all others, canonical.
        free: names of genes; those that are inactive in `base` stay fixed.
    """

    whole: Space
    base: Candidate
    free: tuple[str, ...]

    @cached_property
    def space(self) -> Space:
        genes = tuple(self.whole.genes[place] for place in self._places)
        names = {gene.name for gene in genes}
        inner = (each for each in self.whole.moot if each.gene in names)
        moot = (replace(m, genes=tuple(g for g in m.genes if g in names)) for m in inner)
        return Space(genes, tuple(each for each in moot if each.genes))

    def lifted(self, candidate: Candidate) -> Candidate:
        """The candidate of the whole space."""
        row = list(self.base)
        for place, index in zip(self._places, candidate, strict=True):
            row[place] = index
        return self.whole.canonical(row)

    def lowered(self, candidate: Candidate) -> Candidate | None:
        """The free genes of a candidate of the whole space; None where it is another's."""
        row = self.space.canonical([candidate[place] for place in self._places])
        return row if self.lifted(row) == candidate else None

    def record(self, outer: Record, evaluations: int, seed: int) -> Record:
        """Of a search of this subspace that knows what was measured of it before."""
        task = replace(
            outer.task,
            space=self.space,
            computed=lambda candidate: outer.computed(self.lifted(candidate)),
            seeds=(),
            evaluations=min(evaluations, outer.left),
            seed=seed,
        )
        inner = Record(task)
        for candidate in outer.asked:
            if (own := self.lowered(candidate)) is not None:
                inner.note(own, outer.measured.get(candidate))
        return inner

    def relayed(self, asking: Asking, outer: Record) -> Asking:
        """A search of this subspace, asking for candidates of the whole space."""
        batch = next(asking, None)
        while batch is not None:
            trials = yield from outer.ask(
                Proposal(self.lifted(each.candidate), each.origin) for each in batch
            )
            try:
                batch = asking.send(trials)
            except StopIteration:
                return

    @cached_property
    def _places(self) -> tuple[int, ...]:
        active = self.whole.active(self.base)
        wanted: Collection[str] = set(self.free)
        named = enumerate(self.whole.genes)
        return tuple(at for at, gene in named if gene.name in wanted and active[at])
