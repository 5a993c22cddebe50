"""Quantization-aware training: from a quantized model to a better one of the same formats.

    post-training quantization -> TrainedNetwork -> epochs, each judged by its integers
      -> the best epoch's integers (`Searched`) -> fake-quantized module built from the integers

What post-training quantization found is epoch 0, so the best epoch is never worse than it on the
selection split. Who keeps the last epoch does not trust that split to tell epochs apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn

from edgesmith.pipeline.errors import DivergedTrainingError, QuantizationError
from edgesmith.pipeline.jsonvalue import to_data
from edgesmith.pipeline.training.trainer import (
    ParameterGroup,
    Trainer,
    Tuned,
    accuracy,
    start_digest,
)
from edgesmith.quantize.ptq import QuantizedModel, quantize
from edgesmith.quantize.qat.masks import check_masked_formats, folded_masks
from edgesmith.quantize.qat.network import TrainedNetwork
from edgesmith.quantize.qat.options import QAT
from edgesmith.quantize.qat.values import QATResult

if TYPE_CHECKING:
    from edgesmith.pipeline.splits import Split
    from edgesmith.pipeline.stage import Progress
    from edgesmith.prune.masks import Masks
    from edgesmith.quantize.options import PTQOptions
    from edgesmith.targets.base import TargetDescription

LABEL = "quantization-aware training"


@dataclass(frozen=True)
class Learning:
    """What training learns on, and what decides which epoch is kept.

    Args:
        teacher: in eval mode, its outputs are distilled; None is the float model that is quantized.
    """

    train: Split
    selection: Split
    teacher: nn.Module | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """A quantized model, and how it came to be.

    Args:
        checkpoint: the file with the state of its training; None where none was kept.
    """

    quantized: QuantizedModel
    result: QATResult
    checkpoint: Path | None = None


def quantize_and_train(
    model: nn.Module,
    calibration: npt.NDArray[np.float32],
    learning: Learning,
    options: PTQOptions,
    *,
    seed: int,
    masks: Masks | None = None,
    progress: Progress | None = None,
    targets: Sequence[TargetDescription] = (),
    checkpoints: Path | None = None,
) -> Trained:
    """Post-training quantization, then `options.qat`.

    Args:
        masks: parameter of the model -> True where a weight stays; the others stay zero codes.
        checkpoints: see `train_quantized`.

    Raises:
        QuantizationError: `options.qat` is not set; and what `quantize` raises.
        DivergedTrainingError: see `train_quantized`.
    """
    if options.qat is None:
        raise QuantizationError("`qat` is not set", fix="set it, or call `quantize`")
    start = quantize(model, calibration, options, seed=seed, progress=progress, targets=targets)
    return train_quantized(
        start,
        learning,
        options.qat,
        seed=seed,
        masks=folded_masks(model, masks or {}, start.sample_shape),
        progress=progress,
        checkpoints=checkpoints,
    )


def train_quantized(
    start: QuantizedModel,
    learning: Learning,
    options: QAT,
    *,
    seed: int,
    masks: Masks | None = None,
    progress: Progress | None = None,
    checkpoints: Path | None = None,
) -> Trained:
    """Train a quantized model's weights, biases and scales.

    Args:
        start: it is not changed.
        masks: layer -> True where a weight is trained (`folded_masks`).
        checkpoints: a folder with a file for every start and what it is trained with, written
            after every epoch: the same training goes on from there, and is not done twice.
            Trainings on other data or with another teacher need another folder.

    Raises:
        QuantizationError: a masked layer has a format without zero.
        DivergedTrainingError: training diverged, and the start is no better than guessing.
        CacheError: the checkpoint cannot be read or written.
    """
    check_masked_formats(masks or {}, start.placement)
    before = accuracy(start.module, learning.selection)
    network = TrainedNetwork(start, options, masks)
    groups = [ParameterGroup(list(network.weights))]
    scales = list(network.scales)
    if scales:
        groups.append(ParameterGroup(scales, options.scale_rate, decays=False))
    teacher = learning.teacher or start.floating
    checkpoint = None
    if checkpoints is not None:
        found = [
            [to_data(each.header), each.scale.tolist(), each.zero_point.tolist()]
            for each in network.integers().tensors
        ]
        parts = [to_data(options), seed, learning.teacher is None, found]
        checkpoint = checkpoints / f"{start_digest(network, parts)}.pt"
    trainer = Trainer(network, teacher, options, seed=seed, groups=groups, checkpoint=checkpoint)
    tuned = trainer.run(learning.train, learning.selection, progress, LABEL)
    improved = tuned.improved and (options.keep == "last" or tuned.accuracy >= before)
    result = QATResult(
        floating=accuracy(start.floating, learning.selection),
        before=before,
        after=tuned.accuracy if improved else before,
        epochs=tuned.epochs,
        improved=improved,
        diverged=tuned.diverged,
        samples=len(learning.selection),
    )
    _check_usable(result, tuned, learning.selection)
    if not improved:
        return Trained(start, result, checkpoint)
    quantized = replace(start, module=network.frozen(), integers=network.integers())
    return Trained(quantized, result, checkpoint)


def _check_usable(result: QATResult, tuned: Tuned, selection: Split) -> None:
    guessed = 100.0 * float(np.bincount(selection.labels).max()) / len(selection)
    if tuned.diverged and result.after <= guessed:
        raise DivergedTrainingError(
            f"quantization-aware training diverged in epoch {tuned.epochs}, and the best integers"
            f" before that have {result.after:.2f} % of the selection split right; the most"
            f" frequent class alone is {guessed:.2f} %",
            fix="lower `qat.learning_rate` or `qat.scale_rate`, or give the layers more bits",
        )
