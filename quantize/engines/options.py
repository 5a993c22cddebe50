"""What engines can be told. Imports no torch, so that specs are linted quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

EngineName = Literal["edgesmith", "neural-compressor"]
OWN: EngineName = "edgesmith"
"""The engine that is this package itself."""

Observer = Literal["minmax", "kl"]
FloatScales = Literal["arbitrary", "power-of-two", "unit"]


@dataclass(frozen=True)
class Tuning:
    """Try recipes until one loses little enough; whatever ends it, the best so far is kept.

    Args:
        max_trials: recipes tried, at most.
        max_seconds: no trial begins later; the one under way is finished and counts.
        tolerable_loss_percent: relative to the float model's accuracy on the selection split;
            the first recipe that loses no more ends the search.
    """

    max_trials: Annotated[int, Field(ge=1)] = 4
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    tolerable_loss_percent: Annotated[float, Field(ge=0, le=100)] = 1.0


@dataclass(frozen=True)
class NeuralCompressorOptions:
    """How Neural Compressor quantizes statically.

    Args:
        observer: of int8 activations: `minmax` averages the extremes of batches, `kl` takes a
            histogram and the range of least error in it.
        symmetric: int8 activations have the zero point 0.
        fp8_scales: of 8-bit floats: the largest magnitude with a margin, that rounded up to a
            power of two, or 1.
        tune: other recipes too, the given one first; needs `data.selection`.
    """

    observer: Observer = "minmax"
    symmetric: bool = False
    fp8_scales: FloatScales = "arbitrary"
    tune: Tuning | None = None
