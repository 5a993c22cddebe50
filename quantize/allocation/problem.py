"""Bit allocation as data: units with options, what two of them do together, and what is tied.

It knows nothing of networks, so that solvers are tested on problems that can be enumerated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from edgesmith.pipeline.errors import AllocationError

Picked = tuple[int, ...]
"""For every unit, in order, the position of its option."""
Table = tuple[tuple[float, ...], ...]
"""Value for every option of the first unit and every option of the second."""


@dataclass(frozen=True)
class Choice:
    """Formats of one unit, by the names that specs use; None where it has nothing to choose."""

    weight: str | None = None
    activation: str | None = None

    def __str__(self) -> str:
        return "/".join(each for each in (self.weight, self.activation) if each) or "nothing"


@dataclass(frozen=True)
class Option:
    """One choice with what it does to the loss and to every resource."""

    choice: Choice
    loss: float
    costs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """A group that gets exactly one of its options."""

    name: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Pair:
    """What the options of two units add to the sum of both: cross terms, requantization."""

    first: str
    second: str
    loss: Table | None = None
    costs: dict[str, Table] = field(default_factory=dict)


@dataclass(frozen=True)
class Tie:
    """Units whose activations have one format: operands of a concat, what pooling leaves as is."""

    units: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """Minimize the total loss, one option per unit.

    Args:
        resources: resource -> unit of its costs.
        base: cost of what is not chosen.
        loss_unit: of all losses.
    """

    units: tuple[Unit, ...]
    pairs: tuple[Pair, ...] = ()
    ties: tuple[Tie, ...] = ()
    resources: dict[str, str] = field(default_factory=dict)
    base: dict[str, float] = field(default_factory=dict)
    loss_unit: str = ""

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Unit -> its place in `units`."""
        return {unit.name: place for place, unit in enumerate(self.units)}

    def loss(self, picked: Picked) -> float:
        """Predicted rise of the loss."""
        own = [unit.options[at].loss for unit, at in zip(self.units, picked, strict=True)]
        return math.fsum(own + self._together([p.loss for p in self.pairs], picked))

    def cost(self, resource: str, picked: Picked) -> float:
        """Total of one resource."""
        own = [
            unit.options[at].costs.get(resource, 0.0)
            for unit, at in zip(self.units, picked, strict=True)
        ]
        pairs = self._together([p.costs.get(resource) for p in self.pairs], picked)
        return math.fsum([self.base.get(resource, 0.0), *own, *pairs])

    def costs(self, picked: Picked) -> dict[str, float]:
        """Total of every resource."""
        return {name: self.cost(name, picked) for name in self.resources}

    def respects_ties(self, picked: Picked) -> bool:
        """All units of a tie have one activation format."""
        choices = self.choices(picked)
        return all(len({choices[name].activation for name in tie.units}) == 1 for tie in self.ties)

    def within(self, picked: Picked, limits: Mapping[str, float]) -> bool:
        """No limit is exceeded."""
        return all(self.cost(name, picked) <= limit for name, limit in limits.items())

    def choices(self, picked: Picked) -> dict[str, Choice]:
        """Unit -> formats."""
        return {
            unit.name: unit.options[at].choice for unit, at in zip(self.units, picked, strict=True)
        }

    def picked(self, choices: Mapping[str, Choice]) -> Picked:
        """The inverse of `choices`.

        Raises:
            AllocationError: a unit has no such option.
        """
        found = []
        for unit in self.units:
            own = [option.choice for option in unit.options]
            if choices.get(unit.name) not in own:
                raise AllocationError(
                    f"group {unit.name!r} has no option {choices.get(unit.name)}",
                    fix=f"choose one of {', '.join(map(str, own))}",
                )
            found.append(own.index(choices[unit.name]))
        return tuple(found)

    def only(self, takes: Callable[[str, Choice], bool]) -> Problem:
        """The same problem with fewer options.

        Args:
            takes: whether a unit, by its name, keeps a choice.
        """
        kept = {
            unit.name: [at for at, each in enumerate(unit.options) if takes(unit.name, each.choice)]
            for unit in self.units
        }

        def part(table: Table, pair: Pair) -> Table:
            rows = (table[at] for at in kept[pair.first])
            return tuple(tuple(row[at] for at in kept[pair.second]) for row in rows)

        units = (
            replace(unit, options=tuple(unit.options[at] for at in kept[unit.name]))
            for unit in self.units
        )
        pairs = (
            replace(
                pair,
                loss=None if pair.loss is None else part(pair.loss, pair),
                costs={name: part(table, pair) for name, table in pair.costs.items()},
            )
            for pair in self.pairs
        )
        return replace(self, units=tuple(units), pairs=tuple(pairs))

    def check(self, limits: Mapping[str, float] | None = None) -> None:
        """Refuse what no solver can read.

        Raises:
            AllocationError: no units, a unit without options, a number that is not finite, a
                pair or tie of units that do not exist, a limit on an unknown resource.
        """
        if not self.units or any(not unit.options for unit in self.units):
            raise AllocationError(
                "there is nothing to choose: no groups, or a group without formats",
                fix="offer at least one format for every group",
            )
        if len(self.position) != len(self.units):
            raise AllocationError("two units have one name", fix="name every group once")
        for unit in self.units:
            for option in unit.options:
                _finite(f"{unit.name} as {option.choice}", (option.loss, *option.costs.values()))
        for pair in self.pairs:
            self._check_pair(pair)
        unknown = {name for tie in self.ties for name in tie.units} - set(self.position)
        if unknown:
            raise AllocationError(
                f"a tie names {sorted(unknown)[0]!r}, which is no group", fix="tie groups only"
            )
        for name, limit in (limits or {}).items():
            if name not in self.resources:
                raise AllocationError(
                    f"there is no resource {name!r} to limit",
                    fix=f"limit one of {', '.join(self.resources) or 'none'}",
                )
            _finite(f"the limit on {name}", (limit,))

    def _check_pair(self, pair: Pair) -> None:
        if {pair.first, pair.second} - set(self.position) or pair.first == pair.second:
            raise AllocationError(
                f"the pair {pair.first!r}, {pair.second!r} does not name two groups",
                fix="pair different groups of the problem",
            )
        shape = tuple(
            len(self.units[self.position[each]].options) for each in (pair.first, pair.second)
        )
        for table in (pair.loss, *pair.costs.values()):
            if table is None:
                continue
            if (len(table), *{len(row) for row in table}) != shape:
                raise AllocationError(
                    f"the table of {pair.first!r} and {pair.second!r} is not {shape}",
                    fix="give a value for every two options",
                )
            _finite(f"{pair.first} with {pair.second}", [v for row in table for v in row])

    def _together(self, tables: Sequence[Table | None], picked: Picked) -> list[float]:
        return [
            table[picked[self.position[pair.first]]][picked[self.position[pair.second]]]
            for pair, table in zip(self.pairs, tables, strict=True)
            if table is not None
        ]


def _finite(what: str, values: Sequence[float]) -> None:
    if not all(math.isfinite(value) for value in values):
        raise AllocationError(
            f"{what} has a loss or cost that is no finite number",
            fix="check the calibration data and the cost model",
        )


@dataclass(frozen=True)
class Solution:
    """One choice per unit.

    Args:
        loss: predicted rise of the loss.
        costs: total per resource.
        optimal: no other choice within the limits has a lower loss; else the best one found.
        method: what found it.
    """

    choices: dict[str, Choice]
    loss: float
    costs: dict[str, float]
    optimal: bool
    method: str

    @classmethod
    def of(cls, problem: Problem, picked: Picked, *, optimal: bool, method: str) -> Solution:
        loss, costs = problem.loss(picked), problem.costs(picked)
        return cls(problem.choices(picked), loss, costs, optimal, method)
