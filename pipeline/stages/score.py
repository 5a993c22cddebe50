"""`score`: what the float, the fake-quantized and the exported model say about the test split.

The fake-quantized model is scored twice: rounding as the exported file says, and as the kernels of
microcontrollers do.

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
SMALLER_FORMS = {"search": "sub-network", "prune": "pruned"}
"""Stage -> what its model is called. The last of them lies between float and fake-quantized;
`float` is the trained model then, and the trace of that name the smaller one's.
"""
FIXED_POINT_FORM = "fixed-point"
"""The fake-quantized model with TFLite Micro's rounding; of integer formats only."""


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
        from edgesmith.pipeline.pruned import model_to_quantize, smaller
        from edgesmith.pipeline.splits import read_split
        from edgesmith.pipeline.torch_model import load_model, predict
        from edgesmith.quantize.fixed_point import on_fixed_point
        from edgesmith.quantize.ptq import load

        model = load_model(context.spec, context.inputs["load"])
        made = smaller(context.spec)
        final = model_to_quantize(context) if made else model
        quantized = load(context.inputs["quantize"], final)
        exported = context.inputs["export"] / "model.onnx"
        inputs = read_split(context.inputs["data"], "test").inputs
        few = inputs[: self.trace_samples]
        progress = context.progress
        steps = len(FORMS) + 1
        progress.report("scoring", 0, steps)
        outputs = {"float": predict(model, inputs)}
        if made:
            outputs[SMALLER_FORMS[made[-1]]] = predict(final, inputs)
        progress.report("scoring", 1, steps)
        outputs["fake-quantized"] = quantized.predict(inputs)
        progress.report("scoring", 2, steps)
        outputs["onnxruntime"] = run_exported(exported, inputs)
        progress.report("scoring", 3, steps)
        traces = {
            "float": quantized.float_trace(few),
            "fake-quantized": quantized.trace(few),
            "onnxruntime": trace_exported(exported, few),
        }
        on_device = on_fixed_point(quantized)
        if on_device is not None:
            outputs[FIXED_POINT_FORM] = on_device.predict(inputs)
            traces[FIXED_POINT_FORM] = on_device.trace(few)
        progress.report("scoring", steps, steps)
        save_arrays(context.folder / "predictions.npz", outputs)
        for form, trace in traces.items():
            save_arrays(context.folder / f"trace-{form}.npz", trace)
