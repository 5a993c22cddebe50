"""Structured pruning by measured instructions, against the whole model and uniform widths.

All start from the same weights and are fine-tuned alike: the same teacher, the same epochs. The
uniform widths are given at least as many instructions as the pruned model has.
"""

from __future__ import annotations

import copy
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
from edgesmith.prune.costs import costs_on
from edgesmith.prune.importances.base import Labelled, importances
from edgesmith.prune.selection import Choice, Limits, Selection
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
    """IC at half of its measured Cortex-M4 instructions, beside uniform widths."""
    start = trained(folder)
    result = _pruned(folder, start)
    ours = percent(result, "pruned")
    floating, _ = tuned(copy.deepcopy(start.module), start, FINETUNE, "IC, not pruned")
    uniform, whole = _uniform(folder, start)
    narrow, minutes = tuned(apply_plan(start.module, uniform.plan), start, FINETUNE, "IC, uniform")
    instructions = _instructions(result)

    yield Row("IC: float, fine-tuned, before pruning", start.percent, "%")
    yield Row("IC: float, fine-tuned equally long", floating, "%")
    yield Row("IC: pruned, fine-tuned", ours, "%")
    yield Row("IC: pruned below float", floating - ours, "points", goal=3)
    yield Row("IC: pruned, INT8, deployed", percent(result, "deployed"), "%")
    share = instructions / _instructions(_unpruned(folder, start))
    yield Row("IC: pruned, share of measured instructions", share, "", "simulated", SHARE)
    total = start.minutes + minutes
    yield Row("IC: fine-tuning, before and after pruning", total, "min", goal=MINUTES)
    yield Row("IC: uniform widths, fine-tuned", narrow, "%")
    assert result.pruning is not None
    over = uniform.cost.value / result.pruning.after.value
    title = "IC: uniform widths, instructions over pruned"
    yield Row(title, over, "x", "simulated", goal=1, better="higher")
    title = "IC: uniform widths, share of instructions"
    yield Row(title, uniform.cost.value / whole, "", "simulated")
    yield Row("IC: pruned above uniform widths", ours - narrow, "points", goal=1, better="higher")


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


def _uniform(folder: Path, start: Trained) -> tuple[Choice, float]:
    """Uniform widths that cost at least the goal, with the stage's importance; the whole cost."""
    costs = costs_on(get_target(CORE), folder / ".edgesmith" / "costs", SHAPE)
    structure = structure_of(start.module, SHAPE, ())
    generator = torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(len(start.train), generator=generator)[:SAMPLES]
    inputs, labels = (torch.from_numpy(each) for each in (start.train.inputs, start.train.labels))
    data = Labelled(inputs[chosen], labels[chosen], SEED)
    work = copy.deepcopy(start.module).requires_grad_(True)
    scores = importances().get(IMPORTANCE)().scores(work, structure.groups, data)
    divisor = get_target(CORE).describe().channel_divisor
    selection = Selection(start.module, structure, scores, costs, Limits(divisor))
    whole = costs.measure([start.module])[0].value
    return selection.uniform(SHARE * whole), whole
