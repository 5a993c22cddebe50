"""What a search begins with: the corners of its space, and the trained model in every format.

Seeds are what users would have tried anyway; a search that starts from them is never worse.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from edgesmith.nas.evaluation import Evidence
from edgesmith.nas.genes import ACTIVATIONS, WEIGHTS, Genes
from edgesmith.nas.joint import Joint
from edgesmith.nas.space import Choice
from edgesmith.nas.values import Proposal
from edgesmith.quantize.allocation.allocate import allocate, spread_over
from edgesmith.quantize.allocation.options import AllocationOptions
from edgesmith.quantize.allocation.problem import Choice as Formats
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.sensitivity.subject import subject_of
from edgesmith.quantize.sensitivity.values import Sensitivities, SensitivityOptions

_PROGRAMS = 3
_POINTS = 12


def corners(joint: Joint) -> tuple[Proposal, ...]:
    """The trained model in each uniform format, and the smallest sub-network in the ends of them;
    the trained model in its widest formats first.
    """
    genes = joint.genes
    weights, activations = genes.offered.weights, genes.offered.activations
    found = [
        (f"uniform {_named(weight, activation, genes)}", genes.uniform(weight, activation))
        for weight, activation in itertools.product(weights, activations)
    ]
    for weight, activation in ((weights[0], activations[0]), (weights[-1], activations[-1])):
        chosen = {**genes.uniform(weight, activation), **joint.elastic.smallest()}
        found.append((f"smallest, {_named(weight, activation, genes)}", chosen))
    return tuple(_proposal(genes, name, choices) for name, choices in found)


def programs(
    joint: Joint, evidence: Evidence, options: PTQOptions, *, seed: int
) -> tuple[tuple[Proposal, ...], Sensitivities | None]:
    """The trained model in formats that an integer program chose by sensitivity, at a few sizes,
    and that sensitivity; none where there is one weight format.
    """
    genes = joint.genes
    if len(genes.offered.weights) < 2:
        return (), None
    subject = subject_of(joint.model, evidence.calibration, options, seed)
    allocation = AllocationOptions(
        genes.offered.weights,
        genes.offered.activations,
        resource="weight-bytes",
        points=_POINTS,
        sensitivity=SensitivityOptions(method="divergence"),
    )
    found = allocate(subject, allocation, seed=seed)
    solutions = found.front.solutions
    inside = spread_over(len(solutions), _PROGRAMS + 2, 0)[1:-1]
    made = (
        _proposal(genes, f"integer program {n}", dict(_choices(genes, solutions[at].choices)))
        for n, at in enumerate(inside, start=1)
    )
    return tuple(made), found.sensitivities


def _choices(genes: Genes, solution: dict[str, Formats]) -> Iterator[tuple[str, Choice]]:
    """A solution as genes, as far as they can have it."""
    choices = {gene.name: gene.choices for gene in genes.space.genes}
    for group, formats in solution.items():
        root = genes.placement.quantizer_of.get(group, "")
        for name, chosen in (
            (WEIGHTS + group, formats.weight),
            (ACTIVATIONS + root, formats.activation),
        ):
            if chosen is not None and chosen in choices.get(name, ()):
                yield name, chosen


def _named(weight: str, activation: str, genes: Genes) -> str:
    return weight if len(genes.offered.activations) == 1 else f"{weight} with {activation}"


def _proposal(genes: Genes, name: str, choices: dict[str, Choice]) -> Proposal:
    return Proposal(genes.space.of(choices), f"seed: {name}")
