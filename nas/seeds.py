"""What a search begins with: the corners of its space, and the trained model in every format.

Seeds are what users would have tried anyway; a search that starts from them is never worse.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

from edgesmith.nas.evaluation import Evidence
from edgesmith.nas.genes import ACTIVATIONS, WEIGHTS, Genes
from edgesmith.nas.joint import Joint
from edgesmith.nas.space import Choice
from edgesmith.nas.values import Proposal
from edgesmith.quantize.allocation.allocate import spread_over
from edgesmith.quantize.allocation.build import problem_of
from edgesmith.quantize.allocation.costs import WEIGHT_BYTES
from edgesmith.quantize.allocation.front import front
from edgesmith.quantize.allocation.problem import Choice as Formats
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.sensitivity.measure import measure
from edgesmith.quantize.sensitivity.subject import subject_of
from edgesmith.quantize.sensitivity.values import Sensitivities, SensitivityOptions

_PROGRAMS = 3
_POINTS = 12
_SENSITIVITY = SensitivityOptions(method="divergence")


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
    ends = ((weights[0], activations[0]), (weights[-1], activations[-1]))
    for weight, activation in dict.fromkeys(ends):
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
    weights, activations = genes.offered.weights, genes.offered.activations
    sensitivities = measure(subject, weights, activations, _SENSITIVITY, seed=seed)
    problem = problem_of(subject, sensitivities).only(partial(_takes, genes))
    solutions = front(problem, WEIGHT_BYTES, points=_POINTS).solutions
    inside = spread_over(len(solutions), _PROGRAMS + 2, 0)[1:-1]
    made = (
        _proposal(genes, f"integer program {n}", dict(_choices(genes, solutions[at].choices)))
        for n, at in enumerate(inside, start=1)
    )
    return tuple(made), sensitivities


def _takes(genes: Genes, group: str, formats: Formats) -> bool:
    """Whether a group can have formats."""
    return all(
        name in genes.formats.get(gene, (name,)) for gene, name in _genes(genes, group, formats)
    )


def _choices(genes: Genes, solution: dict[str, Formats]) -> Iterator[tuple[str, Choice]]:
    """A solution as genes."""
    known = {gene.name for gene in genes.space.genes}
    for group, formats in solution.items():
        for gene, name in _genes(genes, group, formats):
            if gene in known:
                yield gene, name


def _genes(genes: Genes, group: str, formats: Formats) -> Iterator[tuple[str, str]]:
    """What formats of a group are as genes, where they are any."""
    root = genes.placement.quantizer_of.get(group, "")
    if formats.weight is not None:
        yield WEIGHTS + group, formats.weight
    if formats.activation is not None:
        yield ACTIVATIONS + root, formats.activation


def _named(weight: str, activation: str, genes: Genes) -> str:
    return weight if len(genes.offered.activations) == 1 else f"{weight} with {activation}"


def _proposal(genes: Genes, name: str, choices: dict[str, Choice]) -> Proposal:
    return Proposal(genes.space.of(choices), f"seed: {name}")
