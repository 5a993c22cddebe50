"""Training by several processes: the same steps in all of them, and an end when one dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

from edgesmith.nas.joint import Joint
from edgesmith.nas.options import SuperTraining
from edgesmith.nas.together import train
from edgesmith.nas.training import SuperTrainer
from edgesmith.nas.workplace import Workplace
from edgesmith.pipeline.errors import LostProcessError
from edgesmith.pipeline.splits import write_split
from edgesmith.pipeline.stage import Progress, SilentProgress
from edgesmith.pipeline.training.group import Gloo, Group
from edgesmith.pipeline.training.options import Training
from edgesmith.pipeline.training.trainer import Trainer
from tests.nas.joint.test_training import Stopped, StopsIn
from tests.nas.joint.worlds import classifier
from tests.prune.nets import blobs

OPTIONS = SuperTraining(epochs=2, batch_size=32, learning_rate=3e-3, drawn=1)
SPAWN = multiprocessing.get_context("spawn")
PLAIN = Training(epochs=2, batch_size=25, distillation=0.0, flip=True, shift=1)


def network() -> nn.Module:
    """Without batch norm, so that a batch in parts is the batch."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(8, 4))


def trained(group: Group, path: Path | None = None) -> dict[str, torch.Tensor]:
    model = network()
    # Batches of 25 fall into parts of 13 and 12.
    Trainer(model, None, PLAIN, seed=1, group=group).run(blobs(100, 0), blobs(32, 1))
    if path is not None:
        torch.save(model.state_dict(), path)
    return model.state_dict()


def other(folder: Path) -> None:
    trained(Gloo(1, 2, folder / "meeting"), folder / "weights.pt")


class Alike(Group):
    """One process that draws as one of several does."""

    count = 2


def test_two_processes_make_the_steps_of_one(tmp_path: Path) -> None:
    alone = trained(Alike())
    process = SPAWN.Process(target=other, args=(tmp_path,), daemon=True)
    process.start()
    with closing(Gloo(0, 2, tmp_path / "meeting")) as group:
        first = trained(group)
    process.join()
    second = torch.load(tmp_path / "weights.pt", weights_only=True)
    for name, value in first.items():
        assert torch.equal(value, second[name])
        torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=1e-5)


@dataclass(frozen=True)
class Named:
    """What of a spec training looks at."""

    seed: int = 0


@dataclass(frozen=True)
class Place:
    """Stands in for a workplace: its super-network is that of a small classifier.

    Args:
        dies: whether processes that help are killed, when they begin or in the middle.
    """

    folder: Path
    dies: str = ""
    spec: Named = Named()

    @property
    def data(self) -> Path:
        return self.folder

    def trained_folder(self, _: Joint) -> Path:
        return self.folder

    def joint(self) -> Joint:
        helping = multiprocessing.parent_process() is not None
        if self.dies == "at once" and helping:
            os.kill(os.getpid(), signal.SIGKILL)
        _, found = classifier()
        if self.dies == "later" and helping:
            found.network.register_forward_hook(lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        return found


def trained_together(
    place: Place, processes: int, progress: Progress | None = None
) -> tuple[Joint, float]:
    place.folder.mkdir(exist_ok=True)
    write_split(place.folder, "train", blobs(192, 0))
    write_split(place.folder, "selection", blobs(96, 2))
    found = Place(place.folder).joint()
    options = replace(OPTIONS, processes=processes)
    shown = progress or SilentProgress()
    tuned = train(cast("Workplace", place), found, options, shown).tuned
    return found, tuned.accuracy - tuned.before


def test_a_super_network_is_trained_by_two(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    first, gained = trained_together(Place(tmp_path / "once"), 2)
    assert gained >= 5
    assert torch.get_num_threads() == threads
    assert not torch.distributed.is_initialized()
    again, _ = trained_together(Place(tmp_path / "again"), 2)
    expected = again.network.state_dict()
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, expected[name]), "the same bytes every time"


def test_training_by_two_that_was_killed_goes_on_exactly(tmp_path: Path) -> None:
    whole, _ = trained_together(Place(tmp_path / "whole"), 2)
    with pytest.raises(Stopped):
        trained_together(Place(tmp_path / "killed"), 2, StopsIn(1))
    again, _ = trained_together(Place(tmp_path / "killed"), 2)
    expected = whole.network.state_dict()
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, expected[name])


def super_trained(group: Group, begin: dict[str, torch.Tensor]) -> Joint:
    """A super-network whose batch norms see other samples in every process."""
    model, found = classifier()
    found.network.load_state_dict(begin)  # processes with other threads fit it otherwise
    options = replace(OPTIONS, epochs=1)
    SuperTrainer(found, model, options, seed=3, group=group).run(blobs(192, 0), blobs(96, 2))
    return found


def normalizing(folder: Path) -> None:
    begin = torch.load(folder / "begin.pt", weights_only=True)
    found = super_trained(Gloo(1, 2, folder / "meeting"), begin)
    torch.save(found.network.state_dict(), folder / "weights.pt")


def test_a_super_network_with_batch_norms_ends_the_same_in_both_processes(tmp_path: Path) -> None:
    """Weights are summed; its own statistics stay the trained model's, since every sub-network
    that is judged measures its own.
    """
    before = classifier()[1].network.state_dict()
    torch.save(before, tmp_path / "begin.pt")
    process = SPAWN.Process(target=normalizing, args=(tmp_path,), daemon=True)
    process.start()
    with closing(Gloo(0, 2, tmp_path / "meeting")) as group:
        first = super_trained(group, before).network.state_dict()
    process.join()
    second = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert first.keys() == second.keys()
    assert {"model.bn1.weight", "model.bn1.bias", "model.bn1.running_var"} <= first.keys()
    for name, value in first.items():
        kept = name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
        assert torch.equal(value, second[name]), name
        assert torch.equal(value, before[name]) == kept, name


@pytest.mark.parametrize("dies", ["at once", "later"])
def test_a_process_that_dies_is_named(dies: str, tmp_path: Path) -> None:
    with pytest.raises(LostProcessError, match=r"process 2 of the 2 .* exit code -9") as caught:
        trained_together(Place(tmp_path, dies), 2)
    assert "goes on at its last epoch" in caught.value.fix
    assert not torch.distributed.is_initialized(), "what comes next would wait for the dead"
