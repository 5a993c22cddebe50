"""Which units to remove: always those that lose the least per cost that the target saves.

Greedy, one step of one group at a time. A step is as many units as bring all widths of the group
back to the divisor. Only groups that share a layer with the last one removed are measured again.
Steps that fit below the goal in the end, because a later one saved more than needed, are undone.
Residual blocks are no such steps: a saliency cannot compare the loss of a block, most of which
fine-tuning gets back, with that of channels. They are dropped where the caller says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from edgesmith.pipeline.errors import PruningError, UnreachableCostError
from edgesmith.prune.costs import Costs
from edgesmith.prune.importances.base import Scores
from edgesmith.prune.surgery import apply_plan, converted, plan_of
from edgesmith.prune.values import ChannelGroup, CostFigure, PrunePlan, Structure

Units = tuple[int, ...]
Price = Callable[[float, float, float], float]
"""What a step loses, from the saliency that goes, that stays, and of the whole group."""
Report = Callable[[str, int, int | None], None]
_STEPS = 16
"""A group goes from whole to its least in at most about so many steps."""


@dataclass(frozen=True)
class Limits:
    """What selection may do.

    Args:
        divisor: output channels of every pruned layer are a multiple of it.
        max_pruned: at most this share of a group's units goes.
    """

    divisor: int = 1
    max_pruned: float = 0.9


@dataclass(frozen=True)
class Choice:
    """A plan, and what the module that it makes costs.

    Args:
        rung: group name -> steps that were taken in it; path of a block -> 1 where it is dropped.
    """

    plan: PrunePlan
    cost: CostFigure
    rung: Mapping[str, int]


def saliency_lost(gone: float, stays: float, whole: float) -> float:
    """First order: what goes is lost, whatever else is gone."""
    return gone


def ladder(group: ChannelGroup, scores: Scores, limits: Limits, whole: int) -> list[Units]:
    """What may stay of a group, from everything to the least; the best units stay.

    Args:
        scores: [units], larger matters more.
        whole: units that the group had before any pruning.
    """
    order = np.argsort(-scores, kind="stable")
    count = len(group.units)
    rungs: list[Units] = [tuple(range(count))]
    least = max(1, int(np.ceil(whole * (1 - limits.max_pruned))))
    stride = max(1, whole // _STEPS)
    for stay in range(count - 1, least - 1, -1):
        kept = tuple(sorted(int(i) for i in order[:stay]))
        far = len(rungs[-1]) - stay >= stride
        if _aligned(group, kept, limits.divisor) and (far or stay == least):
            rungs.append(kept)
    return rungs


def _aligned(group: ChannelGroup, kept: Units, divisor: int) -> bool:
    widths: dict[str, int] = {}
    for unit in kept:
        for slot in group.units[unit]:
            if slot.axis == "out":
                widths[slot.layer] = widths.get(slot.layer, 0) + len(slot.index)
    return all(width % divisor == 0 for width in widths.values())


class Selection:
    """Chooses units of one model.

    Args:
        model: the model that `structure` was found in.
        scores: group name -> score per unit.
        whole: group name -> units before any pruning; the present ones if not given.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        scores: Mapping[str, Scores],
        costs: Costs,
        limits: Limits,
        whole: Mapping[str, int] | None = None,
    ) -> None:
        self._model = model
        self._converted = converted(model, structure)
        self._structure = structure
        self._scores = dict(scores)
        self._costs = costs
        self._measured: dict[tuple[int, ...], CostFigure] = {}
        given = whole or {}
        self._ladders = {
            group.name: ladder(
                group, scores[group.name], limits, given.get(group.name, len(group.units))
            )
            for group in structure.groups
        }
        # A block is one unit, worth what its branch is: the sum over the groups in it.
        self._blocks = {block.path: block.groups for block in structure.blocks}
        for path, groups in self._blocks.items():
            self._ladders[path] = [(0,), ()]
            self._scores[path] = np.array([sum(float(scores[name].sum()) for name in groups)])

    def stuck(self) -> tuple[str, ...]:
        """Groups of which nothing can go within the limits."""
        return tuple(name for name in self._groups() if len(self._ladders[name]) == 1)

    def cheapest(self, dropped: Collection[str] = ()) -> Choice:
        """As small as the limits allow, with all blocks but these."""
        least = {name: len(self._ladders[name]) - 1 for name in self._groups()}
        return self.at({**least, **dict.fromkeys(dropped, 1)})

    def blocks(self) -> list[str]:
        """Blocks that can be dropped: first what loses the least per cost that it saves."""
        whole = self.at({}).cost.value
        saved = {path: whole - self.at({path: 1}).cost.value for path in self._blocks}
        useful = [path for path in self._blocks if saved[path] > 0]
        return sorted(useful, key=lambda path: float(self._scores[path].sum()) / saved[path])

    def require(self, goal: float) -> None:
        """Refuse a cost that nothing reaches.

        Raises:
            UnreachableCostError: the cheapest form costs more; its cost is named.
        """
        floor = self.cheapest().cost
        if floor.value > goal:
            raise _unreachable(goal, floor)

    def reach(
        self,
        goal: float,
        report: Report | None = None,
        price: Price = saliency_lost,
        dropped: Collection[str] = (),
    ) -> Choice:
        """Remove units until the cost is at most `goal`, beginning with the whole model.

        Args:
            dropped: blocks that are left out.

        Raises:
            UnreachableCostError: the cheapest form costs more; its cost is named.
            PruningError: nothing can be pruned at all.
        """
        if len(self.stuck()) == len(self._groups()):
            raise PruningError(
                f"nothing in {type(self._model).__name__} can be pruned within the limits",
                fix="see the frozen layers in the result; allow a higher `max_pruned`, or a target"
                " with a smaller channel divisor",
            )
        self.require(goal)
        now = self.at(dict.fromkeys(dropped, 1))
        start, saved = now.cost.value, dict[str, float]()
        while now.cost.value > goal:
            self._measure(saved, now)
            if not saved:  # every step alone costs more; together they reach the floor
                return self.cheapest(dropped)
            # The least loss per cost saved.
            lost = {name: self._lost(price, name, now.rung[name]) for name in saved}
            best = min(saved, key=lambda name: (lost[name] / saved[name], name))
            now = self.at(_moved(now.rung, best, 1))
            saved = {n: s for n, s in saved.items() if not self._adjacent(n, best)}
            if report is not None:
                done = round(100 * (start - now.cost.value) / max(start - goal, 1e-9))
                report("choosing channels", min(done, 100), 100)
        return self._given_back(now, goal, price, dropped)

    def near(
        self, choice: Choice, goal: float, generator: np.random.Generator, price: Price
    ) -> Choice | None:
        """One group wider than in a choice, or a block more; others narrower, within the cost.

        Args:
            generator: decides which.
            price: which of them is made wider again, where that fits.

        Returns:
            None where what it drew is whole, or the others are at their least.
        """
        names = self._present(choice.rung)
        wider = names[generator.integers(len(names))]
        if choice.rung[wider] == 0:
            return None
        now = self.at(_moved(choice.rung, wider, -1))
        while now.cost.value > goal:
            free = [n for n in self._present(now.rung) if n != wider and self._can_go(n, now)]
            if not free:
                return None
            now = self.at(_moved(now.rung, free[generator.integers(len(free))], 1))
        return self._given_back(now, goal, price)

    def _given_back(
        self, now: Choice, goal: float, price: Price, gone: Collection[str] = ()
    ) -> Choice:
        """Steps that turn out to fit below the goal are undone: the last one overshoots.

        Args:
            gone: what stays removed.
        """
        while True:
            names = [n for n in self._present(now.rung) if now.rung[n] > 0 and n not in gone]
            costs = self._costs_of([_moved(now.rung, name, -1) for name in names])
            fitting = [name for name, cost in zip(names, costs, strict=True) if cost.value <= goal]
            if not fitting:
                return now
            lost = {name: self._lost(price, name, now.rung[name] - 1) for name in fitting}
            best = max(fitting, key=lambda name: (lost[name], name))
            now = self.at(_moved(now.rung, best, -1))

    def uniform(self, cost: float) -> tuple[Choice, Choice]:
        """All widths scaled alike, on both sides of a cost: what to compare with.

        The widest that costs less, and the narrowest that costs at least as much; the same one
        twice where there is nothing on one side. Widths are rounded as MobileNets round theirs: to
        the nearest that is allowed, but to no less than nine tenths of the exact one.
        """
        wider = self.at({})
        if wider.cost.value < cost:
            return wider, wider
        for percent in range(99, 0, -1):
            share = percent / 100
            rung = {name: _scaled_rung(self._ladders[name], share) for name in self._groups()}
            if self._plan(rung) == wider.plan:
                continue
            choice = self.at(rung)
            if choice.cost.value < cost:
                return choice, wider
            wider = choice
        return wider, wider

    def _measure(self, saved: dict[str, float], now: Choice) -> None:
        """Fill in what the next step of each group saves; steps that save nothing are left out."""
        missing = [
            name
            for name in self._present(now.rung)
            if name not in saved and name not in self._blocks and self._can_go(name, now)
        ]
        costs = self._costs_of([_moved(now.rung, name, 1) for name in missing])
        for name, cost in zip(missing, costs, strict=True):
            if cost.value < now.cost.value:
                saved[name] = now.cost.value - cost.value

    def _lost(self, price: Price, name: str, at: int) -> float:
        """What the step from one rung to the next loses."""
        scores, rungs = self._scores[name], self._ladders[name]
        gone = float(scores[sorted(set(rungs[at]) - set(rungs[at + 1]))].sum())
        return price(gone, float(scores[list(rungs[at + 1])].sum()), float(scores.sum()))

    def _adjacent(self, one: str, other: str) -> bool:
        layers = [{layer for layer, _ in self._structure[name].members} for name in (one, other)]
        return bool(layers[0] & layers[1])

    def _groups(self) -> list[str]:
        return [group.name for group in self._structure.groups]

    def _present(self, rung: Mapping[str, int]) -> list[str]:
        """Names of all blocks, and of the groups that lie in none that is dropped, sorted."""
        gone = {name for path, names in self._blocks.items() if rung[path] for name in names}
        return sorted(set(self._ladders) - gone)

    def _can_go(self, name: str, now: Choice) -> bool:
        return now.rung[name] + 1 < len(self._ladders[name])

    def _plan(self, rung: Mapping[str, int]) -> PrunePlan:
        steps = {name: at for name, at in rung.items() if at > 0}
        kept = {name: self._ladders[name][at] for name, at in steps.items()}
        dropped = [path for path in steps if path in self._blocks]
        return plan_of(self._converted, self._structure, kept, dropped)

    def _costs_of(self, rungs: Sequence[Mapping[str, int]]) -> list[CostFigure]:
        """What choices cost; neighbours of neighbours come back often, and are measured once."""
        keys = [tuple(rung[name] for name in self._ladders) for rung in rungs]
        asked = dict(zip(keys, rungs, strict=True))
        new = [key for key in asked if key not in self._measured]
        models = [apply_plan(self._model, self._plan(asked[key])) for key in new]
        self._measured.update(zip(new, self._costs.measure(models), strict=True))
        return [self._measured[key] for key in keys]

    def at(self, rung: Mapping[str, int]) -> Choice:
        """The choice of so many steps in each group, and of blocks; none in others."""
        full = {name: rung.get(name, 0) for name in self._ladders}
        return Choice(self._plan(full), self._costs_of([full])[0], full)


def _moved(rung: Mapping[str, int], name: str, steps: int) -> dict[str, int]:
    return {**rung, name: rung[name] + steps}


def _scaled_rung(rungs: Sequence[Units], share: float) -> int:
    """The rung whose width is nearest to a share of the whole, and at least 0.9 of that."""
    exact = share * len(rungs[0])
    enough = [i for i, kept in enumerate(rungs) if len(kept) >= 0.9 * exact]
    return min(enough, key=lambda i: abs(len(rungs[i]) - exact))


def _unreachable(goal: float, floor: CostFigure) -> UnreachableCostError:
    return UnreachableCostError(
        f"a cost of {goal:,.0f} {floor.unit} cannot be reached; the nearest is"
        f" {floor.value:,.0f} {floor.unit}, with every group at its least",
        fix="choose a higher `cost`, a higher `max_pruned`, or exclude fewer layers",
    )
