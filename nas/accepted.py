"""Which of the offered formats every layer and tensor can have on all targets, found by trying.

Descriptions name formats per operator; what operators a layer becomes, and what is requantized
between them, exporter, reader and legalizer decide. So formats are tried out there, once for the
whole model and gene by gene only where that is refused (SpaceEvo's lesson, arXiv:2303.08308: leave
out of the space what the device cannot run, before anything is searched).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from edgesmith.nas.genes import ACTIVATIONS, WEIGHTS, Genes, Refused
from edgesmith.nas.space import Choice
from edgesmith.pipeline.errors import UnsupportedError
from edgesmith.prune.costs import QUICK, exported, noise
from edgesmith.targets.base import TargetDescription
from edgesmith.targets.graph.legalizer import legalize
from edgesmith.targets.graph.onnx_reader import read_onnx

Choices = dict[str, Choice]


def refused(
    genes: Genes,
    model: nn.Module,
    sample_shape: tuple[int, ...],
    targets: Sequence[TargetDescription],
) -> Refused:
    """What genes cannot choose.

    Args:
        genes: of the trained model, with all that is offered.

    Raises:
        UnsupportedError: no uniform format can be deployed; with the reason of the widest one.
    """
    trial = _Trial(genes, model, sample_shape, tuple(targets))
    weights, activations = genes.offered.weights, genes.offered.activations
    safe = _widest(trial, itertools.product(weights, activations))
    found: dict[str, set[str]] = defaultdict(set)
    reached = {}
    for activation in activations:
        held, lacking = trial.spread(safe, ACTIVATIONS, activation)
        reached[activation] = held
        for name in lacking:
            found[name].add(activation)
    for weight, activation in itertools.product(weights, activations):
        for name in trial.spread(reached[activation], WEIGHTS, weight)[1]:
            found[name].add(weight)
    return {name: frozenset(formats) for name, formats in found.items()}


def _widest(trial: _Trial, pairs: Iterable[tuple[str, str]]) -> Choices:
    """The first pair of formats that the whole model can have."""
    first: UnsupportedError | None = None
    for pair in pairs:
        choices = trial.genes.uniform(*pair)
        error = trial.refusal(choices)
        if error is None:
            return choices
        first = first or error
    assert first is not None, "something is offered"
    raise first


@dataclass(frozen=True, eq=False)
class _Trial:
    """Lowers the trained model in mixed formats for every target."""

    genes: Genes
    model: nn.Module
    sample_shape: tuple[int, ...]
    targets: tuple[TargetDescription, ...]

    def spread(self, start: Choices, kind: str, name: str) -> tuple[Choices, list[str]]:
        """Give a format to all genes of a kind that can have it together, in their order.

        Returns:
            The choices, and the genes that cannot.
        """
        own = [gene.name for gene in self.genes.space.genes if gene.name.startswith(kind)]
        everywhere = {**start, **dict.fromkeys(own, name)}
        if everywhere == start or self.refusal(everywhere) is None:
            return everywhere, []
        held, lacking = start, []
        for gene in own:
            tried = {**held, gene: name}
            if tried == held or self.refusal(tried) is None:
                held = tried
            else:
                lacking.append(gene)
        return held, lacking

    def refusal(self, choices: Choices) -> UnsupportedError | None:
        """Why a target does not take the model so; None where all do."""
        options = self.genes.options
        formats = replace(
            QUICK,
            weights=options.weights,
            activations=options.activations,
            overrides=self.genes.overrides(choices),
        )
        try:
            graph = read_onnx(exported(self.model, noise(self.sample_shape), formats), "model")
            for target in self.targets:
                legalize(graph, target)
        except UnsupportedError as error:
            return error
        return None
