"""A candidate's formats by what each costs the trained model alone, which needs no evaluation."""

from __future__ import annotations

from collections.abc import Mapping

from edgesmith.nas.genes import ACTIVATIONS, WEIGHTS
from edgesmith.nas.space import Candidate, Space
from edgesmith.quantize.sensitivity.values import Sensitivities

SENSITIVITY = "sensitivity"


class SensitivityProxy:
    """Rise of the trained model's loss by the formats of a candidate, as if effects added up.

    It says nothing of widths; predictors are given it as a feature.

    Args:
        found: of the formats that are offered.
    """

    def __init__(self, space: Space, found: Sensitivities) -> None:
        self._space = space
        kinds = {WEIGHTS: found.weights, ACTIVATIONS: found.activations}
        known: Mapping[tuple[str, str], float] = {
            (kind + each.group, each.format): each.loss
            for kind, losses in kinds.items()
            for each in losses
        }
        self._rises = tuple(
            tuple(known.get((gene.name, str(choice)), 0.0) for choice in gene.choices)
            for gene in space.genes
        )

    def __call__(self, candidate: Candidate) -> float:
        """In the unit of the sensitivities."""
        active = self._space.active(candidate)
        rows = zip(self._rises, candidate, active, strict=True)
        return sum(rises[index] for rises, index, on in rows if on)
