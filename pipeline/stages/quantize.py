"""`quantize`: the trained model becomes integers (post-training quantization).

Its parameters are `PTQOptions`. Output: the integers as scored (`searched.npz`,
`searched.json`) and what rebuilding the fake-quantized module needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.stage import Stage, StageContext
from edgesmith.quantize.options import PTQOptions

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec


@dataclass(frozen=True)
class Quantize(PTQOptions, Stage):
    """INT8 post-training quantization with Brevitas."""

    name: ClassVar[str] = "quantize"

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return ("load", "data")

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.versions import installed

        return installed("torch", "brevitas", "numpy")

    def run(self, context: StageContext) -> None:
        from edgesmith.pipeline.splits import read_split
        from edgesmith.pipeline.torch_model import load_model
        from edgesmith.quantize.ptq import quantize

        model = load_model(context.spec, context.inputs["load"])
        calibration = read_split(context.inputs["data"], "calibration")
        quantized = quantize(
            model,
            calibration.inputs,
            self,
            seed=context.seed,
            progress=context.progress,
        )
        quantized.save(context.folder)
        context.log.info("quantized %d tensors", len(quantized.searched().tensors))
