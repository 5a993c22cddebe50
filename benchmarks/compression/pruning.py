"""Structured pruning by measured instructions, against the whole model and uniform widths.

All start from the same weights and are fine-tuned alike: the same teacher, the same epochs.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from deployments import deploy, percent, variant
from rows import Row

from compression.trained import SEED, SHAPE, TRAINING, Trained, trained, tuned
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.target_facts import get_target
from edgesmith.pipeline.training.options import Training
from edgesmith.prune.costs import Costs, costs_on
from edgesmith.prune.importances.base import Labelled, importances
from edgesmith.prune.selection import Limits, Selection
from edgesmith.prune.structure import structure_of
from edgesmith.prune.surgery import apply_plan

CORE = "cortex-m4"
SHARE = 0.5
MINUTES = 20
SAMPLES = 512
IMPORTANCE = "group-fisher"
FINETUNE = Training(
    epochs=16,
    batch_size=128,
    learning_rate=2e-3,
    weight_decay=0.01,
    distillation=0.7,
    temperature=3.0,
    patience=16,
    flip=True,
    shift=3,
    precision="bfloat16",
)
FEW = {"test": {"part": "test", "per_class": 10}}


def pruning(folder: Path) -> Iterator[Row]:
    """IC at half of its measured Cortex-M4 instructions; the same beside uniform widths."""
    start = trained(folder)
    costs = costs_on(get_target(CORE), folder / ".edgesmith" / "costs", SHAPE)
    whole = costs.measure([start.module])[0]
    before = time.perf_counter()
    result = _pruned(folder, start)
    minutes = (time.perf_counter() - before) / 60
    floating = tuned(copy.deepcopy(start.module), start, FINETUNE, "IC, not pruned")
    uniform = _selection(start, costs).uniform(SHARE * whole.value)
    equal = _selection(start, costs).reach(uniform.cost.value)
    narrow = tuned(apply_plan(start.module, uniform.plan), start, FINETUNE, "IC, uniform widths")
    ours = tuned(apply_plan(start.module, equal.plan), start, FINETUNE, "IC, the same cost")

    instructions = _instructions(result)
    unpruned = _instructions(_unpruned(folder, start))
    yield Row("IC: fine-tuned float, before pruning", start.percent, "%")
    yield Row("IC: not pruned, fine-tuned on equally long", floating, "%")
    yield Row("IC: pruned, fine-tuned, float", percent(result, "pruned"), "%")
    below = floating - percent(result, "pruned")
    yield Row("IC: pruned below not pruned, float", below, "points", goal=3)
    yield Row("IC: pruned, INT8, deployed", percent(result, "deployed"), "%")
    share = instructions / unpruned
    yield Row("IC: pruned, share of measured instructions", share, "", "simulated", SHARE)
    yield Row("IC: whole spec with pruning", minutes, "min", goal=MINUTES)
    title = "IC at uniform widths' cost"
    share = uniform.cost.value / whole.value
    yield Row("IC: uniform widths, share of instructions", share, "", "simulated")
    share = equal.cost.value / uniform.cost.value
    yield Row(f"{title}: pruned, instructions over theirs", share, "", "simulated", 1)
    yield Row(f"{title}: uniform widths, float", narrow, "%")
    yield Row(f"{title}: pruned, float", ours, "%")
    yield Row(f"{title}: pruned above", ours - narrow, "points", goal=1, better="higher")


def _pruned(folder: Path, start: Trained) -> DeploymentResult:
    """The model of a spec that prunes, run on the emulated core."""
    stage = {
        "stage": "prune",
        "cost": SHARE,
        "rounds": 1,
        "importance": IMPORTANCE,
        "samples": SAMPLES,
        "tolerance_points": 10,
        "finetune": asdict(FINETUNE),
    }
    spec = variant(
        "ic", "ic-pruned", folder, [stage], [CORE], data=TRAINING, checkpoint=start.checkpoint
    )
    return deploy(spec, folder)[CORE]


def _instructions(result: DeploymentResult) -> float:
    if result.device is None:
        raise ValueError(f"{result.target} measured no instructions")
    return result.device.instructions.value


def _unpruned(folder: Path, start: Trained) -> DeploymentResult:
    """The whole model on the emulated core; a few images are enough to count instructions."""
    stages = [{"stage": "quantize"}]
    spec = variant("ic", "ic-whole", folder, stages, [CORE], data=FEW, checkpoint=start.checkpoint)
    return deploy(spec, folder)[CORE]


def _selection(start: Trained, costs: Costs) -> Selection:
    """As the stage `prune` chooses."""
    structure = structure_of(start.module, SHAPE, ())
    generator = torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(len(start.train), generator=generator)[:SAMPLES]
    inputs, labels = (torch.from_numpy(each) for each in (start.train.inputs, start.train.labels))
    data = Labelled(inputs[chosen], labels[chosen], SEED)
    work = copy.deepcopy(start.module).requires_grad_(True)
    scores = importances().get(IMPORTANCE)().scores(work, structure.groups, data)
    divisor = get_target(CORE).describe().channel_divisor
    return Selection(start.module, structure, scores, costs, Limits(divisor))
