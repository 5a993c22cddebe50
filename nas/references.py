"""The trained model itself, which a search has to beat: as it is, and in one format throughout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from edgesmith.nas.evaluation import Evaluator
from edgesmith.nas.genes import Offered, offered
from edgesmith.nas.values import ACCURACY, FLOAT, UNIFORM
from edgesmith.pipeline.errors import EdgesmithError
from edgesmith.quantize.options import ACTIVATION_FORMATS, WEIGHT_FORMATS
from edgesmith.targets.base import TargetDescription

_USUAL = (("int8", "int8"), ("int4", "int8"), ("fp8-e4m3", "fp8-e4m3"))


def references(
    evaluator: Evaluator, formats: Offered, targets: Sequence[TargetDescription]
) -> dict[str, dict[str, float]]:
    """What it reaches, by name: `float`, and every uniform format of those that are usual and those
    that the search could choose; its accuracy alone where a target does not take it.
    """
    found = {FLOAT: {ACCURACY: evaluator.float_accuracy()}}
    for weight, activation in dict.fromkeys((*_USUAL, *_offered(formats))):
        name = _name(weight, activation)
        try:
            offered((weight,), (activation,), targets)
            found[name] = evaluator.uniform(weight, activation)
        except EdgesmithError:
            # What cannot be quantized at all is nothing to compare with.
            with suppress(EdgesmithError):
                found[name] = {ACCURACY: evaluator.uniform_accuracy(weight, activation)}
    return found


def _offered(formats: Offered) -> Iterator[tuple[str, str]]:
    """With the widest activations that are integers as the weights are."""
    for weight in formats.weights:
        kind = WEIGHT_FORMATS[weight].is_float
        beside = [n for n in formats.activations if ACTIVATION_FORMATS[n].is_float == kind]
        yield weight, "int8" if "int8" in beside else (beside or list(formats.activations))[0]


def _name(weight: str, activation: str) -> str:
    usual = activation == (weight if WEIGHT_FORMATS[weight].is_float else "int8")
    return f"{UNIFORM}{weight}" if usual else f"{UNIFORM}{weight} with {activation}"
