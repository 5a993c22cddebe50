"""`score`: what the float, the fake-quantized and the exported model say about the test split.

Output: `predictions.npz` (form -> outputs [samples, ...]) and one `trace-FORM.npz` per
form (tensor -> values of the first test samples, in torch's axis order).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from edgesmith.pipeline.pruned import with_pruning
from edgesmith.pipeline.stage import Stage, StageContext

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec

FORMS = ("float", "fake-quantized", "onnxruntime")
PRUNED_FORM = "pruned"
"""Between float and fake-quantized where the spec prunes; `float` is the unpruned model then,
and the trace of that name the pruned one's.
"""


@dataclass(frozen=True)
class Score(Stage):
    """Score the forms that do not depend on a target.

    Args:
        trace_samples: test samples whose intermediate tensors are compared layer by layer.
    """

    name: ClassVar[str] = "score"

    trace_samples: Annotated[int, Field(ge=1)] = 16

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return with_pruning(spec, "load", "data", "quantize", "export")

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.versions import installed

        return installed("torch", "brevitas", "onnxruntime", "numpy")

    def run(self, context: StageContext) -> None:
        from edgesmith.pipeline.arrays import save_arrays
        from edgesmith.pipeline.onnx_form import run_exported, trace_exported
        from edgesmith.pipeline.pruned import model_to_quantize, prunes
        from edgesmith.pipeline.splits import read_split
        from edgesmith.pipeline.torch_model import load_model, predict
        from edgesmith.quantize.ptq import load

        model = load_model(context.spec, context.inputs["load"])
        smaller = model_to_quantize(context) if prunes(context.spec) else model
        quantized = load(context.inputs["quantize"], smaller)
        exported = context.inputs["export"] / "model.onnx"
        inputs = read_split(context.inputs["data"], "test").inputs
        few = inputs[: self.trace_samples]
        progress = context.progress
        progress.report("scoring", 0, len(FORMS))
        outputs = {"float": predict(model, inputs)}
        if smaller is not model:
            outputs[PRUNED_FORM] = predict(smaller, inputs)
        progress.report("scoring", 1, len(FORMS))
        outputs["fake-quantized"] = quantized.predict(inputs)
        progress.report("scoring", 2, len(FORMS))
        outputs["onnxruntime"] = run_exported(exported, inputs)
        progress.report("scoring", 3, len(FORMS))
        save_arrays(context.folder / "predictions.npz", outputs)
        traces = (quantized.float_trace(few), quantized.trace(few), trace_exported(exported, few))
        for form, trace in zip(FORMS, traces, strict=True):
            save_arrays(context.folder / f"trace-{form}.npz", trace)
