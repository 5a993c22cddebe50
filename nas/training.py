"""Training of a super-network: all sub-networks at once, in formats drawn for each pass.

Every step (the sandwich rule): the largest sub-network learns from the labels and the trained
model; what it gives teaches the smallest and a few drawn ones, each in formats of its own draw.
Gradients of all passes make one step. Source: Yu et al., "BigNAS", ECCV 2020; formats drawn in
training: Bai et al., "BatchQuant", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgesmith.nas.divergence import alpha, kl
from edgesmith.nas.elastic import Architecture
from edgesmith.nas.joint import Joint
from edgesmith.nas.options import SuperTraining
from edgesmith.nas.rounding import Policy
from edgesmith.nas.space import Candidate
from edgesmith.nas.statistics import recalibrated
from edgesmith.nas.strategies.base import Draw, Learner, strategies
from edgesmith.pipeline.errors import DivergedTrainingError
from edgesmith.pipeline.splits import Split
from edgesmith.pipeline.stage import Progress
from edgesmith.pipeline.training.group import Group
from edgesmith.pipeline.training.loss import distilled_loss
from edgesmith.pipeline.training.trainer import Judged, Trainer, Tuned, judged
from edgesmith.prune.driver import drawn

_DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"kl": kl, "alpha": alpha}
_LOOKED_AT = 16  # samples of a batch that a strategy may judge sub-networks by
_EXAMPLES = 4  # drawn sub-networks that an epoch is judged by
_STATISTICS = 512  # samples that batch norms see before a sub-network is judged


@dataclass(frozen=True)
class SuperTrained:
    """What training came to.

    Args:
        favourites: of a strategy that learns, by what for.
    """

    tuned: Tuned
    favourites: dict[str, Candidate]


class SuperTrainer:
    """Trains the shared weights of a super-network in place.

    Args:
        teacher: the trained model.
        checkpoint: a file to resume from, written after every epoch.
        group: of processes that train the same super-network.
    """

    def __init__(
        self,
        joint: Joint,
        teacher: nn.Module,
        options: SuperTraining,
        *,
        seed: int,
        checkpoint: Path | None = None,
        group: Group | None = None,
    ) -> None:
        self._group = group or Group()
        self._seed = seed
        self._joint = joint
        self._teacher = teacher.eval().requires_grad_(False)
        self._options = options
        self._strategy = strategies().get(options.strategy)()
        self._learner = self._strategy.learner(joint)
        self._divergence = _DIVERGENCES[options.divergence]
        self._train: Split | None = None
        generator, elastic = np.random.default_rng(seed), joint.elastic
        between = (elastic.drawn(generator) for _ in range(_EXAMPLES))
        self._examples = (elastic.whole(), elastic.smallest(), *between)
        self._trainer = Trainer(
            joint.network,
            None,
            options,
            seed=seed,
            losses=self._losses,
            judge=self._judged,
            checkpoint=checkpoint,
            group=self._group,
            memory=self._learner,
        )

    def run(self, train: Split, selection: Split, progress: Progress | None = None) -> Tuned:
        """Train; the network ends with the weights of its best epoch.

        Raises:
            DivergedTrainingError: the first epoch already ended in a loss that is no number.
            CacheError: the checkpoint cannot be read or written.
        """
        self._train = train
        tuned = self._trainer.run(train, selection, progress, "training the super-network")
        if tuned.diverged and tuned.epochs <= 1:
            raise DivergedTrainingError(
                "the first epoch of the super-network diverged: its loss is no number, or it knows"
                " less than half of what it knew before",
                fix="lower `training.learning_rate`, or offer wider formats",
            )
        return tuned

    def favourites(self) -> dict[str, Candidate]:
        """What a strategy that learns thinks most of, by what for; none of one that does not."""
        return {} if self._learner is None else self._learner.favourites()

    def _judged(self, selection: Split) -> Judged:
        """Mean of the largest sub-network, the smallest, and some between."""
        assert self._train is not None
        seen = torch.from_numpy(drawn(self._train, _STATISTICS, self._seed).inputs)
        batch = self._options.batch_size
        found = [
            judged(recalibrated(self._joint.network.extract(each), seen, batch), selection)
            for each in self._examples
        ]
        return Judged(*(sum(each) / len(found) for each in zip(*found, strict=True)))

    def _losses(self, x: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """The sandwich rule's: of the largest, the drawn ones and the smallest."""
        options = self._options
        generator = np.random.default_rng(int(torch.randint(1 << 62, ())))
        with torch.no_grad():
            known = self._teacher(x) if options.distillation > 0 else None
        whole = self._run(x, self._joint.elastic.whole(), None)
        taught = whole.detach()
        yield distilled_loss(whole, known, labels, options.distillation, options.temperature)
        del whole
        draw = self._draw(x, labels, generator)
        if self._learner is None:
            architectures = [self._strategy.architecture(draw) for _ in range(options.drawn)]
        else:
            architectures = []
            yield from self._learned(x, taught, generator, self._learner)
        for architecture in (*architectures, self._strategy.smallest(draw)):
            policy = self._policy(generator) if generator.random() < options.rounded else None
            yield self._divergence(self._run(x, architecture, policy), taught)

    def _learned(
        self, x: Tensor, taught: Tensor, generator: np.random.Generator, learner: Learner
    ) -> Iterator[Tensor]:
        """Of sub-networks and formats that a strategy draws, and is told of."""
        genes = self._joint.genes
        for _ in range(self._options.drawn):
            candidate = learner.candidate(generator)
            choices = genes.space.choices(candidate)
            rounds = generator.random() < self._options.rounded
            policy = genes.policy(choices) if rounds else None
            loss = self._divergence(self._run(x, genes.architecture(choices), policy), taught)
            yield loss
            # A pass in floats says nothing of the formats that were drawn for it.
            if rounds:
                learner.learn(candidate, self._group.mean(float(loss.detach())), self._trainer.done)

    def _run(self, x: Tensor, architecture: Architecture, policy: Policy | None) -> Tensor:
        bfloat16 = self._options.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out: Tensor = self._joint.network(x, architecture, policy)
        return out.float()

    def _draw(self, x: Tensor, labels: Tensor, generator: np.random.Generator) -> Draw:
        """What the strategy may go by in this step."""

        @torch.no_grad()
        def loss(architecture: Architecture) -> float:
            out = self._run(x[:_LOOKED_AT], architecture, None)
            found = distilled_loss(out, None, labels[:_LOOKED_AT], 0.0, 1.0)
            return self._group.mean(float(found))  # so that all processes draw the same

        joint, done = self._joint, self._trainer.done
        return Draw(joint.elastic, generator, done, joint.counts.macs, loss)

    def _policy(self, generator: np.random.Generator) -> Policy:
        genes = self._joint.genes
        return genes.policy(genes.space.choices(genes.space.drawn(generator)))
