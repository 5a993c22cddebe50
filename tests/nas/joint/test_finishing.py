"""What finalists learn by themselves, and what is said where they cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgesmith.nas.evaluation import Evaluator, Evidence
from edgesmith.nas.finishing import Finishing
from edgesmith.pipeline.errors import DivergedTrainingError
from edgesmith.pipeline.stage import SilentProgress
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.training.options import Training
from edgesmith.quantize.options import PTQOptions
from edgesmith.quantize.qat.train import Learning
from tests.nas.joint.worlds import classifier
from tests.prune.nets import blobs

TRAIN, CALIBRATION, SELECTION = blobs(192, 0), blobs(64, 1), blobs(96, 2)
TUNED = Training(epochs=2, batch_size=32, learning_rate=1e-3)


def finishing(finetune: Training, trainings: Path) -> Finishing:
    _, found = classifier()
    evidence = Evidence(TRAIN.inputs, CALIBRATION.inputs, SELECTION)
    scoring = Evaluator(found, evidence, PTQOptions(), get_target("cpu-litert"), None, seed=7)
    learning = Learning(TRAIN, SELECTION, found.model)
    return Finishing(scoring, finetune, None, learning, trainings, 7, SilentProgress())


def test_fine_tuning_is_done_once_and_given_again_from_its_file(tmp_path: Path) -> None:
    made = finishing(TUNED, tmp_path)
    choices = made.evaluator._joint.genes.uniform("int8", "int8")
    first = made.module(choices).state_dict()
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    untrained = made.evaluator.module(choices).state_dict()
    assert any(not torch.equal(value, untrained[name]) for name, value in first.items())
    again = finishing(TUNED, tmp_path).module(choices).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("keep", ["best", "last"])
def test_fine_tuning_that_diverges_at_once_is_said(keep: str, tmp_path: Path) -> None:
    hot = replace(TUNED, learning_rate=1e20, keep=keep)  # type: ignore[arg-type]
    choices = finishing(hot, tmp_path).evaluator._joint.genes.uniform("int8", "int8")
    for _ in range(2):  # from its file, too
        with pytest.raises(DivergedTrainingError, match="diverged in epoch 1") as caught:
            finishing(hot, tmp_path)(choices)
        assert "finetune.learning_rate" in caught.value.fix
