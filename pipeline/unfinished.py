"""Where a long stage keeps what it has done, so that the same command goes on from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgesmith.pipeline.stage import Stage, StageContext

STATE = ".edgesmith"


def unfinished_folder(stage: Stage, context: StageContext) -> Path:
    """A folder of this stage's own inputs and parameters; it may not exist yet.

    The stage removes it when it is done.
    """
    import hashlib

    from edgesmith.pipeline.jsonvalue import to_data
    from edgesmith.pipeline.spec import canonical_json

    parts = [
        to_data(stage),
        context.seed,
        stage.key_parts(context.spec, context.target),
        {name: context.records[name].digest for name in stage.requires(context.spec)},
    ]
    digest = hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]
    return context.spec.folder / STATE / "unfinished" / f"{stage.name}-{digest}"
