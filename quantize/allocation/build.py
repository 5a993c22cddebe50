"""From sensitivities and costs to an allocation problem, and from a solution to a policy.

With one activation format, units are the layers and choose weights only. With several, every
group chooses, tied sets share one format, and the loss of an activation format counts once per
tied set, at its first group.
"""

from __future__ import annotations

import glob
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from edgesmith.pipeline.values import Policy
from edgesmith.quantize.allocation.costs import (
    BIT_OPERATIONS,
    UNITS,
    WEIGHT_BYTES,
    multiply_accumulates,
    weight_bytes,
)
from edgesmith.quantize.allocation.problem import (
    Choice,
    Option,
    Pair,
    Problem,
    Tie,
    Unit,
)
from edgesmith.quantize.allocation.target_costs import TargetCosts
from edgesmith.quantize.network import INPUT
from edgesmith.quantize.ops import Requantize
from edgesmith.quantize.options import Override, PTQOptions, overrides_of
from edgesmith.quantize.placement import place
from edgesmith.quantize.sensitivity.subject import Subject
from edgesmith.quantize.sensitivity.values import Sensitivities


def problem_of(
    subject: Subject, sensitivities: Sensitivities, costs: TargetCosts | None = None
) -> Problem:
    """The allocation problem of a model.

    Its resources are `weight-bytes`, `bit-operations` and, with `costs`, their metric.

    Args:
        sensitivities: of the same subject; the formats in it are what there is to choose from.
        costs: for the same formats.
    """
    return _Builder(subject, sensitivities, costs).problem()


def policy_of(subject: Subject, choices: Mapping[str, Choice]) -> Policy:
    """Choices as formats of every group; what nothing was chosen for has the options' defaults."""
    chosen = place(
        subject.network.steps, subject.network.constant_names, _options(subject, choices)
    )
    return chosen.policy


def rules_of(subject: Subject, choices: Mapping[str, Choice]) -> tuple[Override, ...]:
    """Choices as `PTQOptions.overrides`, which quantize the model accordingly."""
    groups = [INPUT, *(s.name for s in subject.network.steps if not isinstance(s.op, Requantize))]
    return overrides_of(policy_of(subject, choices), groups)


def uniform(problem: Problem, weight: str, activation: str | None = None) -> dict[str, Choice]:
    """One format for all: the choices of every unit that have these formats.

    Args:
        activation: None where the problem has one activation format.
    """
    return {
        unit.name: Choice(
            weight if unit.options[0].choice.weight is not None else None,
            activation,
        )
        for unit in problem.units
    }


def _options(subject: Subject, choices: Mapping[str, Choice]) -> PTQOptions:
    rules = tuple(
        Override(glob.escape(name), weights=choice.weight, activations=choice.activation)
        for name, choice in choices.items()
    )
    return replace(subject.options, overrides=rules)


@dataclass(frozen=True, eq=False)
class _Builder:
    subject: Subject
    sensitivities: Sensitivities
    costs: TargetCosts | None

    @cached_property
    def weight_loss(self) -> dict[str, dict[str, float]]:
        """Layer -> weight format -> loss."""
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for each in self.sensitivities.weights:
            found[each.group][each.format] = each.loss
        return found

    @cached_property
    def activation_loss(self) -> dict[tuple[str, str], float]:
        """First group of a tied set and activation format -> loss."""
        return {
            (self.first_group[each.group], each.format): each.loss
            for each in self.sensitivities.activations
            if each.group in self.first_group
        }

    @cached_property
    def activations(self) -> tuple[str, ...]:
        """Formats to choose from; empty where there is one."""
        return tuple(dict.fromkeys(each.format for each in self.sensitivities.activations))

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Groups in execution order. Requantizers follow what they are tied to."""
        steps = self.subject.network.steps
        return (INPUT, *(step.name for step in steps if not isinstance(step.op, Requantize)))

    @cached_property
    def sets(self) -> dict[str, list[str]]:
        """Quantizer -> the groups that share it."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.groups:
            found[self.subject.placement.quantizer_of[name]].append(name)
        return found

    @cached_property
    def first_group(self) -> dict[str, str]:
        return {root: names[0] for root, names in self.sets.items()}

    def problem(self) -> Problem:
        if self.activations:
            units = tuple(self.unit(name) for name in self.groups)
            ties = tuple(Tie(tuple(names)) for names in self.sets.values() if len(names) > 1)
        else:
            units, ties = tuple(self.unit(name) for name in self.weight_loss), ()
        resources, base = dict(UNITS), dict.fromkeys(UNITS, 0.0)
        fixed = self.macs.keys() - {unit.name for unit in units}
        bits = self.subject.options.activation_format(self.subject.options.activations).bits
        base[BIT_OPERATIONS] += sum(self.macs[name] * bits * bits for name in fixed)
        if self.costs is not None:
            resources[self.costs.metric] = self.costs.unit
            base[self.costs.metric] = self.costs.base + self.unchosen({unit.name for unit in units})
        pairs = (*self.crosses(units), *self.edges(units))
        return Problem(units, pairs, ties, resources, base, self.sensitivities.unit)

    def unit(self, name: str) -> Unit:
        weights: list[str | None] = list(self.weight_loss.get(name, {})) or [None]
        activations: list[str | None] = list(self.activations) or [None]
        return Unit(
            name,
            tuple(self.option(name, Choice(w, a)) for w in weights for a in activations),
        )

    def option(self, name: str, choice: Choice) -> Option:
        options = self.subject.options
        activation = choice.activation or options.activations
        loss = self.activation_loss.get((name, activation), 0.0)
        costs = {}
        bits = options.activation_format(activation).bits
        if choice.weight is not None:
            loss += self.weight_loss[name][choice.weight]
            fmt = options.weight_format(choice.weight)
            elements = self.subject.network.layer(name).weight.numel()
            costs[WEIGHT_BYTES] = float(weight_bytes(elements, fmt))
            costs[BIT_OPERATIONS] = float(self.macs[name] * fmt.bits * bits)
        elif name in self.macs:
            costs[BIT_OPERATIONS] = float(self.macs[name] * bits * bits)
        if self.costs is not None:
            costs[self.costs.metric] = self.measured(name, choice.weight, activation)
        return Option(choice, loss, costs)

    @cached_property
    def macs(self) -> dict[str, int]:
        shape = tuple(self.subject.samples.shape[1:])
        return multiply_accumulates(self.subject.network, shape)

    @cached_property
    def group_costs(self) -> dict[tuple[str, str, str], float]:
        assert self.costs is not None
        totals: dict[tuple[str, str, str], float] = defaultdict(float)
        for each in self.costs.groups:
            totals[each.group, each.weight, each.activation] += each.value
        return totals

    @cached_property
    def any_weight(self) -> str:
        """A weight format that costs were measured with: what has no weights costs one thing."""
        assert self.costs is not None
        return self.costs.groups[0].weight

    def measured(self, name: str, weight: str | None, activation: str) -> float:
        """0 for groups that the target executes as part of another."""
        return self.group_costs.get((name, weight or self.any_weight, activation), 0.0)

    def unchosen(self, units: set[str]) -> float:
        """What layers cost that belong to no unit."""
        names = {each.group for each in self.costs.groups} if self.costs is not None else set()
        activation = self.subject.options.activations
        return math.fsum(self.measured(name, None, activation) for name in names - units)

    def crosses(self, units: tuple[Unit, ...]) -> Iterator[Pair]:
        losses: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
        for each in self.sensitivities.cross:
            formats = each.first_format, each.second_format
            losses[each.first, each.second][formats] = each.loss
        named = {unit.name: unit for unit in units}
        for (first, second), found in losses.items():
            table = tuple(
                tuple(
                    found[one.choice.weight or "", two.choice.weight or ""]
                    for two in named[second].options
                )
                for one in named[first].options
            )
            yield Pair(first, second, table)

    def edges(self, units: tuple[Unit, ...]) -> Iterator[Pair]:
        if self.costs is None or not self.activations:
            return
        values: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
        for each in self.costs.edges:
            values[each.source, each.consumer][each.given, each.wanted] = each.value
        named = {unit.name: unit for unit in units}
        for (source, consumer), found in values.items():
            if source not in named or consumer not in named:
                continue
            table = tuple(
                tuple(
                    found.get((one.choice.activation or "", two.choice.activation or ""), 0.0)
                    for two in named[consumer].options
                )
                for one in named[source].options
            )
            yield Pair(source, consumer, None, {self.costs.metric: table})
