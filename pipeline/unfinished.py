"""Where a long stage keeps what it has done: for the same command, or for all that need it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgesmith.pipeline.stage import Stage, StageContext

STATE = ".edgesmith"


def unfinished_folder(stage: Stage, context: StageContext, apart: Collection[str] = ()) -> Path:
    """A folder of this stage's own inputs and parameters; it may not exist yet.

    The stage removes it when it is done.

    Args:
        apart: parameters that can change without touching what has been done.
    """
    from edgesmith.pipeline.jsonvalue import to_data

    parts = [
        {name: value for name, value in to_data(stage).items() if name not in apart},
        context.seed,
        stage.key_parts(context.spec, context.target),
        _inputs(stage, context),
    ]
    return context.spec.folder / STATE / "unfinished" / f"{stage.name}-{digest_of(parts)}"


def kept_folder(stage: Stage, context: StageContext, kind: str, parts: object) -> Path:
    """A folder of what rests on the stage's inputs and on `parts` alone, whatever else the stage
    is told; it may not exist yet. It stays, and can be deleted: then the work is done again.

    Args:
        kind: what it holds, in a word.
        parts: JSON-ready.
    """
    digest = digest_of([parts, context.seed, _inputs(stage, context)])
    return context.spec.folder / STATE / kind / digest


def trainings_folder(context: StageContext) -> Path:
    """A folder of quantization-aware trainings of the spec's model on its data, whichever stage
    begins and whichever ends them; it may not exist yet.
    """
    from edgesmith.pipeline.own_source import own_source_digest
    from edgesmith.pipeline.versions import installed

    inputs = {name: context.records[name].digest for name in ("load", "data")}
    parts = [inputs, own_source_digest(), installed("torch", "brevitas", "numpy")]
    return context.spec.folder / STATE / "trainings" / digest_of(parts)


def _inputs(stage: Stage, context: StageContext) -> dict[str, str]:
    return {name: context.records[name].digest for name in stage.requires(context.spec)}


def digest_of(parts: object) -> str:
    """16 hexadecimal digits of something JSON-ready."""
    import hashlib

    from edgesmith.pipeline.spec import canonical_json

    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]
