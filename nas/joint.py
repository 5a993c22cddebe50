"""Everything that a joint search works on, made from one trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgesmith.nas.accepted import refused
from edgesmith.nas.counts import Counts
from edgesmith.nas.elastic import Architecture, Elastic, elastic
from edgesmith.nas.genes import Genes, Offered
from edgesmith.nas.options import Elasticity
from edgesmith.nas.supernet import SuperNetwork
from edgesmith.prune.importances.base import Scores
from edgesmith.prune.surgery import converted, lies_in
from edgesmith.prune.values import PrunePlan
from edgesmith.quantize.groups import prepare
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.placement import place
from edgesmith.targets.base import TargetDescription


@dataclass(frozen=True, eq=False)
class Joint:
    """A super-network and the space of its candidates.

    Args:
        model: the trained model; attention that may lose heads is `HeadAttention`, so that groups
            have the same names in every sub-network.
        attention: paths of what became `HeadAttention`.
    """

    model: nn.Module
    elastic: Elastic
    network: SuperNetwork
    genes: Genes
    counts: Counts
    sample_shape: tuple[int, ...]
    attention: tuple[str, ...] = ()

    def plan(self, architecture: Architecture) -> PrunePlan:
        """What makes a sub-network out of the model as it was trained.

        Raises:
            ValueError: there is no such sub-network.
        """
        plan = self.elastic.plan(architecture)
        stay = (path for path in self.attention if not lies_in(path, plan.dropped))
        return replace(plan, attention=tuple(stay))


def joint_of(
    model: nn.Module,
    sample_shape: tuple[int, ...],
    offered: Offered,
    options: PTQOptions,
    *,
    elasticity: Elasticity | None = None,
    scores: Mapping[str, Scores] | None = None,
    divisor: int = 1,
    targets: Sequence[TargetDescription] = (),
) -> Joint:
    """Find what can vary, in shape and in formats.

    Args:
        scores: group name -> importance of each unit; None keeps channels in their order.
        options: what candidates are quantized with, formats aside.
        divisor: widths stay multiples of it.
        targets: each layer and tensor is offered what all of them take there.

    Raises:
        PruningError: the model cannot be traced.
        NothingElasticError: there is nothing to choose.
        UnsupportedError: it cannot be quantized, or a target does not take it.
    """
    first = elastic(model, sample_shape, scores, elasticity, divisor)
    base = converted(model, first.structure).eval()
    found = elastic(base, sample_shape, scores, elasticity, divisor)
    attention = first.structure.attention
    network = prepare(base, torch.zeros(1, *sample_shape))
    placement = place(network.steps, network.constant_names, options)
    genes = Genes(found, placement, offered, options)
    if targets:
        lacking = refused(genes, base, sample_shape, targets)
        genes = Genes(found, placement, offered, options, lacking)
    counts = Counts(base, network, genes, sample_shape)
    return Joint(base, found, SuperNetwork(base, found), genes, counts, sample_shape, attention)
