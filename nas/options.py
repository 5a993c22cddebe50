"""What the search can be told; imports no torch, so that specs are linted quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class ElasticOverride:
    """Other choices for some dimensions.

    Args:
        name: shell-style pattern of dimensions: `width:features.*`, `depth:*`, `kernel:stem.0`.
        choices: any that there are, beside the trained model's own; none freezes it.
    """

    name: str
    choices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Elasticity:
    """What may vary.

    Args:
        least_width: share of a group's units that always stays.
        widths: of one group, at most; spread evenly.
        depth: residual blocks may go.
        kernels: kernels larger than 3 may shrink to their centre.
        exclude: shell-style patterns of layers that stay as they are.
        overrides: the last one that matches a dimension decides.
    """

    least_width: Share = 0.25
    widths: Annotated[int, Field(ge=1)] = 8
    depth: bool = True
    kernels: bool = True
    exclude: tuple[str, ...] = ()
    overrides: tuple[ElasticOverride, ...] = ()
