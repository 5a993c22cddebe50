"""What pruning passes around: channel groups, plans, results. All round-trip to JSON.

A *unit* is the least that can be removed: the channels of several layers that only make sense
together (a convolution's filter, its batch norm entry, the inputs that read it). A *group* is
all units that touch the same axes of the same layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgesmith.pipeline.values import Kind, Measurement

Axis = Literal["out", "in"]


@dataclass(frozen=True)
class Slot:
    """Positions along one axis of one layer.

    Args:
        layer: path of the module, or of the parameter that belongs to no layer.
        axis: `out` is the channels that it makes, `in` those that it reads. A grouped
            convolution's `in` counts within one of its groups; a depthwise one has `out` only.
        index: positions, sorted.
    """

    layer: str
    axis: Axis
    index: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Units that can be removed independently of each other, from the same layers.

    Args:
        name: its first layer.
        units: per unit, what goes with it.
    """

    name: str
    units: tuple[tuple[Slot, ...], ...]

    @property
    def members(self) -> tuple[tuple[str, Axis], ...]:
        """Layers and axes that it touches."""
        return tuple((slot.layer, slot.axis) for slot in self.units[0])


@dataclass(frozen=True)
class Frozen:
    """Layers that pruning leaves alone, and why."""

    layers: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Block:
    """A residual block that can go as a whole.

    Args:
        groups: names of the groups whose layers all lie in it.
    """

    path: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Structure:
    """All that can be pruned in a model, and what cannot.

    Args:
        attention: paths of attention that becomes `HeadAttention` when something in it is
            removed.
    """

    groups: tuple[ChannelGroup, ...]
    frozen: tuple[Frozen, ...]
    attention: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()

    def __getitem__(self, name: str) -> ChannelGroup:
        return next(group for group in self.groups if group.name == name)


@dataclass(frozen=True)
class Cut:
    """What of one layer stays; None leaves it whole.

    Args:
        out_kept, in_kept: positions along an axis of channels.
        kernel: size of the centre of a convolution's kernel; its padding shrinks with it.
    """

    out_kept: tuple[int, ...] | None = None
    in_kept: tuple[int, ...] | None = None
    kernel: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PrunePlan:
    """Everything that makes the pruned module out of the original one, weights aside.

    Args:
        layers: path -> positions that stay, of the original layer.
        attention: paths that are replaced by `HeadAttention` first.
        dropped: paths of residual blocks that are left out.
    """

    layers: dict[str, Cut] = field(default_factory=dict)
    attention: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class CostFigure:
    """What one inference costs.

    Args:
        basis: `measured` by the target's cost model, or counted multiply-accumulates.
    """

    value: float
    unit: str
    kind: Kind
    basis: str


@dataclass(frozen=True)
class Round:
    """One prune and fine-tune; `accepted` is False where it was rolled back.

    Args:
        accuracy: on the selection split, percent, after fine-tuning.
        pruned_accuracy: the same, before fine-tuning.
        tried: the same, of allocations after a short training; the first is the saliency's.
    """

    goal: float
    cost: float
    pruned_accuracy: float
    accuracy: float
    accepted: bool
    epochs: int
    tried: tuple[float, ...] = ()


@dataclass(frozen=True)
class LayerWidth:
    """Output channels of a layer, and the share of its weights that is exactly zero."""

    layer: str
    before: int
    after: int
    zeros: float = 0.0


@dataclass(frozen=True)
class Speedup:
    """Median latency of one sample before and after pruning, timed in turns."""

    before: Measurement
    after: Measurement


@dataclass(frozen=True)
class PruneResult:
    """What pruning did.

    Args:
        reached: the cost goal was met; otherwise accuracy stopped it before.
        accuracy_before, accuracy_after: of the float model, percent of the selection split.
        dropped: paths of residual blocks that were left out; their layers are not in `widths`.
        timed: on a target that has no cost model and can be timed here.
    """

    target: str
    before: CostFigure
    after: CostFigure
    goal: float
    reached: bool
    accuracy_before: float
    accuracy_after: float
    rounds: tuple[Round, ...]
    widths: tuple[LayerWidth, ...]
    frozen: tuple[Frozen, ...]
    notes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    timed: Speedup | None = None

    def summary(self) -> tuple[str, ...]:
        """Sentences for a report."""
        share = 100 * self.after.value / self.before.value
        lines = [
            f"pruned for {self.target}: {self.before.value:,.0f} -> {self.after.value:,.0f}"
            f" {self.after.unit} ({share:.1f} %, {self.after.kind.value}, {self.after.basis});"
            f" selection accuracy {self.accuracy_before:.2f} -> {self.accuracy_after:.2f} %"
        ]
        if self.timed is not None:
            old, new = self.timed.before, self.timed.after
            lines.append(
                f"median latency on {self.target}, {new.kind.value} in turns, {new.samples} runs"
                f" each: {old.value:.4g} -> {new.value:.4g} {new.unit}"
            )
        if not self.reached:
            lines.append(f"the goal of {self.goal:,.0f} {self.after.unit} was not reached")
        widths = [f"{w.layer} {w.before} -> {w.after}" for w in self.widths if w.after < w.before]
        if widths:
            lines.append(f"output channels: {', '.join(widths)}")
        if self.dropped:
            lines.append(f"residual blocks left out: {', '.join(self.dropped)}")
        lines += [f"not pruned: {', '.join(each.layers)}: {each.reason}" for each in self.frozen]
        return (*lines, *self.notes)
