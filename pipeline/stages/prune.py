"""`prune`: the trained model becomes smaller, until it costs what the spec allows on a target.

Runs only where a spec names it; quantizing then takes its model. Its parameters are
`PruneOptions`. Output: `plan.json` and `weights.safetensors` (the smaller module), `prune.json`
(`PruneResult`) and, with sparsity, `masks.safetensors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.pruned import SEARCH
from edgesmith.pipeline.stage import Refusal, Stage, StageContext, counts_for, lacking_metric
from edgesmith.prune.options import FORMATS, PruneOptions

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec
    from edgesmith.targets.base import TargetDescription


@dataclass(frozen=True)
class Prune(PruneOptions, Stage):
    """Structured pruning by the target's measured cost, fine-tuned, and zeros where asked for."""

    name: ClassVar[str] = "prune"

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("load", "data", SEARCH) if spec.has_stage(SEARCH) else ("load", "data")

    def refusals(self, description: TargetDescription, *, first: bool) -> Iterator[Refusal]:
        if counts_for(description, self.target, first=first):
            yield from lacking_metric(description, self.metric, ("metric",))

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.spec import canonical_json
        from edgesmith.pipeline.target_facts import get_target, tool_parts
        from edgesmith.pipeline.versions import installed

        chosen = self.target or spec.targets[0]
        facts = {
            f"facts of {t}": canonical_json(get_target(t).describe().facts())
            for t in sorted({chosen, *spec.targets})
        }
        given = spec.parameters("quantize")
        formats = canonical_json({key: given.get(key) for key in FORMATS})
        versions = installed("torch", "torch-pruning", "brevitas", "numpy")
        parts = {"pruned for": chosen, "formats": formats}
        return {**parts, **facts, **tool_parts(chosen), **versions}

    def run(self, context: StageContext) -> None:
        import math
        import shutil
        import tempfile
        from dataclasses import replace
        from pathlib import Path

        from edgesmith.pipeline.errors import PruningError
        from edgesmith.pipeline.pruned import model_to_quantize
        from edgesmith.pipeline.splits import read_split
        from edgesmith.pipeline.target_facts import get_target
        from edgesmith.pipeline.unfinished import STATE, unfinished_folder
        from edgesmith.prune.costs import SAMPLES, costs_on, quick
        from edgesmith.prune.driver import Pruner, Task, drawn
        from edgesmith.prune.gain import gain_statement
        from edgesmith.prune.stored import save_pruned
        from edgesmith.prune.timing import require_faster, speedup

        spec = context.spec
        if spec.model.kind == "file":
            raise PruningError(
                "a model file cannot be pruned: its channels are integers already",
                fix="give the torch model, or remove the stage `prune`",
            )
        target = get_target(self.target or spec.targets[0])
        train, selection = (read_split(context.inputs["data"], n) for n in ("train", "selection"))
        few = drawn(train, SAMPLES, context.seed).inputs
        described = [get_target(name).describe() for name in spec.targets]
        formats = quick(spec.parameters("quantize"))
        kept = spec.folder / STATE / "costs"
        costs = costs_on(target, kept, few, self.metric, formats)
        task = Task(
            model_to_quantize(context),
            train,
            selection,
            costs,
            target.name,
            math.lcm(*(each.channel_divisor for each in (target.describe(), *described))),
        )
        unfinished = unfinished_folder(self, context)
        pruner = Pruner(
            task, self, seed=context.seed, progress=context.progress, checkpoint=unfinished
        )
        pruned = pruner.run()
        timed = None
        if self.cost is not None and not costs.counted:
            with tempfile.TemporaryDirectory(prefix="edgesmith-prune-") as folder:
                timed = speedup(target, task.model, pruned.module, few, formats, Path(folder))
        if timed is not None:
            require_faster(timed, target.name)
        statements = tuple(map(gain_statement, described)) if pruned.masks else ()
        notes = (*pruned.result.notes, *statements)
        result = replace(pruned.result, notes=notes, timed=timed)
        save_pruned(replace(pruned, result=result), context.folder)
        shutil.rmtree(unfinished, ignore_errors=True)
        context.log.info(
            "%.0f -> %.0f %s", result.before.value, result.after.value, result.before.unit
        )
