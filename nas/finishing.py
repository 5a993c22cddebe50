"""What finalists go through that no other candidate does: training of their own.

    super-network's weights -> fine-tuning in float, with batch norms -> post-training quantization
      -> quantization-aware training

Either training is kept in a file, and given again from there: to a search that goes on, to whoever
builds the candidate, and to the stage `quantize`, which trains the same start in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from edgesmith.nas.evaluation import Evaluator
from edgesmith.nas.space import Choice
from edgesmith.pipeline.errors import DivergedTrainingError
from edgesmith.pipeline.jsonvalue import to_data
from edgesmith.pipeline.stage import Progress
from edgesmith.pipeline.training.options import Training
from edgesmith.pipeline.training.trainer import Trainer, start_digest
from edgesmith.quantize.ptq import QuantizedModel, quantize
from edgesmith.quantize.qat.options import QAT
from edgesmith.quantize.qat.train import Learning, quantize_and_train

LABEL = "fine-tuning a finalist"


@dataclass(frozen=True, eq=False)
class Finishing:
    """Trains candidates, and scores them as an `Evaluator` does.

    Args:
        evaluator: cuts candidates out, and scores them.
        finetune: in float; None leaves the super-network's weights.
        qat: None leaves what post-training quantization finds.
        learning: what both learn on, and from whom.
        trainings: folder of checkpoints, of one teacher and its data.
        seed: of fine-tuning.
    """

    evaluator: Evaluator
    finetune: Training | None
    qat: QAT | None
    learning: Learning
    trainings: Path
    seed: int
    progress: Progress

    @property
    def kind(self) -> str:
        """What is done, for the provenance of a trial."""
        done = {"fine-tuned": self.finetune, "quantization-aware": self.qat}
        return ", ".join(name for name, options in done.items() if options is not None)

    def __call__(self, choices: Mapping[str, Choice]) -> dict[str, float]:
        """The metrics of an `Evaluator`, after training.

        Raises:
            EdgesmithError: as `Evaluator` does, or training diverged.
        """
        return self.evaluator.metrics(choices, self.quantized(choices))

    def module(self, choices: Mapping[str, Choice]) -> nn.Module:
        """The sub-network in float; eval mode.

        Raises:
            DivergedTrainingError: fine-tuning diverged before it had brought anything.
            CacheError: a checkpoint cannot be read or written.
        """
        made = self.evaluator.module(choices)
        if self.finetune is not None:
            name = start_digest(made, [to_data(self.finetune), self.seed])
            checkpoint = self.trainings / f"{name}.pt"
            teacher, options = self.learning.teacher, self.finetune
            trainer = Trainer(made, teacher, options, seed=self.seed, checkpoint=checkpoint)
            tuned = trainer.run(self.learning.train, self.learning.selection, self.progress, LABEL)
            if tuned.diverged and not tuned.improved:
                raise DivergedTrainingError(
                    f"fine-tuning diverged in epoch {tuned.epochs}, and no epoch before that was"
                    " better than the weights of the super-network",
                    fix="lower `finetune.learning_rate`",
                )
        return made

    def quantized(self, choices: Mapping[str, Choice]) -> QuantizedModel:
        """The candidate as it ships.

        Raises:
            EdgesmithError: it cannot be quantized, or training diverged.
        """
        options, seed = self.evaluator.quantization(choices), self.evaluator.seed
        module, calibration = self.module(choices), self.evaluator.evidence.calibration
        if self.qat is None:
            return quantize(module, calibration, options, seed=seed)
        return quantize_and_train(
            module,
            calibration,
            self.learning,
            replace(options, qat=self.qat),
            seed=seed,
            progress=self.progress,
            checkpoints=self.trainings,
        ).quantized
