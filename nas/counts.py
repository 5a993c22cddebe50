"""What follows from a candidate's shapes and formats alone, exactly: nothing of it is predicted.

A layer's shape depends on few dimensions. Which ones is found by trying each alone; a shape is cut
once for each combination of theirs and then looked up, so that a search may ask for thousands.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from edgesmith.nas.elastic import Architecture
from edgesmith.nas.genes import Genes
from edgesmith.nas.space import Candidate, Choice
from edgesmith.prune.surgery import apply_plan
from edgesmith.quantize.allocation.costs import (
    BIT_OPERATIONS,
    WEIGHT_BYTES,
    multiply_accumulates,
    weight_bytes,
)
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.network import Network
from edgesmith.quantize.options import ACTIVATION_FORMATS, WEIGHT_FORMATS

MACS = "macs"


@dataclass(frozen=True)
class Shape:
    """Of one group: weights, 0 without; multiply-accumulates of one sample."""

    weights: int
    macs: int


class Counts:
    """Weight bytes, multiply-accumulates and bit operations of candidates.

    Args:
        model: the trained model.
        network: it, as it is quantized.
    """

    def __init__(
        self, model: nn.Module, network: Network, genes: Genes, sample_shape: tuple[int, ...]
    ) -> None:
        self._genes = genes
        self._sample_shape = sample_shape
        self._whole = _shapes_of(network, sample_shape)
        modules = dict(model.named_modules())
        self._light = all(name in modules for name in self._whole)
        self._empty = copy.deepcopy(model).to("meta") if self._light else model
        self._deciding = self._dimensions_by_group()
        self._known: dict[tuple[str, tuple[int, ...]], Shape | None] = {}

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """`weight-bytes`, `macs`, `bit-operations`."""
        return self.of(self._genes.space.choices(candidate))

    def of(self, choices: Mapping[str, Choice]) -> dict[str, float]:
        """The same, of choices by name."""
        stored = macs = operations = 0
        for name, shape in self._shapes(self._genes.architecture(choices)):
            bits = ACTIVATION_FORMATS[self._genes.activation_format(name, choices)].bits
            of_weight = bits
            if shape.weights:
                fmt = WEIGHT_FORMATS[self._genes.weight_format(name, choices)]
                stored += weight_bytes(shape.weights, fmt)
                of_weight = fmt.bits
            macs += shape.macs
            operations += shape.macs * bits * of_weight
        return {WEIGHT_BYTES: stored, MACS: macs, BIT_OPERATIONS: operations}

    def macs(self, architecture: Architecture) -> int:
        """Multiply-accumulates of a sub-network."""
        return sum(shape.macs for _, shape in self._shapes(architecture))

    def _shapes(self, architecture: Architecture) -> Iterator[tuple[str, Shape]]:
        for name, dimensions in self._deciding.items():
            key = name, tuple(architecture[each] for each in dimensions)
            if key not in self._known:
                self._learn(architecture)
            shape = self._known[key]
            if shape is not None:
                yield name, shape

    def _learn(self, architecture: Architecture) -> None:
        """Keep what all groups of one sub-network are."""
        found = self._cut(architecture)
        for name, dimensions in self._deciding.items():
            self._known[name, tuple(architecture[each] for each in dimensions)] = found.get(name)

    def _dimensions_by_group(self) -> dict[str, tuple[str, ...]]:
        """Group -> the dimensions that change its shape."""
        elastic = self._genes.elastic
        found: dict[str, list[str]] = {name: [] for name in self._whole}
        for each in elastic.dimensions:
            changed = self._cut({**elastic.whole(), each.name: each.choices[-1]})
            for name, shape in self._whole.items():
                if changed.get(name) != shape:
                    found[name].append(each.name)
        return {name: tuple(names) for name, names in found.items()}

    def _cut(self, architecture: Architecture) -> dict[str, Shape]:
        made = apply_plan(self._empty, self._genes.elastic.plan(architecture))
        if not self._light:
            sample = torch.zeros(1, *self._sample_shape)
            return _shapes_of(prepare(made, sample), self._sample_shape)
        modules = dict(made.named_modules())
        shapes = {}
        for name, whole in self._whole.items():
            if name in modules:
                weights = modules[name].get_parameter("weight").numel()
                shapes[name] = Shape(weights, whole.macs // whole.weights * weights)
        return shapes


def _shapes_of(network: Network, sample_shape: tuple[int, ...]) -> dict[str, Shape]:
    layers = {step.name for step in network.layer_steps()}
    return {
        name: Shape(network.layer(name).weight.numel() if name in layers else 0, macs)
        for name, macs in multiply_accumulates(network, sample_shape).items()
    }
