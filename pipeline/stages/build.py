"""`build`: the exported file, lowered and built for one target, proven to be what was scored.

Output: the artifact, `products.json`, `parity.json`, `order.json` (`TraceOrder`), and
the float baseline as this target runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.stage import Stage, StageContext

if TYPE_CHECKING:
    from edgesmith.pipeline.results import Parity
    from edgesmith.pipeline.spec import Spec
    from edgesmith.pipeline.values import BuildProducts
    from edgesmith.targets.base import Target
    from edgesmith.targets.graph.ir import Layout

PRODUCTS = "products.json"
PARITY = "parity.json"
ORDER = "order.json"


@dataclass(frozen=True)
class Build(Stage):
    """Read, legalize, build, compare."""

    name: ClassVar[str] = "build"
    per_target: ClassVar[bool] = True

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("load",) if spec.model.kind == "file" else ("load", "quantize", "export")

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.target_facts import tool_parts
        from edgesmith.pipeline.versions import installed

        versions = installed("onnx", "numpy", "flatbuffers", "ai-edge-litert")
        return {**versions, **tool_parts(target)}

    def run(self, context: StageContext) -> None:
        from edgesmith.pipeline.lowering import (
            build_for,
            deploy_exported,
            prove,
            read_model,
            scored_in_file,
        )
        from edgesmith.pipeline.target_facts import get_target
        from edgesmith.quantize.searched import Searched

        target = get_target(context.target)
        source = next(
            context.inputs["export" if "export" in context.inputs else "load"].glob("model.*")
        )
        quantized = context.inputs.get("quantize")
        searched = None if quantized is None else Searched.load(quantized)
        if target.deploys_exported:
            products, parity = deploy_exported(
                source.read_bytes(), searched, target, context.folder
            )
            self._finish(context, target, products, parity, {})
            return
        graph = read_model(source)
        products, legal = build_for(graph, target, context.folder)
        if searched is None:
            parity, shipped = prove(scored_in_file(graph, legal), target, products)
        else:
            parity, shipped = prove(searched, target, products, legal.positions)
        order = {name: legal.layout[name] for name in shipped.tensors if name in legal.layout}
        self._finish(context, target, products, parity, order)

    def _finish(
        self,
        context: StageContext,
        target: Target,
        products: BuildProducts,
        parity: Parity,
        order: dict[str, Layout],
    ) -> None:
        from dataclasses import replace

        from edgesmith.pipeline.jsonvalue import to_json
        from edgesmith.targets.graph.drift import TraceOrder

        (context.folder / ORDER).write_text(to_json(TraceOrder(order)))
        (context.folder / PARITY).write_text(to_json(parity))
        float_onnx = context.inputs["load"] / "float.onnx"
        if float_onnx.exists():
            target.float_baseline(float_onnx, context.folder)
        # The folder moves when the stage is done: products are relative to it.
        (context.folder / PRODUCTS).write_text(to_json(replace(products, folder=".")))
        context.log.info("%d tensors compared, 0 differ", parity.compared)
