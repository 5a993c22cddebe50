"""Training of the super-network by several processes of this machine.

This process is the first of them; the others are started here, make the same super-network from
the same files, and end with it. A process that dies ends the training, which goes on at the last
epoch when it is run again.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from edgesmith.nas.joint import Joint
from edgesmith.nas.options import SuperTraining
from edgesmith.nas.training import SuperTrained, SuperTrainer
from edgesmith.nas.workplace import Workplace
from edgesmith.pipeline.errors import LostProcessError
from edgesmith.pipeline.splits import read_split
from edgesmith.pipeline.stage import Progress, stage_seed
from edgesmith.pipeline.training.group import Gloo, Group

CHECKPOINT = "training.pt"
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
_MEETING = "meeting"
_END_S = 10.0
_POLL_S = 0.05


def train(
    workplace: Workplace, joint: Joint, options: SuperTraining, progress: Progress
) -> SuperTrained:
    """Train the super-network's weights in place, in as many processes as the options say.

    Raises:
        DivergedTrainingError: see `SuperTrainer.run`.
        LostProcessError: one of the processes died.
        CacheError: the checkpoint cannot be read or written.
    """
    if options.processes == 1:
        return _trained(workplace, joint, options, Group(), progress)
    threads = torch.get_num_threads()
    try:
        with _helped(workplace, options) as group:
            return _trained(workplace, joint, options, group, progress)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _helped(workplace: Workplace, options: SuperTraining) -> Iterator[Group]:
    """This process as the first of a group whose others are under way."""
    count = options.processes
    share = max(1, (os.cpu_count() or 1) // count)
    with tempfile.TemporaryDirectory(prefix="edgesmith-training-") as folder:
        others = [
            _SPAWN.Process(
                target=_help, args=(workplace, options, rank, Path(folder), share), daemon=True
            )
            for rank in range(1, count)
        ]
        for each in others:
            each.start()
        try:
            _await_ready(others, Path(folder))
            torch.set_num_threads(share)
            with closing(Gloo(0, count, Path(folder) / _MEETING)) as group:
                yield group
            for each in others:
                each.join(_END_S)
        except RuntimeError as error:
            # gloo says that a connection closed; whose it was, the others' exit codes say.
            for each in others:
                each.join(_END_S)
            _require_all(others, error)
            raise
        finally:
            for each in others:
                each.kill()


def _await_ready(others: Sequence[BaseProcess], folder: Path) -> None:
    """Wait until all are about to join: joining itself would wait for the dead."""
    while not all((folder / str(rank)).exists() for rank in range(1, len(others) + 1)):
        _require_all(others)
        time.sleep(_POLL_S)


def _require_all(others: Sequence[BaseProcess], cause: Exception | None = None) -> None:
    """Refuse to go on without one of the others.

    Raises:
        LostProcessError: one of them has failed.
    """
    for rank, each in enumerate(others, start=1):
        if each.exitcode not in (None, 0):
            raise LostProcessError(
                f"process {rank + 1} of the {len(others) + 1} that train the super-network ended"
                f" with exit code {each.exitcode}",
                fix="run again, and training goes on at its last epoch; fewer"
                " `training.processes` need less memory",
            ) from cause


def _help(
    workplace: Workplace, options: SuperTraining, rank: int, folder: Path, threads: int
) -> None:
    """What every process but the first does."""
    torch.set_num_threads(threads)
    joint = workplace.joint()
    (folder / str(rank)).touch()
    group = Gloo(rank, options.processes, folder / _MEETING)
    _trained(workplace, joint, options, group, None)
    group.close()


def _trained(
    workplace: Workplace,
    joint: Joint,
    options: SuperTraining,
    group: Group,
    progress: Progress | None,
) -> SuperTrained:
    train, selection = (read_split(workplace.data, name) for name in ("train", "selection"))
    trainer = SuperTrainer(
        joint,
        joint.model,
        options,
        seed=stage_seed(workplace.spec.seed, "search"),
        checkpoint=workplace.trained_folder(joint) / CHECKPOINT,
        group=group,
    )
    tuned = trainer.run(train, selection, progress)
    return SuperTrained(tuned, trainer.favourites())
