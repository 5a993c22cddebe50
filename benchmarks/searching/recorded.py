"""A table of real evaluations: every candidate of a coarse space over one trained super-network.

    python benchmarks/search.py record FOLDER

The space is IC's (MLPerf Tiny's ResNet-8 on CIFAR-10 as JPEG), its choices thinned out until all of
its 6,804 candidates can be evaluated: three widths of six groups, one block that may go, INT8 or
INT4 for three groups of layers. Each candidate is what a search would have made of it: cut out,
batch norms measured anew, quantized, scored by its integers on 1,000 images of the selection
split, and costed by the cost model of a Cortex-M4. So searches can be compared over many seeds in
minutes, on figures that were all measured, and the best front is known, not estimated.

Recording takes hours and goes on where it was stopped; FOLDER keeps what is on the way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from compression.trained import SEED, SHAPE, Trained, trained
from rich.console import Console
from rows import header

from edgesmith.nas.archive import Archive
from edgesmith.nas.driver import search
from edgesmith.nas.evaluation import Evaluator, Evidence
from edgesmith.nas.executors.base import Evaluation
from edgesmith.nas.executors.pool import Pool
from edgesmith.nas.genes import WEIGHTS, offered
from edgesmith.nas.joint import Joint, joint_of
from edgesmith.nas.options import SuperTraining
from edgesmith.nas.samplers.base import Asking, Log, Sampler
from edgesmith.nas.space import Candidate, Choice, Gene, Moot, Space
from edgesmith.nas.training import SuperTrainer
from edgesmith.nas.values import Metrics, Objective, Proposal, Task
from edgesmith.nas.workplace import unit_scores
from edgesmith.pipeline.observer import ConsoleObserver
from edgesmith.pipeline.own_source import own_source_digest
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.versions import installed
from edgesmith.prune.driver import drawn
from edgesmith.quantize.options import PTQOptions
from edgesmith.targets.cost import cost_model

TABLE = Path(__file__).parents[1] / "tables" / "ic-candidates.npz"
TARGET = "cortex-m4"
FORMATS = ("int8", "int4")
TRAINING = SuperTraining(
    epochs=6, strategy="complexity-aware", flip=True, shift=2, precision="bfloat16"
)
SAMPLES = {"statistics": 256, "calibration": 128, "selection": 1000}
IMPORTANCE = "group-fisher"
WORKERS = 2
BATCH = 81

BLOCK = "features.1"
LAYERS = {  # whose formats are one choice
    "weights:block 1": ("features.1.first.0.conv", "features.1.second.0.conv"),
    "weights:stem and stage 2": (
        "features.0.0.conv",
        "features.2.first.0.conv",
        "features.2.second.0.conv",
        "features.2.shortcut.conv",
    ),
    "weights:stage 3 and classifier": (
        "features.3.first.0.conv",
        "features.3.second.0.conv",
        "features.3.shortcut.conv",
        "dense",
    ),
}
WIDTHS = {
    "features.0.0.conv": (16, 12, 8),
    "features.1.first.0.conv": (16, 8, 4),
    "features.2.first.0.conv": (32, 20, 8),
    "features.2.second.0.conv": (32, 20, 8),
    "features.3.first.0.conv": (64, 36, 16),
    "features.3.second.0.conv": (64, 36, 16),
}
SPACE = Space(
    (
        *(Gene(f"width:{group}", widths) for group, widths in WIDTHS.items()),
        Gene(f"depth:{BLOCK}", (1, 0)),
        *(Gene(name, FORMATS) for name in LAYERS),
    ),
    (Moot(f"depth:{BLOCK}", 0, ("width:features.1.first.0.conv", "weights:block 1")),),
)


def candidates() -> list[Candidate]:
    """All of them, those of one architecture together."""
    every = product(*map(range, SPACE.sizes))
    return sorted({SPACE.canonical(each) for each in every})


def choices(candidate: Candidate) -> dict[str, Choice]:
    """Of the super-network's own genes."""
    found: dict[str, Choice] = {}
    for name, choice in SPACE.choices(candidate).items():
        layers = LAYERS.get(name)
        found |= {name: choice} if layers is None else {WEIGHTS + each: choice for each in layers}
    return found


@dataclass(frozen=True, eq=False)
class Table:
    """What was recorded.

    Args:
        values: [candidates, metrics], in the order of `candidates()`.
        recorded: machine, versions and source that they come from.
    """

    metrics: tuple[str, ...]
    values: npt.NDArray[np.float64]
    recorded: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path = TABLE) -> Table:
        """Raises:
        SystemExit: it was not recorded, or of another space.
        """
        if not path.exists():
            raise SystemExit(f"{path} is missing: python benchmarks/search.py record FOLDER")
        with np.load(path, allow_pickle=False) as kept:
            recorded = json.loads(str(kept["recorded"]))
            made = cls(tuple(kept["metrics"].tolist()), kept["values"], recorded)
        if len(made.values) != len(candidates()):
            raise SystemExit(f"{path} has {len(made.values)} rows, the space {len(candidates())}")
        return made

    def write(self, path: Path = TABLE) -> None:
        path.parent.mkdir(exist_ok=True)
        metrics, recorded = np.array(self.metrics), json.dumps(self.recorded)
        np.savez_compressed(path, metrics=metrics, values=self.values, recorded=recorded)

    @cached_property
    def rows(self) -> dict[Candidate, Metrics]:
        """Candidate -> metric -> value."""
        named = (dict(zip(self.metrics, row, strict=True)) for row in self.values.tolist())
        return dict(zip(candidates(), named, strict=True))


@dataclass(frozen=True)
class Everything(Sampler):
    """All candidates of a space, in their order."""

    name: ClassVar[str] = "everything"

    def run(self, task: Task, log: Log) -> Asking:
        every = candidates()
        for start in range(0, len(every), BATCH):
            yield [Proposal(each, "all") for each in every[start : start + BATCH]]


def record(folder: Path) -> Table:
    """Train the super-network, evaluate all candidates, and write the table."""
    every = candidates()
    objectives = (Objective("accuracy", "higher"), Objective("instructions", "lower"))
    task = Task(SPACE, objectives, (), lambda _: {}, (), len(every), SEED)
    recorded = {**header(installed("brevitas")), "source": own_source_digest()[:12]}
    facts = {"recorded": json.dumps(recorded, sort_keys=True)}
    _super_network(folder)
    with (
        ConsoleObserver(Console(stderr=True)).running("recording") as progress,
        Archive.opened(folder / "evaluations.jsonl", SPACE, facts) as archive,
    ):
        make = partial(evaluation, folder)
        found = search(task, Everything(), make, Pool(workers=WORKERS), archive, progress)
    if failed := [trial for trial in found.trials if trial.failed]:
        raise SystemExit(f"{len(failed)} evaluations failed, first: {failed[0].error}")
    metrics = tuple(sorted(found.trials[0].metrics))
    values = np.array([[each.metrics[name] for name in metrics] for each in found.trials])
    made = Table(metrics, values, recorded)
    made.write()
    return made


def evaluation(folder: Path) -> Evaluation:
    """What scores candidates of the coarse space."""
    torch.set_num_threads(1)
    start, joint = _super_network(folder)
    few = drawn(start.train, SAMPLES["statistics"] + SAMPLES["calibration"], SEED).inputs
    evidence = Evidence(
        few[: SAMPLES["statistics"]],
        few[SAMPLES["statistics"] :],
        drawn(start.selection, SAMPLES["selection"], SEED),
    )
    target = get_target(TARGET)
    costs = cost_model(target, folder / "costs")
    evaluate = Evaluator(joint, evidence, PTQOptions(), target, costs, seed=SEED)
    return lambda given: evaluate(choices(SPACE.of(given)))


def _super_network(folder: Path) -> tuple[Trained, Joint]:
    """IC and its super-network, trained once per folder."""
    start, description = trained(folder), get_target(TARGET).describe()
    joint = joint_of(
        start.module,
        SHAPE,
        offered(FORMATS, ("int8",), [description]),
        PTQOptions(),
        scores=unit_scores(start.module, SHAPE, start.train, IMPORTANCE, SEED),
        divisor=description.channel_divisor,
    )
    weights = folder / "super-network.safetensors"
    if not weights.exists():
        trainer = SuperTrainer(
            joint, start.module, TRAINING, seed=SEED, checkpoint=folder / "training.pt"
        )
        judged = drawn(start.selection, SAMPLES["selection"], SEED)
        with ConsoleObserver(Console(stderr=True)).running("training") as progress:
            trainer.run(start.train, judged, progress)
        state = {name: value.clone() for name, value in joint.network.state_dict().items()}
        safetensors.torch.save_file(state, weights)
    joint.network.load_state_dict(safetensors.torch.load_file(weights))
    return start, joint
