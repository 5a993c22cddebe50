"""`search`: sub-networks of the trained model and number formats of every group, chosen jointly.

Runs only where a spec names it; pruning and quantizing then take its model, and quantizing its
formats. Its parameters are `SearchOptions`. Output: `plan.json` and `weights.safetensors` (the
chosen sub-network), `rules.json` (its formats), `search.json` (`SearchResult`), archives of what
was evaluated (`trials.jsonl`, ...), and `front/candidate-N/`: members of the front as deployed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgesmith.nas.options import SearchOptions, rules
from edgesmith.pipeline.stage import Refusal, Stage, StageContext, counts_for, lacking_metric

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec
    from edgesmith.targets.base import TargetDescription

FRONT = "front"
"""Artifacts of members of the front, for the target that was searched for."""
_OF_SHAPES = ("weight-bytes", "macs", "bit-operations")
_FREE = ("evaluations", "executor", "executor_options", "choose", "measure_front")
"""Parameters that change no evaluation: a killed search goes on with others."""


@dataclass(frozen=True)
class Search(SearchOptions, Stage):
    """A joint search over sub-networks and number formats by the target's measured cost."""

    name: ClassVar[str] = "search"
    # Hardly a sub-network of a super-network has the shapes of another: oneDNN would keep 1,024
    # kernels that never run again, more memory than small models train in.
    environment: ClassVar[Mapping[str, str]] = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"}

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("load", "data")

    def refusals(self, description: TargetDescription, *, first: bool) -> Iterator[Refusal]:
        if not counts_for(description, self.target, first=first):
            return
        named: list[tuple[tuple[str | int, ...], str]] = [
            *((("minimize", at), metric) for at, metric in enumerate(self.minimize or ())),
            *((("limits", metric), metric) for metric in self.limits),
        ]
        for path, metric in named:
            if metric not in _OF_SHAPES:
                yield from lacking_metric(description, metric, path)
        if self.minimize is None and not description.cost_metrics:
            yield Refusal(
                ("minimize",),
                f"target {description.name!r} has no cost model, so nothing says what is small",
                "set `minimize: [weight-bytes]`, or name another `target`",
            )
        known = rules((self.judge, *(self.minimize or description.cost_metrics[:1])))
        if self.choose is not None and self.choose not in known:
            yield Refusal(
                ("choose",),
                f"`{self.choose}` is best in nothing that candidates are judged by",
                f"write {' or '.join(known)}",
            )

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.spec import canonical_json
        from edgesmith.pipeline.target_facts import get_target, tool_parts
        from edgesmith.pipeline.versions import installed

        chosen = self.target or spec.targets[0]
        facts = {
            f"facts of {name}": canonical_json(get_target(name).describe().facts())
            for name in sorted({chosen, *spec.targets})
        }
        quantization = canonical_json(spec.parameters("quantize"))
        versions = installed("torch", "torch-pruning", "brevitas", "numpy", "pymoo", "scikit-learn")
        parts = {"searched for": chosen, "quantization": quantization}
        return {**parts, **facts, **tool_parts(chosen), **versions}

    def _trained_with(self, spec: Spec) -> dict[str, object]:
        """What the super-network rests on beside model, data, and the space of its candidates."""
        from edgesmith.pipeline.jsonvalue import to_data
        from edgesmith.pipeline.own_source import own_source_digest
        from edgesmith.pipeline.versions import installed
        from edgesmith.prune.options import FORMATS

        quantization = spec.parameters("quantize")
        return {
            "training": to_data(self.training),
            "importance": self.importance,
            "exclude": self.elasticity.exclude,
            "formats": {name: quantization.get(name) for name in FORMATS},
            "source": own_source_digest(),
            "versions": installed("torch", "torch-pruning", "numpy"),
        }

    def _scored_with(self, spec: Spec, target: str | None) -> str:
        """A digest of what scores of candidates rest on beside the super-network."""
        from edgesmith.pipeline.spec import canonical_json
        from edgesmith.pipeline.unfinished import digest_of

        quantization = {k: v for k, v in spec.parameters("quantize").items() if k != "qat"}
        parts = {
            **self.key_parts(spec, target),
            "quantization": canonical_json(quantization),
            "statistics": str(self.statistics),
        }
        return digest_of(parts)

    def run(self, context: StageContext) -> None:
        import shutil

        from edgesmith.nas.run import search_jointly
        from edgesmith.nas.stored import save_chosen
        from edgesmith.nas.workplace import Workplace
        from edgesmith.pipeline.errors import SearchError
        from edgesmith.pipeline.stages.quantize import formats_left_open
        from edgesmith.pipeline.unfinished import kept_folder, trainings_folder, unfinished_folder

        spec = context.spec
        if spec.model.kind == "file":
            raise SearchError(
                "a model file has no sub-networks: its weights are integers already",
                fix="give the torch model, or remove the stage `search`",
            )
        workplace = Workplace(
            spec,
            self,
            formats_left_open(spec, self.name),
            context.inputs["load"],
            context.inputs["data"],
            unfinished_folder(self, context, _FREE).name,
            kept_folder(self, context, "super-networks", self._trained_with(spec)),
            trainings_folder(context),
            self._scored_with(spec, context.target),
        )
        chosen = search_jointly(workplace, context.folder / FRONT, context.progress)
        save_chosen(chosen, context.folder)
        for kind, archive in chosen.archives.items():
            shutil.copyfile(archive, context.folder / f"{kind}.jsonl")
        for line in chosen.result.summary():
            context.log.info("%s", line)
