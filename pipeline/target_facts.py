"""Looking a target up by name, and what of it enters cache keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesmith.pipeline.values import BuildProducts
    from edgesmith.targets.base import Target


def get_target(name: str | None) -> Target:
    """The target of that name.

    Raises:
        SpecError: there is none.
    """
    from edgesmith.pipeline.registry import Registries

    return Registries.discovered().targets.get(name or "")()


def tool_parts(name: str | None) -> dict[str, str]:
    """The versions of a target's tools; its facts are in the key of every per-target step."""
    return {f"tool {tool.name}": tool.version() for tool in get_target(name).tools()}


def products_in(folder: Path) -> BuildProducts:
    """What the `build` stage left in its output folder."""
    from dataclasses import replace

    from edgesmith.pipeline.jsonvalue import from_json
    from edgesmith.pipeline.stages.build import PRODUCTS
    from edgesmith.pipeline.values import BuildProducts

    products = from_json(BuildProducts, (folder / PRODUCTS).read_bytes())
    return replace(products, folder=str(folder))


def float_baseline_in(folder: Path) -> Path | None:
    """The float baseline that the `build` stage left, if the target has one."""
    return next(folder.glob("float.*"), None)
