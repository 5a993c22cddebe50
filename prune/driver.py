"""Iterative pruning: choose channels by the target's cost, fine-tune, keep or roll back.

    float model -> [structure -> importance -> selection -> smaller module -> fine-tune]* -> masks

What stays makes up for what goes before it is fine-tuned (`reconstruction.py`).

A round that loses more accuracy than is tolerated is rolled back and tried again half as far (in
the ratio of costs); after `_FAILURES` of those pruning ends with what was accepted. After every
round, every trial and every epoch in it, all state is on disk where a checkpoint folder is given.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pydantic
import safetensors
import safetensors.torch
import torch
from torch import nn

from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.errors import NotFasterError
from edgesmith.pipeline.jsonvalue import from_json, to_json
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.stage import Progress, SilentProgress
from edgesmith.pipeline.training.trainer import Trainer, Tuned, accuracy
from edgesmith.prune.costs import Costs
from edgesmith.prune.importances.base import Labelled, importances
from edgesmith.prune.masks import Masks, apply_masks, magnitude_masks, zeros
from edgesmith.prune.options import PruneOptions, Trials
from edgesmith.prune.reconstruction import Reconstruction
from edgesmith.prune.selection import Choice, Limits, Selection
from edgesmith.prune.structure import structure_of
from edgesmith.prune.surgery import Conv, after, apply_plan
from edgesmith.prune.trials import KnownTrials, best_allocation, unreadable
from edgesmith.prune.values import (
    CostFigure,
    Frozen,
    LayerWidth,
    PrunePlan,
    PruneResult,
    Round,
    Structure,
)

Smaller = Callable[[PrunePlan], nn.Module]
"""Makes a smaller copy of one model, in eval mode."""

_FAILURES = 3
_NEAR = 0.98  # a goal closer than this to the present cost is not worth a round
_STATE, _WEIGHTS = "state.json", "weights.safetensors"


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned model: the module, how to make it again, and what happened.

    Args:
        module: eval mode; same class as the original, smaller layers.
        masks: weights that must stay zero in later training; empty without sparsity.
    """

    module: nn.Module
    plan: PrunePlan
    masks: Masks
    result: PruneResult


@dataclass(frozen=True)
class Task:
    """What pruning works with.

    Args:
        model: the trained float model; not changed.
        train: for importances and fine-tuning.
        selection: decides what is kept.
        divisor: widths stay multiples of it.
    """

    model: nn.Module
    train: Split
    selection: Split
    costs: Costs
    target: str
    divisor: int = 1


@dataclass(frozen=True)
class _Done:
    """Accepted so far, beside the weights."""

    plan: PrunePlan
    rounds: tuple[Round, ...]
    cost: CostFigure
    before: CostFigure


class Pruner:
    """One pruning run.

    Args:
        checkpoint: a folder to resume from; None keeps nothing.
    """

    def __init__(
        self,
        task: Task,
        options: PruneOptions,
        *,
        seed: int,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        options.check()
        self._task = task
        self._options = options
        self._seed = seed
        self._progress = progress or SilentProgress()
        self._checkpoint = checkpoint
        self._model = copy.deepcopy(task.model).eval()
        self._frozen: tuple[Frozen, ...] = ()
        self._whole: dict[str, int] = {}

    def run(self) -> Pruned:
        """Prune.

        Raises:
            PruningError: the model cannot be traced, or nothing in it can be pruned.
            UnreachableCostError: the goal is below the cheapest form.
            NotFasterError: nothing was accepted that costs less than before.
            CacheError: the checkpoint cannot be read or written.
        """
        base = accuracy(self._model, self._task.selection)
        module, done = self._restored() or self._start()
        structure = structure_of(self._model, self._shape, self._options.exclude)
        self._frozen = structure.frozen
        self._whole = {group.name: len(group.units) for group in structure.groups}
        if self._options.cost is not None:
            while (goal := next_goal(done.before.value, done, self._options)) is not None:
                module, done = self._round(module, done, goal, base)
                self._save(module, done)
            _require_faster(done, self._options, self._task.target)
        module, masks, notes = self._sparse(module, base)
        return Pruned(module, done.plan, masks, self._result(module, done, base, notes))

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self._task.train.inputs.shape[1:])

    def _start(self) -> tuple[nn.Module, _Done]:
        cost = self._task.costs.measure([self._model])[0]
        return copy.deepcopy(self._model), _Done(PrunePlan(), (), cost, cost)

    def _round(
        self, module: nn.Module, done: _Done, goal: float, base: float
    ) -> tuple[nn.Module, _Done]:
        number = len(done.rounds) + 1
        structure = structure_of(module, self._shape, self._options.exclude)
        smaller = self._smaller(module, structure)
        choice, tried = self._choose(module, structure, smaller, done, goal)
        candidate = smaller(choice.plan)
        tuned = self._tuned(candidate, f"round-{number}", f"fine-tuning, round {number}")
        accepted = tuned.accuracy >= base - self._options.tolerance_points
        made = Round(
            goal, choice.cost.value, tuned.before, tuned.accuracy, accepted, tuned.epochs, tried
        )
        rounds = (*done.rounds, made)
        if not accepted:
            return module, replace(done, rounds=rounds)
        return candidate, _Done(after(done.plan, choice.plan), rounds, choice.cost, done.before)

    def _smaller(self, module: nn.Module, structure: Structure) -> Smaller:
        if not self._options.reconstruct:
            return partial(apply_plan, module)
        self._progress.report("measuring what layers read", 0, None)
        return Reconstruction(module, structure.attention, self._labelled().inputs).apply

    def _choose(
        self,
        module: nn.Module,
        structure: Structure,
        smaller: Smaller,
        done: _Done,
        goal: float,
    ) -> tuple[Choice, tuple[float, ...]]:
        options = self._options
        work = copy.deepcopy(module).eval().requires_grad_(True)
        importance = importances().get(options.importance)()
        scores = importance.scores(work, structure.groups, self._labelled())
        limits = Limits(self._task.divisor, options.max_pruned)
        if options.trials is None or not options.trials.blocks:
            structure = replace(structure, blocks=())
        choosing = Selection(module, structure, scores, self._task.costs, limits, self._whole)
        if not done.rounds and options.cost is not None:
            choosing.require(done.before.value * options.cost)  # before hours of training
        if options.trials is None:
            return choosing.reach(goal, self._progress.report), ()
        known = KnownTrials(self._checkpoint, len(done.rounds) + 1)
        trial = self._trial(smaller, options.trials, known)
        report = self._progress.report
        found = best_allocation(
            choosing, goal, trial, options.trials, seed=self._seed, report=report
        )
        return found.choice, found.accuracies

    def _trial(
        self, smaller: Smaller, options: Trials, known: KnownTrials
    ) -> Callable[[Choice], float]:
        """A short training of an allocation, always of the same samples; its accuracy."""
        assert self._options.finetune is not None
        training = replace(self._options.finetune, epochs=options.epochs)
        few = drawn(self._task.train, options.samples, self._seed)

        def train(choice: Choice) -> float:
            before = known.accuracy(choice)
            if before is not None:
                return before
            candidate = smaller(choice.plan)
            trainer = Trainer(candidate, self._model, training, seed=self._seed)
            found = trainer.run(few, self._task.selection, SilentProgress(), "trial").accuracy
            known.add(choice, found)
            return found

        return train

    def _labelled(self) -> Labelled:
        """The same train samples in every round."""
        few = drawn(self._task.train, self._options.samples, self._seed)
        return Labelled(torch.from_numpy(few.inputs), torch.from_numpy(few.labels), self._seed)

    def _tuned(self, module: nn.Module, name: str, label: str, masks: Masks | None = None) -> Tuned:
        """Fine-tune in place; without fine-tuning only measure."""

        def mask() -> None:
            apply_masks(module, masks or {})

        mask()
        if self._options.finetune is None:
            found = accuracy(module, self._task.selection)
            return Tuned(found, found, 0)
        checkpoint = None if self._checkpoint is None else self._checkpoint / f"{name}.pt"
        trainer = Trainer(
            module,
            self._model,
            self._options.finetune,
            seed=self._seed,
            after_step=mask,
            checkpoint=checkpoint,
        )
        return trainer.run(self._task.train, self._task.selection, self._progress, label)

    def _sparse(self, module: nn.Module, base: float) -> tuple[nn.Module, Masks, tuple[str, ...]]:
        pattern = self._options.sparsity
        if pattern is None:
            return module, {}, ()
        candidate = copy.deepcopy(module)
        masks = magnitude_masks(candidate, pattern)
        tuned = self._tuned(candidate, "masks", "fine-tuning with zeros", masks)
        if tuned.accuracy < base - self._options.tolerance_points:
            note = (
                f"zeros were rolled back: accuracy fell to {tuned.accuracy:.2f} % of the selection"
                f" split, more than {self._options.tolerance_points} points below {base:.2f} %"
            )
            return module, {}, (note,)
        return candidate, masks, ()

    def _result(
        self, module: nn.Module, done: _Done, base: float, notes: tuple[str, ...]
    ) -> PruneResult:
        costs = self._task.costs
        goal = done.before.value * (self._options.cost or 1.0)
        found = zeros(module)
        widths = tuple(
            LayerWidth(name, old, new, found[name])
            for name, old, new in _widths(self._model, module)
        )
        return PruneResult(
            target=self._task.target,
            before=done.before,
            after=done.cost,
            goal=goal,
            reached=done.cost.value <= goal,
            accuracy_before=base,
            accuracy_after=accuracy(module, self._task.selection),
            rounds=done.rounds,
            widths=widths,
            frozen=self._frozen,
            notes=(*((costs.note,) if costs.note else ()), *_said(done.rounds), *notes),
            dropped=done.plan.dropped,
        )

    def _save(self, module: nn.Module, done: _Done) -> None:
        folder = self._checkpoint
        if folder is None:
            return
        weights = {name: value.contiguous() for name, value in module.state_dict().items()}
        with cache_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # Weights first: state that names a round has its weights.
            name = f"{len(done.rounds)}-{_WEIGHTS}"
            write_atomically(folder / name, safetensors.torch.save(weights))
            write_atomically(folder / _STATE, to_json(done).encode())

    def _restored(self) -> tuple[nn.Module, _Done] | None:
        folder = self._checkpoint
        if folder is None or not (folder / _STATE).exists():
            return None
        try:
            done = from_json(_Done, (folder / _STATE).read_bytes())
            name = f"{len(done.rounds)}-{_WEIGHTS}"
            weights = safetensors.torch.load_file(folder / name)
            module = apply_plan(self._model, done.plan)
            module.load_state_dict(weights)
        except (OSError, RuntimeError, safetensors.SafetensorError, pydantic.ValidationError) as e:
            raise unreadable(folder, e) from e
        return module.eval(), done


def _said(rounds: Sequence[Round]) -> list[str]:
    """What trials found, in words."""
    return [
        f"round {number}: of {len(each.tried)} allocations, trained for a moment, the best reached"
        f" {max(each.tried):.2f} % of the selection split; that of the importance alone"
        f" {each.tried[0]:.2f} %"
        for number, each in enumerate(rounds, start=1)
        if each.tried
    ]


def drawn(split: Split, samples: int, seed: int) -> Split:
    """So many samples of a split, drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(split), generator=generator)[:samples].numpy()
    return Split(split.inputs[chosen], split.labels[chosen])


def next_goal(before: float, done: _Done, options: PruneOptions) -> float | None:
    """The cost that the next round aims at; None when pruning is over.

    Args:
        before: cost of the unpruned model.
    """
    assert options.cost is not None
    now, final = done.cost.value, before * options.cost
    failed = [each.goal for each in done.rounds if not each.accepted]
    if now <= final or len(failed) >= _FAILURES:
        return None
    if failed:
        goal = math.sqrt(now * max(failed))
        return goal if goal < _NEAR * now else None
    scheduled = (before * options.cost ** (k / options.rounds) for k in range(1, options.rounds))
    return next((goal for goal in scheduled if goal < _NEAR * now), final)


def _require_faster(done: _Done, options: PruneOptions, target: str) -> None:
    if any(each.accepted for each in done.rounds) and done.cost.value < done.before.value:
        return
    best = max((each.accuracy for each in done.rounds), default=0.0)
    raise NotFasterError(
        f"a pruned model must be faster on the target it was pruned for; on {target!r} nothing"
        f" below {done.before.value:,.0f} {done.before.unit} kept its accuracy within"
        f" {options.tolerance_points} points (best round: {best:.2f} %)",
        fix="allow a higher `tolerance_points` or `cost`, or fine-tune for more epochs",
    )


def _widths(old: nn.Module, new: nn.Module) -> Sequence[tuple[str, int, int]]:
    """Output channels of every convolution and linear layer of the new model."""
    before = {n: m.weight.shape[0] for n, m in old.named_modules() if _has_channels(m)}
    return [
        (n, before.get(n, m.weight.shape[0]), m.weight.shape[0])
        for n, m in new.named_modules()
        if _has_channels(m)
    ]


def _has_channels(module: nn.Module) -> bool:
    return isinstance(module, (*Conv, nn.Linear))
