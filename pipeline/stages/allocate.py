"""`allocate`: every group gets its formats, by sensitivity, within a budget.

Runs only where a spec names it; quantizing then takes its formats. Its parameters are
`AllocationOptions` and a target. Output: `allocation.json` (`Allocation`), `figure.json` (the
front's plot data) and `rules.json` (what `quantize` takes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.allocated import FIGURE, RULES
from edgesmith.pipeline.pruned import with_pruning
from edgesmith.pipeline.stage import (
    Refusal,
    Stage,
    StageContext,
    counts_for,
    lacking_metric,
    stage_seed,
)
from edgesmith.quantize.allocation.options import AllocationOptions

if TYPE_CHECKING:
    from torch import nn

    from edgesmith.pipeline.spec import Spec
    from edgesmith.quantize.allocation.allocate import Measure
    from edgesmith.quantize.allocation.target_costs import TargetCosts
    from edgesmith.quantize.options import PTQOptions
    from edgesmith.quantize.sensitivity.subject import Subject
    from edgesmith.targets.base import TargetDescription

ALLOCATION = "allocation.json"
_COSTS = ".edgesmith/costs"
_MEASURED = 5  # points of the front, if the spec does not say


@dataclass(frozen=True)
class Allocate(AllocationOptions, Stage):
    """Bit allocation by integer programming.

    Args:
        target: whose cost a budget in instructions, cycles or time is in; None takes the spec's
            first target.
    """

    name: ClassVar[str] = "allocate"

    target: str | None = None

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return with_pruning(spec, "load", "data")

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.spec import canonical_json
        from edgesmith.pipeline.target_facts import get_target, tool_parts
        from edgesmith.pipeline.versions import installed

        parts = installed("torch", "brevitas", "numpy", "scipy")
        parts["quantization"] = canonical_json(spec.parameters("quantize"))
        if self.metric is None:
            return parts
        chosen = self.target or spec.targets[0]
        facts = canonical_json(get_target(chosen).describe().facts())
        return {**parts, "costs on": chosen, f"facts of {chosen}": facts, **tool_parts(chosen)}

    def refusals(self, description: TargetDescription, *, first: bool) -> Iterator[Refusal]:
        from edgesmith.quantize.options import PTQOptions
        from edgesmith.quantize.target_formats import refusals

        if counts_for(description, self.target, first=first):
            for named, metric in self.metrics():
                yield from lacking_metric(description, metric, named)
        for at, weights in enumerate(self.weights):
            for by, activations in enumerate(self.activations):
                offered = PTQOptions(weights=weights, activations=activations)
                for each in refusals(offered, description):
                    path = each.path[-1]
                    place = at if path == "weights" else by
                    yield Refusal((path, place), each.message, each.fix)

    def run(self, context: StageContext) -> None:
        from edgesmith.pipeline.jsonvalue import to_json
        from edgesmith.pipeline.pruned import model_to_quantize
        from edgesmith.pipeline.splits import read_split
        from edgesmith.pipeline.stages.quantize import formats_left_open
        from edgesmith.quantize.allocation.allocate import allocate
        from edgesmith.quantize.allocation.options import Rules
        from edgesmith.quantize.sensitivity.subject import subject_of

        model, quantization = model_to_quantize(context), formats_left_open(context.spec, self.name)
        calibration = read_split(context.inputs["data"], "calibration")
        seed = stage_seed(context.spec.seed, "quantize")  # of learned rounding
        subject = subject_of(model, calibration.inputs, quantization, seed)
        options = self
        if self.measure_front is None and context.spec.data.selection is not None:
            options = replace(self, measure_front=_MEASURED)
        found = allocate(
            subject,
            options,
            costs=self._costs(context, model, subject),
            labels=calibration.labels,
            accuracy=options._accuracy(context, model, quantization),
            seed=context.seed,
            progress=context.progress,
        )
        (context.folder / ALLOCATION).write_text(to_json(found), encoding="utf-8")
        (context.folder / FIGURE).write_text(to_json(found.figure), encoding="utf-8")
        (context.folder / RULES).write_text(to_json(Rules(found.overrides)), encoding="utf-8")
        context.log.info("%s: %s", found.solution.method, found.solution.costs)

    def _costs(
        self, context: StageContext, model: nn.Module, subject: Subject
    ) -> TargetCosts | None:
        if self.metric is None:
            return None
        from edgesmith.pipeline.target_facts import get_target
        from edgesmith.quantize.allocation.target_costs import target_costs
        from edgesmith.targets.cost import Metric, cost_model

        target = get_target(self.target or context.spec.targets[0])
        return target_costs(
            model,
            subject.samples[:2].numpy(),
            subject.options,
            self.weights,
            self.activations,
            target=target,
            costs=cost_model(target, context.spec.folder / _COSTS),
            metric=Metric(self.metric),
        )

    def _accuracy(
        self, context: StageContext, model: nn.Module, quantization: PTQOptions
    ) -> Measure | None:
        if self.least_accuracy_percent is None and not self.measure_front:
            return None
        from edgesmith.pipeline.evaluation import predictions
        from edgesmith.pipeline.splits import read_split
        from edgesmith.quantize.allocation.values import Accuracy
        from edgesmith.quantize.options import Override
        from edgesmith.quantize.ptq import quantize

        calibration = read_split(context.inputs["data"], "calibration").inputs
        selection = read_split(context.inputs["data"], "selection")
        seed = stage_seed(context.spec.seed, "quantize")

        def measure(rules: tuple[Override, ...]) -> Accuracy:
            options = replace(quantization, overrides=rules)
            quantized = quantize(model, calibration, options, seed=seed, selection=selection)
            hits = predictions(quantized.predict(selection.inputs)) == selection.labels
            return Accuracy(100.0 * float(hits.mean()), len(hits), "selection")

        return measure
