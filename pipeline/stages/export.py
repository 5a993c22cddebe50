"""`export`: the scored integers become `model.onnx`, the QDQ interchange file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.pruned import with_pruning
from edgesmith.pipeline.stage import Stage, StageContext

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec


@dataclass(frozen=True)
class Export(Stage):
    """QDQ ONNX, checked by `onnx.checker`."""

    name: ClassVar[str] = "export"

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return with_pruning(spec, "load", "quantize")

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.versions import installed

        return installed("onnx", "torch", "brevitas", "numpy")

    def run(self, context: StageContext) -> None:
        from edgesmith.pipeline.pruned import model_to_quantize
        from edgesmith.quantize.export import export_qdq
        from edgesmith.quantize.ptq import load

        model = model_to_quantize(context)
        export_qdq(load(context.inputs["quantize"], model), context.folder / "model.onnx")
