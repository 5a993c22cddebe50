"""What the `prune` stage can be told: frozen dataclasses whose fields are its YAML keys.

Imports no torch, so that specs are linted quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from edgesmith.pipeline.errors import PruningError
from edgesmith.pipeline.registry import MemberOf
from edgesmith.pipeline.training.options import Count, NotNegative, Training

FORMATS = ("weights", "activations", "overrides")
"""Parameters of the `quantize` stage that decide what a layer costs."""

FINETUNE = Training()
Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Sparsity:
    """Weights that are exactly zero, smallest magnitudes first.

    Args:
        pattern: `n:m` keeps the n largest of every m weights along a layer's inputs;
            `unstructured` takes any.
        kept, of: n and m.
        zeros: share of weights that `unstructured` sets to zero in each layer.
        exclude: shell-style patterns of layers that stay dense.
    """

    pattern: Literal["n:m", "unstructured"] = "n:m"
    kept: Count = 2
    of: Annotated[int, Field(ge=2)] = 4
    zeros: Share = 0.5
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trials:
    """Allocations that are trained for a moment before one of them is fine-tuned.

    Args:
        candidates: how many; half of them rank the same saliencies differently or leave out
            residual blocks, the others are neighbours of the best.
        epochs: of each, over `samples` of the train split; otherwise as `finetune` says.
        blocks: residual blocks may go as a whole; false only removes channels.
    """

    candidates: Annotated[int, Field(ge=2)] = 8
    epochs: Count = 3
    samples: Count = 12000
    blocks: bool = True


@dataclass(frozen=True)
class PruneOptions:
    """Structured pruning to a cost on a target, then fine-tuning.

    Args:
        target: whose cost is meant; the first of the spec if not given.
        cost: share of the unpruned model's cost that is to be left; null prunes no channels.
        metric: one that the target's cost model gives; its usual one if not given: instructions
            on microcontrollers, time on this machine's runtimes.
        importance: a file in `prune/importances/`.
        samples: train samples that importances and reconstruction look at.
        rounds: prune and fine-tune so many times, in equal ratios.
        tolerance_points: a round whose selection accuracy after fine-tuning lies more than this
            below the unpruned model's is rolled back.
        max_pruned: at most this share of a group of channels goes.
        exclude: shell-style patterns of layers that keep their channels, and stay.
        reconstruct: before any fine-tuning, what stays makes up for what goes: layer after layer
            is solved for its old outputs by least squares on `samples`, and batch statistics are
            measured again.
        finetune: training after each round, with the unpruned model as teacher; null leaves the
            weights as they are.
        trials: choose among several ways to spread the cost over layers by short trainings; null
            trusts the importance.
        sparsity: zeros after the channels are gone.
    """

    target: str | None = None
    cost: Share | None = 0.5
    metric: Literal["instructions", "cycles", "time", "flash", "arena"] | None = None
    importance: Annotated[str, MemberOf("edgesmith.prune.importances")] = "group-fisher"
    samples: Count = 256
    rounds: Count = 3
    tolerance_points: NotNegative = 3.0
    max_pruned: Share = 0.9
    exclude: tuple[str, ...] = ()
    reconstruct: bool = True
    finetune: Training | None = FINETUNE
    trials: Trials | None = None
    sparsity: Sparsity | None = None

    def check(self) -> None:
        """Refuse values that no run can use.

        Raises:
            SpecError: there is no such importance.
            PruningError: nothing is asked for, or a pattern keeps everything.
        """
        from edgesmith.prune.importances.base import importances

        importances().get(self.importance)
        if self.cost is None and self.sparsity is None:
            raise PruningError(
                "neither `cost` nor `sparsity` is set, so there is nothing to prune",
                fix="set one of them, or remove the stage",
            )
        if self.trials is not None and (self.finetune is None or self.cost is None):
            missing = "cost" if self.cost is None else "finetune"
            raise PruningError(
                f"`trials` train allocations of channels, which needs `{missing}`, and it is null",
                fix=f"set `{missing}`, or leave `trials` out",
            )
        pattern = self.sparsity
        if pattern is not None and pattern.pattern == "n:m" and pattern.kept >= pattern.of:
            raise PruningError(
                f"sparsity {pattern.kept}:{pattern.of} keeps every weight",
                fix="choose `kept` below `of`, such as 2 of 4",
            )
