"""The search space: what can be chosen, and what a choice leaves without influence.

A candidate is a tuple of indices, one per gene. Genes that change nothing there (those inside a
dropped block) are 0, so that equal models are one candidate: it is hashed, compared, deduplicated
and predicted in that form only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from edgesmith.pipeline.spec import canonical_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Choice = int | str
Candidate = tuple[int, ...]
"""Index of the choice of every gene, canonical."""
Floats: TypeAlias = "npt.NDArray[np.float64]"


@dataclass(frozen=True)
class Gene:
    """One thing to choose.

    Args:
        name: `width:...`, `depth:...`, `kernel:...` as in `Elastic`, or `weights:GROUP` and
            `activations:GROUP`.
        choices: of architecture the trained model's first, of formats the widest first.
    """

    name: str
    choices: tuple[Choice, ...]

    @property
    def kind(self) -> str:
        """What it is a choice of: the name up to its colon."""
        return self.name.partition(":")[0]


@dataclass(frozen=True)
class Moot:
    """Where one gene has one choice, other genes change nothing."""

    gene: str
    choice: Choice
    genes: tuple[str, ...]


@dataclass(frozen=True)
class Space:
    """All candidates.

    Args:
        genes: each with at least two choices; architecture before formats.
        moot: which of them are without influence, and when.
    """

    genes: tuple[Gene, ...]
    moot: tuple[Moot, ...] = ()

    @property
    def log10_size(self) -> float:
        """Decimal logarithm of the number of combinations, those that are equal counted twice."""
        return sum(math.log10(len(gene.choices)) for gene in self.genes)

    @cached_property
    def places(self) -> dict[str, int]:
        """Name of a gene -> its place in candidates."""
        return {gene.name: place for place, gene in enumerate(self.genes)}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Choices per gene."""
        return tuple(len(gene.choices) for gene in self.genes)

    def active(self, candidate: Sequence[int]) -> tuple[bool, ...]:
        """Whether each gene changes anything in a candidate."""
        silent = {
            name
            for place, moot in self._moot
            if candidate[place] == moot.index
            for name in moot.genes
        }
        return tuple(gene.name not in silent for gene in self.genes)

    def canonical(self, candidate: Sequence[int]) -> Candidate:
        """The candidate with inactive genes 0.

        Raises:
            ValueError: another number of genes, or an index that is none.
        """
        if len(candidate) != len(self.genes):
            raise ValueError(f"a candidate has {len(self.genes)} genes, got {len(candidate)}")
        for gene, index in zip(self.genes, candidate, strict=True):
            if not 0 <= index < len(gene.choices):
                raise ValueError(f"{gene.name} has {len(gene.choices)} choices, got index {index}")
        active = self.active(candidate)
        return tuple(int(i) if on else 0 for i, on in zip(candidate, active, strict=True))

    def of(self, choices: Mapping[str, Choice]) -> Candidate:
        """The candidate with these choices; genes that are not named have their first.

        Raises:
            ValueError: no such gene or choice.
        """
        indices = [0] * len(self.genes)
        for name, choice in choices.items():
            if name not in self.places:
                raise ValueError(f"there is no gene {name!r}")
            gene = self.genes[self.places[name]]
            if choice not in gene.choices:
                known = ", ".join(map(str, gene.choices))
                raise ValueError(f"{name} is {choice!r}, which is none of {known}")
            indices[self.places[name]] = gene.choices.index(choice)
        return self.canonical(indices)

    def choices(self, candidate: Candidate) -> dict[str, Choice]:
        """Gene -> choice."""
        pairs = zip(self.genes, candidate, strict=True)
        return {gene.name: gene.choices[index] for gene, index in pairs}

    def key(self, candidate: Candidate) -> str:
        """SHA-256 of the choices by name: the same whatever the order of genes."""
        return hashlib.sha256(canonical_json(self.choices(candidate)).encode()).hexdigest()

    def drawn(self, generator: np.random.Generator) -> Candidate:
        """Every choice equally likely."""
        return self.canonical([int(generator.integers(size)) for size in self.sizes])

    def one_hot(self, candidates: Sequence[Candidate]) -> Floats:
        """[candidates, sum of choices]: 1 at every choice; inactive genes are all 0."""
        import numpy as np  # not above: specs are checked without it

        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        rows = np.zeros((len(candidates), int(starts[-1])))
        for row, candidate in zip(rows, candidates, strict=True):
            for start, index, on in zip(starts, candidate, self.active(candidate), strict=False):
                row[start + index] = on
        return rows

    @cached_property
    def _moot(self) -> tuple[tuple[int, _Silenced], ...]:
        return tuple(
            (
                self.places[each.gene],
                _Silenced(
                    self.genes[self.places[each.gene]].choices.index(each.choice),
                    frozenset(each.genes),
                ),
            )
            for each in self.moot
        )


@dataclass(frozen=True)
class _Silenced:
    """A choice by its index, and the genes that it silences."""

    index: int
    genes: frozenset[str]


def neighbours(space: Space, candidate: Candidate) -> Iterator[Candidate]:
    """Every other candidate that differs in one active gene."""
    active = space.active(candidate)
    for place, size in enumerate(space.sizes):
        for index in range(size) if active[place] else ():
            if index != candidate[place]:
                yield space.canonical((*candidate[:place], index, *candidate[place + 1 :]))
