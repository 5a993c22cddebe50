"""What zero weights are worth on a target, said before and after it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesmith.pipeline.results import ZerosGain
    from edgesmith.targets.base import TargetDescription


def gain_statement(target: TargetDescription, gain: ZerosGain | None = None) -> str:
    """What a target does with zeros.

    Args:
        gain: what its deployment was found to save; None before one, or where it saved nothing.
    """
    if not target.omits_zeros:
        return (
            f"zero weights: no gain on {target.name}; it stores and multiplies them like any other"
            " weight (flash, RAM and time stay the same)"
        )
    head = f"zero weights on {target.name}:"
    if gain is None:
        return (
            f"{head} flash only, in layers whose weights take fewer bytes without them; they are"
            " expanded or skipped one by one, which takes time"
        )
    shown = (gain.flash, gain.instructions, gain.arena)
    flash, instructions, arena = (f"{each.value:,.0f}" for each in shown)
    return (
        f"{head} {flash} bytes of flash saved in {gain.layers} layers, for {instructions}"
        f" instructions ({gain.share.value:.1f} %) more per inference and {arena} bytes more of"
        " arena, counted beside the same network with every weight stored"
    )
