"""The formats that quantizing goes on with: the spec's own, allocated or searched ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgesmith.pipeline.pruned import SEARCH

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec
    from edgesmith.pipeline.stage import StageContext
    from edgesmith.quantize.allocation.values import Figure
    from edgesmith.quantize.options import PTQOptions

    Options = TypeVar("Options", bound=PTQOptions)

T = TypeVar("T")

ALLOCATE = "allocate"
RULES = "rules.json"
FIGURE = "figure.json"


def with_allocation(spec: Spec, *stages: str) -> tuple[str, ...]:
    """What a stage requires that quantizes: `stages`, and `allocate` if the spec names it."""
    return (*stages, ALLOCATE) if spec.has_stage(ALLOCATE) else stages


def with_allocated_formats(options: Options, context: StageContext) -> Options:
    """The options with the rules that `allocate` or `search` chose, where one of them ran.

    Raises:
        CacheError: a file is missing or damaged.
    """
    stage = next((each for each in (ALLOCATE, SEARCH) if each in context.inputs), None)
    if stage is None:
        return options
    from edgesmith.quantize.allocation.options import Rules

    rules = _read(Rules, context.inputs[stage] / RULES, stage)
    return replace(options, overrides=rules.overrides)


def allocation_figure(context: StageContext) -> Figure | None:
    """The front that `allocate` found, to be drawn; None where it did not run.

    Raises:
        CacheError: a file is missing or damaged.
    """
    if ALLOCATE not in context.inputs:
        return None
    from edgesmith.quantize.allocation.values import Figure

    return _read(Figure, context.inputs[ALLOCATE] / FIGURE, ALLOCATE)


def _read(kind: type[T], path: Path, stage: str) -> T:
    from pydantic import ValidationError

    from edgesmith.pipeline.errors import CacheError
    from edgesmith.pipeline.jsonvalue import from_json

    try:
        return from_json(kind, path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CacheError(
            f"{path} cannot be read: {type(error).__name__}",
            fix=f"run the stage again with --force {stage}",
        ) from error
