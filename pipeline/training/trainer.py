"""Short training: labels and a teacher's outputs, a cosine, the best epoch kept or the last.

Every epoch has a seed of its own, so a run that resumes from a checkpoint is the same run, bit
for bit. Checkpoints hold tensors and numbers only.
"""

from __future__ import annotations

import copy
import hashlib
import io
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgesmith.pipeline.cache import write_atomically
from edgesmith.pipeline.diskfaults import cache_errors
from edgesmith.pipeline.errors import CacheError
from edgesmith.pipeline.spec import canonical_json
from edgesmith.pipeline.stage import Progress, SilentProgress
from edgesmith.pipeline.training.augment import augmented
from edgesmith.pipeline.training.group import Group
from edgesmith.pipeline.training.loss import distilled_loss, seen_loss
from edgesmith.pipeline.training.options import Training

if TYPE_CHECKING:
    from edgesmith.pipeline.splits import Split

_MOMENTUM = 0.9
_CLIP = 1.0  # norm of the gradient
_EVALUATED_TOGETHER = 256
_COLLAPSED = 0.5  # share of the best accuracy below which an epoch ends the training


@dataclass(frozen=True)
class Tuned:
    """What training found.

    Args:
        before, accuracy: percent of the selection split, before and of the epoch that is kept.
        diverged: the loss became infinite or NaN, or accuracy fell below half of the best; an
            epoch before that was kept.
        improved: an epoch is kept, not what there was before.
    """

    before: float
    accuracy: float
    epochs: int
    diverged: bool = False
    improved: bool = False


class Judged(NamedTuple):
    """How good a model is, by percent of a split that it has right, and its loss there in nats.

    Where few samples are all right, accuracy cannot tell models apart, and the loss still can.
    """

    accuracy: float
    loss: float

    def above(self, other: Judged) -> bool:
        """Right more often; or equally often, with less loss."""
        return (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that are trained alike.

    Args:
        rate: times the options' learning rate.
        decays: whether weight decay applies.
    """

    parameters: Sequence[Tensor]
    rate: float = 1.0
    decays: bool = True


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Percent of samples whose largest output is their label; the model in eval mode."""
    found = _outputs(model, split).argmax(1)
    return 100.0 * float(np.mean(found.numpy() == split.labels))


@torch.no_grad()
def judged(model: nn.Module, split: Split) -> Judged:
    """Accuracy and loss of a classifier, in eval mode."""
    outputs = _outputs(model, split)
    right = float(np.mean(outputs.argmax(1).numpy() == split.labels))
    return Judged(100.0 * right, seen_loss(outputs, torch.from_numpy(split.labels)))


def _outputs(model: nn.Module, split: Split) -> Tensor:
    """[samples, outputs]; the model in eval mode."""
    training = model.training
    model.eval()
    parts = torch.from_numpy(split.inputs).split(_EVALUATED_TOGETHER)
    found = torch.cat([model(part).reshape(len(part), -1) for part in parts])
    model.train(training)
    return found


def start_digest(module: nn.Module, parts: object) -> str:
    """16 hexadecimal digits of the weights that a training starts from, and of what else it rests
    on.

    Args:
        parts: JSON-ready.
    """
    digest = hashlib.sha256(canonical_json(parts).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]


Losses = Callable[[Tensor, Tensor], Iterator[Tensor]]
"""Of inputs and labels: losses whose gradients add up to one step, one after the other."""


class Memory(Protocol):
    """What learns beside the student, and has to resume with it."""

    def state(self) -> dict[str, npt.NDArray[np.float64]]:
        """Everything it has learned."""

    def restore(self, state: dict[str, npt.NDArray[np.float64]]) -> None:
        """Go on from there."""


@dataclass
class _State:
    """What a checkpoint holds; `kept` is the weights of the epoch to end with."""

    epoch: int
    before: float
    kept_accuracy: float
    best_accuracy: float
    best_loss: float
    improved: bool
    since_best: int
    diverged: bool
    model: dict[str, Tensor]
    kept: dict[str, Tensor]
    optimizer: dict[str, Any]
    memory: dict[str, Tensor]


class Trainer:
    """Trains one student in place.

    Args:
        teacher: its outputs are distilled, in eval mode; None trains on labels alone.
        after_step: called after every optimizer step, and once before training.
        groups: what is trained, and how; all parameters that require gradients if not given.
        losses: of a step, each propagated before the next is asked for, so that memory is that
            of one; labels and the teacher's outputs if not given.
        judge: of the student on a split, which decides which epoch is kept.
        checkpoint: a file to resume from, written after every epoch; it is left in place.
        group: of processes that train the same student; none by default. All have the same
            arguments; the first one's judge decides, and it alone writes the checkpoint.
        memory: kept in the checkpoint.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        options: Training,
        *,
        seed: int,
        after_step: Callable[[], None] | None = None,
        groups: Sequence[ParameterGroup] | None = None,
        losses: Losses | None = None,
        judge: Callable[[Split], Judged] | None = None,
        checkpoint: Path | None = None,
        group: Group | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._memory = memory
        self._group = group or Group()
        self._student = student
        self._teacher = teacher if options.distillation > 0 else None
        self._options = options
        self._seed = seed
        self._after_step = after_step or (lambda: None)
        self._losses = losses or self._distilled
        self._judged = judge or partial(judged, student)
        self._checkpoint = checkpoint
        self.done = 0.0
        """Share of all steps that are over."""
        trained = [value for value in student.parameters() if value.requires_grad]
        self._groups = [ParameterGroup(trained)] if groups is None else list(groups)
        self._optimizer = _optimizer(self._groups, options)

    def run(
        self, train: Split, selection: Split, progress: Progress | None = None, label: str = ""
    ) -> Tuned:
        """Train; the student ends with the weights of the epoch that is kept, in eval mode.

        Raises:
            CacheError: the checkpoint cannot be read or written.
        """
        tell = (progress or SilentProgress()).report
        label = label or "training"
        # Convolutions of images are faster so; values stay where they are by name.
        self._student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._after_step()
        state = self._restored() or self._fresh(selection)
        options = self._options
        while state.epoch < options.epochs and not self._over(state):
            tell(label, state.epoch, options.epochs)
            finite = self._epoch(state.epoch, train)
            state.epoch += 1
            state.diverged = not finite
            if finite:
                self._judge(state, selection)
            self._save(state)
        tell(label, options.epochs, options.epochs)
        self._student.load_state_dict(state.kept)
        self._student.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._student.eval()
        accuracy = state.kept_accuracy
        return Tuned(state.before, accuracy, state.epoch, state.diverged, state.improved)

    def _over(self, state: _State) -> bool:
        """Whether it ends before its last epoch."""
        impatient = state.since_best >= self._options.patience
        return state.diverged or (impatient and not self._keeps_last)

    @property
    def _keeps_last(self) -> bool:
        return self._options.keep == "last"

    def _fresh(self, selection: Split) -> _State:
        before = Judged(*self._group.told(lambda: self._judged(selection)))
        weights = _copied(self._student)
        at = before.accuracy
        return _State(0, at, at, at, before.loss, False, 0, False, weights, weights, {}, {})

    def _judge(self, state: _State, selection: Split) -> None:
        found = Judged(*self._group.told(lambda: self._judged(selection)))
        state.diverged = found.accuracy < _COLLAPSED * state.best_accuracy
        # Loss falls a little for long: it decides what is kept, not whether to go on.
        state.since_best = 0 if found.accuracy > state.best_accuracy else state.since_best + 1
        better = found.above(Judged(state.best_accuracy, state.best_loss))
        if better:
            state.best_accuracy, state.best_loss = found
        if better or (self._keeps_last and not state.diverged):
            state.improved, state.kept_accuracy = True, found.accuracy
            state.kept = _copied(self._student)

    def _epoch(self, epoch: int, train: Split) -> bool:
        """One pass over the train split; whether the loss stayed finite."""
        inputs, labels = torch.from_numpy(train.inputs), torch.from_numpy(train.labels)
        options, steps = self._options, math.ceil(len(labels) / self._options.batch_size)
        self._student.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self._seed * 1_000_003 + epoch) % (1 << 63))
            for step, chosen in enumerate(torch.randperm(len(labels)).split(options.batch_size)):
                if len(chosen) < 2 * self._group.count:
                    continue  # batch norm needs two
                if self._group.count > 1:
                    # Parts of other sizes may have drawn other numbers in the last step.
                    torch.manual_seed((self._seed + (epoch * steps + step) * 1_000_003) % (1 << 63))
                self._set_rate((epoch * steps + step) / (options.epochs * steps))
                if not self._step(augmented(inputs[chosen], options), labels[chosen]):
                    return False
        return True

    def _set_rate(self, done: float) -> None:
        """The learning rates when this share of all steps is done."""
        self.done = done
        rate = self._options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        for group, made in zip(self._groups, self._optimizer.param_groups, strict=True):
            made["lr"] = rate * group.rate

    def _distilled(self, x: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """One loss: of the labels, and of the teacher's outputs if there is one."""
        options = self._options
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16"):
            taught = None
            if self._teacher is not None:
                with torch.no_grad():
                    taught = self._teacher(x).float()
            outputs = self._student(x).float()
        yield distilled_loss(outputs, taught, labels, options.distillation, options.temperature)

    def _step(self, x: Tensor, labels: Tensor) -> bool:
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        self._optimizer.zero_grad()
        together = len(x)
        x, labels = self._group.part(x), self._group.part(labels)
        for loss in self._losses(x, labels):
            if not self._group.agreed(bool(torch.isfinite(loss))):
                return False
            loss.backward()
        self._group.add((p for g in self._groups for p in g.parameters), len(x) / together)
        nn.utils.clip_grad_norm_([p for g in self._groups for p in g.parameters], _CLIP)
        self._optimizer.step()
        self._after_step()
        return True

    def _save(self, state: _State) -> None:
        if self._checkpoint is None or not self._group.first:
            return
        state.model = self._student.state_dict()
        state.optimizer = self._optimizer.state_dict()
        if self._memory is not None:
            held = self._memory.state()
            state.memory = {name: torch.from_numpy(value) for name, value in held.items()}
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
            if self._memory is not None:
                self._memory.restore({name: each.numpy() for name, each in state.memory.items()})
        except (OSError, RuntimeError, TypeError, ValueError, KeyError, EOFError) as error:
            raise _damaged(path, error) from error
        except pickle.UnpicklingError as error:
            raise _damaged(path, error) from error
        return state


def _optimizer(groups: Sequence[ParameterGroup], options: Training) -> torch.optim.Optimizer:
    values = [
        {
            "params": list(group.parameters),
            "weight_decay": options.weight_decay if group.decays else 0.0,
        }
        for group in groups
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(values, options.learning_rate, momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(values, options.learning_rate)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(dict(model.state_dict()))


def _damaged(path: Path, error: Exception) -> CacheError:
    return CacheError(
        f"the checkpoint {path} cannot be read: {type(error).__name__}",
        fix="delete it; training starts again",
    )
