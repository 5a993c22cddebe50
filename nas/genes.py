"""The joint search space of a super-network: what can vary, and the formats of every group.

Weight formats belong to layers, activation formats to the sets of tensors that share a quantizer
(operands and result of what ties them). Both are limited to what all targets take, before anything
is searched.
"""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from edgesmith.nas.elastic import Elastic, Kind
from edgesmith.nas.rounding import LayerFormats, Policy
from edgesmith.nas.space import Choice, Gene, Moot, Space
from edgesmith.pipeline.errors import SearchError
from edgesmith.prune.surgery import lies_in
from edgesmith.quantize.network import INPUT
from edgesmith.quantize.ops import Layer
from edgesmith.quantize.options import ACTIVATION_FORMATS, WEIGHT_FORMATS, Override, PTQOptions
from edgesmith.quantize.placement import Placement
from edgesmith.quantize.target_formats import TakenFormats
from edgesmith.targets.base import TargetDescription

WEIGHTS, ACTIVATIONS = "weights:", "activations:"
Refused = Mapping[str, frozenset[str]]
"""Gene -> offered formats that it cannot have."""


@dataclass(frozen=True)
class Offered:
    """Formats to choose from, by their names in specs, the widest first."""

    weights: tuple[str, ...]
    activations: tuple[str, ...]


def offered(
    weights: Sequence[str], activations: Sequence[str], targets: Sequence[TargetDescription]
) -> Offered:
    """Those of the formats that every target takes in every combination, the widest first.

    Raises:
        SearchError: none is left.
    """
    taken = [TakenFormats.of(each) for each in targets]
    taken = [each for each in taken if each.pairs]
    held = [
        name
        for name in activations
        if all(ACTIVATION_FORMATS[name].activation_storage in each.activations for each in taken)
    ]
    kept = [
        name
        for name in weights
        if all(
            each.takes(ACTIVATION_FORMATS[beside], WEIGHT_FORMATS[name])
            for each in taken
            for beside in held
        )
    ]
    if not kept or not held:
        raise SearchError(
            f"no target of {', '.join(each.target for each in taken)} takes what `formats` offers",
            fix=f"offer weights of {', '.join(taken[0].weight_names())} and activations of"
            f" {', '.join(taken[0].activation_names())}",
        )
    return Offered(
        tuple(sorted(kept, key=lambda name: -WEIGHT_FORMATS[name].bits)),
        tuple(sorted(held, key=lambda name: -ACTIVATION_FORMATS[name].bits)),
    )


class Genes:
    """The space, and what its choices mean.

    Args:
        placement: of the whole model, in the options' own formats.
        options: what candidates are quantized with, formats aside.
        refused: by a target, of what is offered.

    Attributes:
        formats: `weights:LAYER` and `activations:TENSOR` -> formats that it can have, the widest
            first; it is a gene where there is more than one.
    """

    def __init__(
        self,
        elastic: Elastic,
        placement: Placement,
        offered: Offered,
        options: PTQOptions,
        refused: Refused | None = None,
    ) -> None:
        self.elastic = elastic
        self.placement = placement
        self.offered = offered
        self.options = options
        self.refused = refused or {}
        self.layers = {s.name: s.inputs[0] for s in placement.steps if isinstance(s.op, Layer)}
        self.formats = self._formats()
        self.space = Space(tuple(self._genes()), tuple(self._moot()))

    @cached_property
    def free_sets(self) -> dict[str, tuple[str, ...]]:
        """Quantizer -> the groups that share it, where there is a format to choose: not at the
        model's input, and not where operators fix the scale.
        """
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.placement.groups:
            found[self.placement.quantizer_of[name]].append(name)
        fixed = {*self.placement.fixed, self.placement.quantizer_of[INPUT]}
        return {root: tuple(names) for root, names in found.items() if root not in fixed}

    def takes(self, weight: str, activation: str) -> bool:
        """Whether one weight and one activation format can be had throughout."""
        wanted = {WEIGHTS: weight, ACTIVATIONS: activation}
        return all(
            name in formats
            for gene, formats in self.formats.items()
            for kind, name in wanted.items()
            if gene.startswith(kind)
        )

    def uniform(self, weight: str, activation: str) -> dict[str, Choice]:
        """The trained model with one weight and one activation format, wherever it can have them;
        elsewhere with the widest.
        """
        kinds = {WEIGHTS: weight, ACTIVATIONS: activation}
        formats = {
            gene.name: name
            for gene in self.space.genes
            for kind, name in kinds.items()
            if gene.name.startswith(kind) and name in gene.choices
        }
        return {**self.elastic.whole(), **formats}

    def architecture(self, choices: Mapping[str, Choice]) -> dict[str, int]:
        """The dimensions of a candidate."""
        names = {each.name for each in self.elastic.dimensions}
        return {name: int(choice) for name, choice in choices.items() if name in names}

    def weight_format(self, layer: str, choices: Mapping[str, Choice]) -> str:
        gene = WEIGHTS + layer
        return str(choices.get(gene, self.formats[gene][0]))

    def activation_format(self, tensor: str, choices: Mapping[str, Choice]) -> str:
        root = self.placement.quantizer_of[tensor]
        if root not in self.free_sets:
            return self.placement.formats[root].name
        gene = ACTIVATIONS + root
        return str(choices.get(gene, self.formats[gene][0]))

    def policy(self, choices: Mapping[str, Choice]) -> Policy:
        """Formats of layers in training."""
        return {
            layer: LayerFormats(
                self.weight_format(layer, choices), self.activation_format(read, choices)
            )
            for layer, read in self.layers.items()
        }

    def overrides(self, choices: Mapping[str, Choice]) -> tuple[Override, ...]:
        """Formats as rules for `PTQOptions.overrides`, of the groups that the sub-network has."""
        blocks = (each for each in self.elastic.dimensions if each.kind is Kind.DEPTH)
        dropped = [each.subject for each in blocks if choices.get(each.name) == 0]
        rules = [
            Override(glob.escape(layer), weights=self.weight_format(layer, choices))
            for layer in self.layers
            if not lies_in(layer, dropped)
        ]
        for root, members in self.free_sets.items():
            name = self.activation_format(root, choices)
            rules += [
                Override(glob.escape(each), activations=name)
                for each in members
                if not lies_in(each, dropped)
            ]
        return tuple(rules)

    def _genes(self) -> Iterator[Gene]:
        for each in self.elastic.dimensions:
            yield Gene(each.name, each.choices)
        for name, formats in self.formats.items():
            if len(formats) > 1:
                yield Gene(name, formats)

    def _moot(self) -> Iterator[Moot]:
        """What lies in a block changes nothing where the block is gone."""
        for each in self.elastic.dimensions:
            if each.kind is Kind.DEPTH:
                inside = {*self.elastic.inside(each.name), *self._formats_in(each.subject)}
                if inside:
                    yield Moot(each.name, 0, tuple(sorted(inside)))

    def _formats_in(self, block: str) -> Iterator[str]:
        for layer in self.layers:
            if lies_in(layer, (block,)) and len(self.formats[WEIGHTS + layer]) > 1:
                yield WEIGHTS + layer
        for root, members in self.free_sets.items():
            inside = all(lies_in(member, (block,)) for member in members)
            if inside and len(self.formats[ACTIVATIONS + root]) > 1:
                yield ACTIVATIONS + root

    def _formats(self) -> dict[str, tuple[str, ...]]:
        found = {WEIGHTS + layer: self.offered.weights for layer in self.layers}
        found |= {ACTIVATIONS + root: self.offered.activations for root in self.free_sets}
        return {
            gene: tuple(each for each in formats if each not in self.refused.get(gene, ()))
            for gene, formats in found.items()
        }
