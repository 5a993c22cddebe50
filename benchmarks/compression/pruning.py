"""Structured pruning by measured instructions, against the whole model and uniform widths.

All start from the same weights and are fine-tuned alike: the same teacher, the same epochs.
The widths of the pruned model are those that its trials chose on the selection split. Uniform
widths come in coarse steps: the two next to the pruned model's instructions are trained, and what
they would reach at exactly as many is taken from the line between them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deployments import deploy, percent, spec_of, variant
from rows import Row

from compression.trained import SEED, SHAPE, Trained, trained, tuned
from edgesmith.pipeline.jsonvalue import adapter
from edgesmith.pipeline.results import DeploymentResult
from edgesmith.pipeline.target_facts import get_target
from edgesmith.prune.costs import SAMPLES, costs_on
from edgesmith.prune.driver import drawn
from edgesmith.prune.importances.base import Labelled, importances
from edgesmith.prune.options import PruneOptions
from edgesmith.prune.selection import Choice, Limits, Selection
from edgesmith.prune.structure import structure_of
from edgesmith.prune.surgery import apply_plan

CORE = "cortex-m4"
MINUTES = 20
STAGE: dict[str, Any] = spec_of("ic-pruned")["stages"][0]
OPTIONS = adapter(PruneOptions).validate_python({k: v for k, v in STAGE.items() if k != "stage"})
FEW = {"test": {"part": "test", "per_class": 10}}


def pruning(folder: Path) -> Iterator[Row]:
    """IC at half of its measured Cortex-M4 instructions, beside uniform widths."""
    share, finetune = OPTIONS.cost, OPTIONS.finetune
    assert share is not None
    assert finetune is not None
    start = trained(folder)
    result = _pruned(folder, start)
    seconds = {stage: took for stage, took, _ in result.provenance.stages}
    minutes = start.minutes + seconds["prune"] / 60
    whole_minutes = start.minutes + sum(seconds.values()) / 60
    ours = percent(result, "pruned")
    floating = tuned(copy.deepcopy(start.module), start, finetune, "IC, not pruned")
    uniform, whole = _uniform(folder, start, share)
    costs = [each.cost.value for each in uniform]
    reached = [
        tuned(apply_plan(start.module, each.plan), start, finetune, "IC, uniform")
        for each in uniform
    ]
    assert result.pruning is not None
    equal = float(np.interp(result.pruning.after.value, costs, reached))
    instructions = _instructions(result)

    yield Row("IC: float, fine-tuned, before pruning", start.percent, "%")
    yield Row("IC: float, fine-tuned equally long", floating, "%")
    solved = result.pruning.rounds[-1].pruned_accuracy
    yield Row("IC: pruned, reconstructed, not fine-tuned, selection split", solved, "%")
    yield Row("IC: pruned, fine-tuned", ours, "%")
    yield Row("IC: pruned below float", floating - ours, "points", goal=3)
    yield Row("IC: pruned, INT8, deployed", percent(result, "deployed"), "%")
    left = instructions / _instructions(_unpruned(folder, start))
    yield Row("IC: pruned, share of measured instructions", left, "", "simulated", goal=share)
    yield Row("IC: fine-tuning, before pruning and with it", minutes, "min", goal=MINUTES)
    yield Row("IC: fine-tuning before, and the whole spec", whole_minutes, "min")
    for name, cost, percents in zip(("narrower", "wider"), costs, reached, strict=True):
        title = f"IC: uniform widths, {name}"
        yield Row(f"{title}, share of instructions", cost / whole, "", "simulated")
        yield Row(f"{title}, fine-tuned", percents, "%")
    title = "IC: uniform widths, fine-tuned, between the two at the pruned instructions"
    yield Row(title, equal, "%", "estimated")
    yield Row("IC: pruned above these", ours - equal, "points", "estimated", 1, "higher")
    title = "IC: pruned above the wider uniform widths, which cost more"
    yield Row(title, ours - reached[-1], "points", better="higher")


def _pruned(folder: Path, start: Trained) -> DeploymentResult:
    """The model of the example's spec, run on the emulated core."""
    stages = [STAGE, {"stage": "quantize"}]
    spec = variant("ic-pruned", "ic-pruned", folder, stages, [CORE], checkpoint=start.checkpoint)
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


def _uniform(folder: Path, start: Trained, share: float) -> tuple[tuple[Choice, Choice], float]:
    """Uniform widths around the goal, with the stage's importance; the whole model's cost."""
    inputs = drawn(start.train, SAMPLES, SEED).inputs
    costs = costs_on(get_target(CORE), folder / ".edgesmith" / "costs", inputs)
    structure = structure_of(start.module, SHAPE, OPTIONS.exclude)
    few = drawn(start.train, OPTIONS.samples, SEED)
    data = Labelled(torch.from_numpy(few.inputs), torch.from_numpy(few.labels), SEED)
    work = copy.deepcopy(start.module).requires_grad_(True)
    scores = importances().get(OPTIONS.importance)().scores(work, structure.groups, data)
    divisor = get_target(CORE).describe().channel_divisor
    selection = Selection(
        start.module, structure, scores, costs, Limits(divisor, OPTIONS.max_pruned)
    )
    whole = costs.measure([start.module])[0].value
    return selection.uniform(share * whole), whole
