"""Short training after pruning: labels and the unpruned model's outputs, cosine, early stop.

Every epoch has a seed of its own, so a run that resumes from a checkpoint is the same run, bit
for bit. Checkpoints hold tensors and numbers only.
"""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.stage import Progress, SilentProgress
from edgesmith.prune.loss import distilled_loss
from edgesmith.prune.masks import Masks, apply_masks
from edgesmith.prune.options import FineTune

if TYPE_CHECKING:
    from edgesmith.pipeline.splits import Split

_MOMENTUM = 0.9
_CLIP = 1.0  # norm of the gradient
_EVALUATED_TOGETHER = 256


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning found.

    Args:
        before, accuracy: percent of the selection split, before and of the best epoch.
        diverged: the loss became infinite or NaN; the best epoch before that was kept.
    """

    before: float
    accuracy: float
    epochs: int
    diverged: bool = False


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Percent of samples whose largest output is their label; the model in eval mode."""
    training = model.training
    model.eval()
    parts = torch.from_numpy(split.inputs).split(_EVALUATED_TOGETHER)
    found = torch.cat([model(part).reshape(len(part), -1).argmax(1) for part in parts])
    model.train(training)
    return 100.0 * float(np.mean(found.numpy() == split.labels))


@dataclass
class _State:
    """What a checkpoint holds; `best` is the weights of the best epoch."""

    epoch: int
    before: float
    best_accuracy: float
    since_best: int
    diverged: bool
    model: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[str, Any]


class FineTuner:
    """Trains one student in place.

    Args:
        teacher: the unpruned model, in eval mode.
        masks: weights that stay zero.
        checkpoint: a file to resume from, written after every epoch; it is left in place.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        options: FineTune,
        *,
        seed: int,
        masks: Masks | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self._student = student
        self._teacher = teacher
        self._options = options
        self._seed = seed
        self._masks = masks or {}
        self._checkpoint = checkpoint
        self._optimizer = _optimizer(student, options)

    def run(
        self, train: Split, selection: Split, progress: Progress | None = None, label: str = ""
    ) -> Tuned:
        """Train; the student ends with the weights of its best epoch, in eval mode.

        Raises:
            CacheError: the checkpoint cannot be read or written.
        """
        tell = (progress or SilentProgress()).report
        apply_masks(self._student, self._masks)
        state = self._restored() or self._fresh(selection)
        options = self._options
        while state.epoch < options.epochs and state.since_best < options.patience:
            if state.diverged:
                break
            tell(label or "fine-tuning", state.epoch, options.epochs)
            finite = self._epoch(state.epoch, train)
            state.epoch += 1
            state.diverged = not finite
            if finite:
                self._judge(state, selection)
            self._save(state)
        tell(label or "fine-tuning", options.epochs, options.epochs)
        self._student.load_state_dict(state.best)
        self._student.eval()
        return Tuned(state.before, state.best_accuracy, state.epoch, state.diverged)

    def _fresh(self, selection: Split) -> _State:
        before = accuracy(self._student, selection)
        weights = _copied(self._student)
        return _State(0, before, before, 0, False, weights, weights, {})

    def _judge(self, state: _State, selection: Split) -> None:
        found = accuracy(self._student, selection)
        state.since_best += 1
        if found > state.best_accuracy:
            state.best_accuracy, state.since_best = found, 0
            state.best = _copied(self._student)

    def _epoch(self, epoch: int, train: Split) -> bool:
        """One pass over the train split; whether the loss stayed finite."""
        inputs, labels = torch.from_numpy(train.inputs), torch.from_numpy(train.labels)
        options, steps = self._options, math.ceil(len(labels) / self._options.batch_size)
        self._student.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self._seed * 1_000_003 + epoch) % (1 << 63))
            for step, chosen in enumerate(torch.randperm(len(labels)).split(options.batch_size)):
                if len(chosen) < 2:
                    continue  # batch norm needs two
                done = (epoch * steps + step) / (options.epochs * steps)
                for group in self._optimizer.param_groups:
                    group["lr"] = options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
                if not self._step(augmented(inputs[chosen], options), labels[chosen]):
                    return False
        return True

    def _step(self, x: Tensor, labels: Tensor) -> bool:
        options = self._options
        with torch.no_grad():
            taught = self._teacher(x) if options.distillation > 0 else x
        outputs = self._student(x)
        weight, temperature = options.distillation, options.temperature
        loss = distilled_loss(outputs, taught, labels, weight, temperature)
        if not torch.isfinite(loss):
            return False
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._student.parameters(), _CLIP)
        self._optimizer.step()
        apply_masks(self._student, self._masks)
        return True

    def _save(self, state: _State) -> None:
        if self._checkpoint is None:
            return
        state.model = self._student.state_dict()
        state.optimizer = self._optimizer.state_dict()
        buffer = io.BytesIO()
        torch.save(vars(state), buffer)
        with cache_errors(self._checkpoint.parent):
            self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._checkpoint, buffer.getvalue())

    def _restored(self) -> _State | None:
        path = self._checkpoint
        if path is None or not path.exists():
            return None
        try:
            state = _State(**torch.load(path, map_location="cpu", weights_only=True))
            self._student.load_state_dict(state.model)
            self._optimizer.load_state_dict(state.optimizer)
        except (OSError, RuntimeError, TypeError, ValueError, KeyError, EOFError) as error:
            raise _damaged(path, error) from error
        except pickle.UnpicklingError as error:
            raise _damaged(path, error) from error
        return state


def augmented(x: Tensor, options: FineTune) -> Tensor:
    """Images [N, C, H, W], some mirrored, all shifted with zeros behind them; anything else as
    it is.
    """
    if x.ndim != 4:
        return x
    if options.flip:
        mirrored = torch.rand(len(x)) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    reach = options.shift
    if not reach:
        return x
    padded = nn.functional.pad(x, (reach,) * 4)
    moves = torch.randint(0, 2 * reach + 1, (len(x), 2)).tolist()
    height, width = x.shape[-2:]
    parts = [p[:, r : r + height, c : c + width] for p, (r, c) in zip(padded, moves, strict=True)]
    return torch.stack(parts)


def trainable(model: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters that are to be trained."""
    return (value for value in model.parameters() if value.requires_grad)


def _optimizer(student: nn.Module, options: FineTune) -> torch.optim.Optimizer:
    values = list(trainable(student))
    if options.optimizer == "sgd":
        return torch.optim.SGD(
            values,
            options.learning_rate,
            momentum=_MOMENTUM,
            nesterov=True,
            weight_decay=options.weight_decay,
        )
    return torch.optim.AdamW(values, options.learning_rate, weight_decay=options.weight_decay)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(dict(model.state_dict()))


def _damaged(path: Path, error: Exception) -> CacheError:
    return CacheError(
        f"the checkpoint {path} cannot be read: {type(error).__name__}",
        fix="delete it; the round starts again",
    )
