"""`quantize`: the trained model becomes integers (post-training quantization).

Its parameters are `PTQOptions`. Output: the integers as scored (`searched.npz`,
`searched.json`) and what rebuilding the fake-quantized module needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.allocated import with_allocated_formats, with_allocation
from edgesmith.pipeline.pruned import with_pruning
from edgesmith.pipeline.stage import Refusal, Stage, StageContext
from edgesmith.quantize.options import PTQOptions

if TYPE_CHECKING:
    from edgesmith.pipeline.spec import Spec
    from edgesmith.targets.base import TargetDescription


@dataclass(frozen=True)
class Quantize(PTQOptions, Stage):
    """Post-training quantization with Brevitas."""

    name: ClassVar[str] = "quantize"

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return with_allocation(spec, *with_pruning(spec, "load", "data"))

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.versions import installed

        return installed("torch", "brevitas", "numpy")

    def refusals(self, description: TargetDescription) -> Iterator[Refusal]:
        from edgesmith.quantize.target_formats import refusals

        return refusals(self, description)

    def run(self, context: StageContext) -> None:
        from edgesmith.pipeline.pruned import model_to_quantize
        from edgesmith.pipeline.splits import read_split
        from edgesmith.pipeline.target_facts import get_target
        from edgesmith.quantize.ptq import quantize

        model = model_to_quantize(context)
        calibration = read_split(context.inputs["data"], "calibration")
        quantized = quantize(
            model,
            calibration.inputs,
            with_allocated_formats(self, context),
            seed=context.seed,
            progress=context.progress,
            targets=[get_target(name).describe() for name in context.spec.targets],
        )
        quantized.save(context.folder)
        context.log.info("quantized %d tensors", len(quantized.searched().tensors))
