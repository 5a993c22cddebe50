"""How much each group's loss rises when its weights or activations get a format: estimates."""

from __future__ import annotations

from edgesmith.quantize.sensitivity.measure import measure
from edgesmith.quantize.sensitivity.subject import Subject, subject_of
from edgesmith.quantize.sensitivity.values import (
    CrossTerm,
    LossName,
    Method,
    Sensitivities,
    Sensitivity,
    SensitivityOptions,
)

__all__ = [
    "CrossTerm",
    "LossName",
    "Method",
    "Sensitivities",
    "Sensitivity",
    "SensitivityOptions",
    "Subject",
    "measure",
    "subject_of",
]
