"""`report`: validation against budgets, and everything to look at, in one folder per target.

Output: `report.html`, `result.json`, `junit.xml`, the artifact and `parity.json`; of a search also
`front/` with the artifacts of its front, for the target that was searched for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.allocated import with_allocation
from edgesmith.pipeline.pruned import with_pruning
from edgesmith.pipeline.stage import Stage, StageContext

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec


@dataclass(frozen=True)
class Report(Stage):
    """Compare the forms of the model, check the budgets, render the report."""

    name: ClassVar[str] = "report"
    per_target: ClassVar[bool] = True

    def requires(self, spec: Spec) -> tuple[str, ...]:
        stages = ("data", "build", "run", "measure")
        if spec.model.kind == "file":
            return stages
        made = with_allocation(spec, "load", "quantize", "score", "export", *stages)
        return with_pruning(spec, *made)

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.jsonvalue import to_json
        from edgesmith.pipeline.versions import installed

        versions = installed("jinja2", "plotly")
        return {"budgets": to_json(spec.budgets), "spec": spec.sha256, **versions}

    def run(self, context: StageContext) -> None:
        import shutil

        from edgesmith.pipeline.deployment import gather
        from edgesmith.pipeline.jsonvalue import to_json
        from edgesmith.pipeline.stages.build import ORDER, PRODUCTS
        from edgesmith.pipeline.stages.search import FRONT
        from edgesmith.reports.junit import junit_xml
        from edgesmith.reports.render import render_html

        for path in sorted(context.inputs["build"].iterdir()):
            if path.is_file() and path.name not in (PRODUCTS, ORDER):
                shutil.copyfile(path, context.folder / path.name)
        if "export" in context.inputs:
            shutil.copyfile(context.inputs["export"] / "model.onnx", context.folder / "qdq.onnx")
        result = gather(context)
        if result.search is not None and result.search.target == context.target:
            front = context.inputs["search"] / FRONT
            shutil.copytree(front, context.folder / FRONT, dirs_exist_ok=True)
        (context.folder / "result.json").write_text(to_json(result), encoding="utf-8")
        (context.folder / "junit.xml").write_text(junit_xml(result), encoding="utf-8")
        (context.folder / "report.html").write_text(render_html(result), encoding="utf-8")
