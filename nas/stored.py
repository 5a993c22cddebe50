"""The outcome of a search on disk; the sub-network as pruning stores one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edgesmith.nas.values import SearchResult
from edgesmith.pipeline.allocated import RULES
from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.prune.stored import save_smaller
from edgesmith.quantize.allocation.options import Rules

if TYPE_CHECKING:
    from edgesmith.nas.run import Chosen

RESULT = "search.json"


def save_chosen(chosen: Chosen, folder: Path) -> None:
    """Write into an existing folder."""
    save_smaller(chosen.module, chosen.plan, folder)
    (folder / RULES).write_text(to_json(Rules(chosen.overrides)), encoding="utf-8")
    (folder / RESULT).write_text(to_json(chosen.result), encoding="utf-8")


def load_result(folder: Path) -> SearchResult:
    """What the search found.

    Raises:
        CacheError: the file is missing or damaged.
    """
    try:
        return from_json(SearchResult, (folder / RESULT).read_bytes())
    except (OSError, ValidationError) as error:
        raise CacheError(
            f"{RESULT} cannot be read: {type(error).__name__}",
            fix="run the stage again with --force search",
        ) from error
