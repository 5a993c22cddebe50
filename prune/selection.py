"""Which units to remove: always those that lose the least per cost that the target saves.

Greedy, one step of one group at a time. A step is as many units as bring all widths of the group
back to the divisor. Only groups that share a layer with the last one removed are measured again.
Steps that fit below the goal in the end, because a later one saved more than needed, are undone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        rung: group name -> steps that were taken in it.
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
        self._scores = scores
        self._costs = costs
        given = whole or {}
        self._ladders = {
            group.name: ladder(
                group, scores[group.name], limits, given.get(group.name, len(group.units))
            )
            for group in structure.groups
        }

    def stuck(self) -> tuple[str, ...]:
        """Groups of which nothing can go within the limits."""
        return tuple(name for name, rungs in self._ladders.items() if len(rungs) == 1)

    def cheapest(self) -> Choice:
        """As small as the limits allow."""
        return self.at({name: len(rungs) - 1 for name, rungs in self._ladders.items()})

    def require(self, goal: float) -> None:
        """Refuse a cost that nothing reaches.

        Raises:
            UnreachableCostError: the cheapest form costs more; its cost is named.
        """
        floor = self.cheapest().cost
        if floor.value > goal:
            raise _unreachable(goal, floor)

    def reach(
        self, goal: float, report: Report | None = None, price: Price = saliency_lost
    ) -> Choice:
        """Remove units until the cost is at most `goal`, beginning with the whole model.

        Raises:
            UnreachableCostError: the cheapest form costs more; its cost is named.
            PruningError: nothing can be pruned at all.
        """
        if all(len(rungs) == 1 for rungs in self._ladders.values()):
            raise PruningError(
                f"nothing in {type(self._model).__name__} can be pruned within the limits",
                fix="see the frozen layers in the result; allow a higher `max_pruned`, or a target"
                " with a smaller channel divisor",
            )
        self.require(goal)
        now = self.at(dict.fromkeys(self._ladders, 0))
        start, saved = now.cost.value, dict[str, float]()
        while now.cost.value > goal:
            self._measure(saved, now)
            if not saved:  # every step alone costs more; together they reach the floor
                return self.cheapest()
            # The least loss per cost saved.
            lost = {name: self._lost(price, name, now.rung[name]) for name in saved}
            best = min(saved, key=lambda name: (lost[name] / saved[name], name))
            now = self.at(_moved(now.rung, best, 1))
            saved = {n: s for n, s in saved.items() if not self._adjacent(n, best)}
            if report is not None:
                done = round(100 * (start - now.cost.value) / max(start - goal, 1e-9))
                report("choosing channels", min(done, 100), 100)
        return self._given_back(now, goal, price)

    def near(
        self, choice: Choice, goal: float, generator: np.random.Generator, price: Price
    ) -> Choice | None:
        """One group wider than in a choice, others narrower, within the cost.

        Args:
            generator: decides which.
            price: which of them is made wider again, where that fits.

        Returns:
            None where the group that it drew is whole, or the others are at their least.
        """
        names = sorted(choice.rung)
        wider = names[generator.integers(len(names))]
        if choice.rung[wider] == 0:
            return None
        now = self.at(_moved(choice.rung, wider, -1))
        while now.cost.value > goal:
            free = [n for n in names if n != wider and now.rung[n] + 1 < len(self._ladders[n])]
            if not free:
                return None
            now = self.at(_moved(now.rung, free[generator.integers(len(free))], 1))
        return self._given_back(now, goal, price)

    def _given_back(self, now: Choice, goal: float, price: Price) -> Choice:
        """Steps that turn out to fit below the goal are undone: the last one overshoots."""
        while True:
            names = [name for name, at in now.rung.items() if at > 0]
            models = [self._made(_moved(now.rung, name, -1)) for name in names]
            costs = zip(names, self._costs.measure(models), strict=True)
            fitting = [name for name, cost in costs if cost.value <= goal]
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
        wider = self.at(dict.fromkeys(self._ladders, 0))
        if wider.cost.value < cost:
            return wider, wider
        for percent in range(99, 0, -1):
            rung = {n: _scaled_rung(rungs, percent / 100) for n, rungs in self._ladders.items()}
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
            for name, rungs in self._ladders.items()
            if name not in saved and now.rung[name] + 1 < len(rungs)
        ]
        models = [self._made(_moved(now.rung, name, 1)) for name in missing]
        for name, cost in zip(missing, self._costs.measure(models), strict=True):
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

    def _plan(self, rung: Mapping[str, int]) -> PrunePlan:
        kept = {name: self._ladders[name][at] for name, at in rung.items() if at > 0}
        return plan_of(self._converted, self._structure, kept)

    def _made(self, rung: Mapping[str, int]) -> nn.Module:
        return apply_plan(self._model, self._plan(rung))

    def at(self, rung: Mapping[str, int]) -> Choice:
        """The choice of so many steps in each group."""
        return Choice(self._plan(rung), self._costs.measure([self._made(rung)])[0], dict(rung))


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
