"""What can vary in a trained model: widths, depth and kernel sizes, found without being told.

Every choice is a cut of the trained model (`prune/`): a width keeps the best units of a group of
channels, heads or hidden units, a depth leaves out a residual block, a kernel keeps its centre.
The first choice of every dimension is the trained model itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

import numpy as np
from torch import nn

from edgesmith.nas.options import Elasticity, ElasticOverride
from edgesmith.pipeline.errors import NothingElasticError, SearchError
from edgesmith.pipeline.problems import did_you_mean, listed
from edgesmith.prune.importances.base import Scores
from edgesmith.prune.selection import Limits, Units, ladder
from edgesmith.prune.structure import structure_of
from edgesmith.prune.surgery import Conv, converted, has_centre, lies_in, plan_of
from edgesmith.prune.values import Block, Cut, Frozen, PrunePlan, Structure

Architecture = Mapping[str, int]
"""Name of a dimension -> its choice; dimensions that are not named are whole."""
_LEAST_KERNEL = 3


class Kind(StrEnum):
    """What a dimension changes."""

    WIDTH = "width"
    DEPTH = "depth"
    KERNEL = "kernel"


@dataclass(frozen=True)
class Dimension:
    """One thing that can be chosen.

    Args:
        subject: the group of channels, the block, or the layer.
        choices: units that stay, 1 or 0 for a block that stays or goes, or the size of the
            kernel's longest side; descending, the trained model's first.
    """

    kind: Kind
    subject: str
    choices: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.subject}"


class Elastic:
    """The dimensions of one model, and the plan of every architecture.

    Args:
        model: the trained model; not changed.
        structure: of it, as `structure_of` finds it.
        scores: group name -> importance of each unit; the best ones stay longest.
        divisor: widths stay multiples of it.

    Raises:
        NothingElasticError: there is nothing to choose.
        SearchError: an override names no dimension, or no choice of those that it names.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        scores: Mapping[str, Scores],
        options: Elasticity,
        divisor: int = 1,
    ) -> None:
        self.structure = structure
        self._converted = converted(model, structure)
        limits = Limits(divisor, 1 - options.least_width)
        self._widths: dict[str, dict[int, Units]] = {}
        for group in structure.groups:
            rungs = ladder(group, scores[group.name], limits, len(group.units))
            self._widths[group.name] = {len(kept): kept for kept in rungs}
        self._kernels = dict(_kernels(model, options.exclude)) if options.kernels else {}
        possible = [*self._possible(options)]
        _check(options.overrides, possible)
        found = (_chosen(each, options) for each in possible)
        self.dimensions = tuple(each for each in found if len(each.choices) > 1)
        if not self.dimensions:
            raise NothingElasticError(
                f"nothing in {type(model).__name__} can vary",
                fix="see the frozen layers for the reasons; a lower `least_width`, a target with a"
                " smaller channel divisor or fewer layers in `exclude` leave more",
            )
        self._by_name = {each.name: each for each in self.dimensions}
        self._inside = {
            f"{Kind.DEPTH}:{block.path}": self._named_inside(block) for block in structure.blocks
        }

    @property
    def frozen(self) -> tuple[Frozen, ...]:
        """Layers whose channels never vary, and why."""
        return (*self.structure.frozen, *self._single)

    @property
    def _single(self) -> Iterator[Frozen]:
        """Groups of which one width is left."""
        for name, widths in self._widths.items():
            if f"{Kind.WIDTH}:{name}" not in self._by_name:
                count = max(widths)
                reason = (
                    f"of its {count} units no smaller number is a multiple of what the target likes"
                    " and above `least_width`"
                    if len(widths) == 1
                    else "`elasticity` leaves it one width"
                )
                yield Frozen((name,), reason)

    def whole(self) -> dict[str, int]:
        """The trained model."""
        return {each.name: each.choices[0] for each in self.dimensions}

    def smallest(self) -> dict[str, int]:
        """The least of every dimension."""
        return self.canonical({each.name: each.choices[-1] for each in self.dimensions})

    def drawn(self, generator: np.random.Generator) -> dict[str, int]:
        """Every choice equally likely."""
        return self.canonical(
            {each.name: int(generator.choice(each.choices)) for each in self.dimensions}
        )

    def canonical(self, architecture: Architecture) -> dict[str, int]:
        """All dimensions, with those that lie in a dropped block whole: they change nothing.

        Raises:
            ValueError: no such dimension, or it has no such choice.
        """
        for name, choice in architecture.items():
            if name not in self._by_name:
                raise ValueError(f"there is no dimension {name!r}")
            if choice not in self._by_name[name].choices:
                choices = ", ".join(map(str, self._by_name[name].choices))
                raise ValueError(f"{name} is {choice}, which is none of {choices}")
        full = {**self.whole(), **architecture}
        dropped = [name for name in self._inside if full.get(name) == 0]
        moot = {name for block in dropped for name in self._inside[block]}
        return {n: self._by_name[n].choices[0] if n in moot else c for n, c in full.items()}

    def inside(self, name: str) -> frozenset[str]:
        """Dimensions that change nothing where this one leaves out its block."""
        return frozenset(self._inside.get(name, ()))

    def plan(self, architecture: Architecture) -> PrunePlan:
        """What makes the sub-network out of the trained model.

        Raises:
            ValueError: as `canonical`.
        """
        chosen = self.canonical(architecture)
        kept: dict[str, Units] = {}
        dropped, crops = [], dict[str, tuple[int, ...]]()
        for each in self.dimensions:
            choice = chosen[each.name]
            if choice == each.choices[0]:
                continue
            if each.kind is Kind.WIDTH:
                kept[each.subject] = self._widths[each.subject][choice]
            elif each.kind is Kind.DEPTH:
                dropped.append(each.subject)
            else:
                crops[each.subject] = self._kernels[each.subject][choice]
        plan = plan_of(self._converted, self.structure, kept, dropped)
        layers = dict(plan.layers)
        for path, kernel in crops.items():
            layers[path] = replace(layers.get(path, Cut()), kernel=kernel)
        return replace(plan, layers=dict(sorted(layers.items())))

    def _possible(self, options: Elasticity) -> Iterator[Dimension]:
        """All dimensions with all their choices."""
        for name, widths in self._widths.items():
            yield Dimension(Kind.WIDTH, name, tuple(widths))
        for block in self.structure.blocks if options.depth else ():
            yield Dimension(Kind.DEPTH, block.path, (1, 0))
        for path, sizes in self._kernels.items():
            yield Dimension(Kind.KERNEL, path, tuple(sizes))

    def _named_inside(self, block: Block) -> set[str]:
        names = {f"{Kind.WIDTH}:{name}" for name in block.groups}
        layers = (layer for layer in self._kernels if lies_in(layer, (block.path,)))
        names |= {f"{Kind.KERNEL}:{layer}" for layer in layers}
        return names & set(self._by_name)


def elastic(
    model: nn.Module,
    sample_shape: tuple[int, ...],
    scores: Mapping[str, Scores] | None = None,
    options: Elasticity | None = None,
    divisor: int = 1,
) -> Elastic:
    """Find what can vary in a model.

    Args:
        scores: of every unit; None takes channels in their order.

    Raises:
        PruningError: the model cannot be traced, or `exclude` matches no layer.
        NothingElasticError, SearchError: see `Elastic`.
    """
    chosen = options or Elasticity()
    structure = structure_of(model, sample_shape, chosen.exclude)
    if scores is None:
        scores = {g.name: -np.arange(len(g.units), dtype=np.float64) for g in structure.groups}
    return Elastic(model, structure, scores, chosen, divisor)


def _kernels(
    model: nn.Module, exclude: Collection[str]
) -> Iterator[tuple[str, dict[int, tuple[int, ...]]]]:
    """Layer -> longest side -> centres of its kernel that leave its outputs where they are."""
    for path, layer in model.named_modules():
        if not isinstance(layer, Conv) or any(fnmatchcase(path, rule) for rule in exclude):
            continue
        sizes = {max(layer.kernel_size): tuple(layer.kernel_size)}
        kernel = sizes[max(layer.kernel_size)]
        while True:
            kernel = tuple(k - 2 if k - 2 >= _LEAST_KERNEL else k for k in kernel)
            if max(kernel) in sizes or not has_centre(layer, kernel):
                break
            sizes[max(kernel)] = kernel
        if len(sizes) > 1:
            yield path, sizes


def _check(rules: Collection[ElasticOverride], possible: Collection[Dimension]) -> None:
    """A rule that changes nothing is a mistake.

    Raises:
        SearchError: it names no dimension, or no choice of those that it names.
    """
    names = [each.name for each in possible]
    for rule in rules:
        matched = [each for each in possible if fnmatchcase(each.name, rule.name)]
        if not matched:
            guess = did_you_mean(rule.name, names)
            raise SearchError(
                f"`elasticity.overrides`: {rule.name!r} names none of the {len(names)} dimensions",
                fix=f"did you mean {guess!r}?" if guess else f"choose of {listed(names)}",
            )
        there = sorted({choice for each in matched for choice in each.choices}, reverse=True)
        if unknown := [choice for choice in rule.choices if choice not in there]:
            raise SearchError(
                f"`elasticity.overrides`: {rule.name!r} cannot be {', '.join(map(str, unknown))}",
                fix=f"choose of {', '.join(map(str, there))}: widths above `least_width` that the"
                " target likes, 1 or 0 of blocks, odd kernels",
            )


def _chosen(possible: Dimension, options: Elasticity) -> Dimension:
    """With those choices that the user lists, or a few spread evenly, the ends among them."""
    rules = [rule for rule in options.overrides if fnmatchcase(possible.name, rule.name)]
    first, *others = possible.choices
    if rules:
        return replace(possible, choices=(first, *(c for c in others if c in rules[-1].choices)))
    most = min(options.widths, len(possible.choices))
    places = np.linspace(0, len(others), most).round().astype(int).tolist()
    return replace(possible, choices=tuple(possible.choices[at] for at in dict.fromkeys(places)))
