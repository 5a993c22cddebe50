"""`quantize`: the trained model becomes integers, after training or (`qat`) with some more of it.

Its parameters are `PTQOptions`. Output: the integers as scored (`searched.npz`,
`searched.json`), what rebuilding the fake-quantized module needs, and with `qat` what
training did (`qat.json`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgesmith.pipeline.allocated import with_allocated_formats, with_allocation
from edgesmith.pipeline.pruned import PRUNE, with_pruning
from edgesmith.pipeline.stage import Refusal, Stage, StageContext
from edgesmith.quantize.engines.options import OWN
from edgesmith.quantize.options import PTQOptions

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from edgesmith.pipeline.spec import Spec
    from edgesmith.quantize.ptq import QuantizedModel
    from edgesmith.quantize.qat.options import QAT
    from edgesmith.targets.base import TargetDescription


@dataclass(frozen=True)
class Quantize(PTQOptions, Stage):
    """Post-training quantization with Brevitas, then quantization-aware training if asked for."""

    name: ClassVar[str] = "quantize"

    def requires(self, spec: Spec) -> tuple[str, ...]:
        return with_allocation(spec, *with_pruning(spec, "load", "data"))

    def key_parts(self, spec: Spec, target: str | None) -> dict[str, str]:
        from edgesmith.pipeline.versions import installed

        # An engine is named as its package.
        engine = () if self.engine == OWN else (self.engine, "torchao")
        return installed("torch", "brevitas", "numpy", *engine)

    def refusals(self, description: TargetDescription, *, first: bool) -> Iterator[Refusal]:
        from edgesmith.quantize.target_formats import refusals

        return refusals(self, description)

    def run(self, context: StageContext) -> None:
        from edgesmith.pipeline.pruned import model_to_quantize
        from edgesmith.pipeline.splits import read_split
        from edgesmith.pipeline.target_facts import get_target
        from edgesmith.quantize.ptq import quantize
        from edgesmith.quantize.qat.masks import check_masked_formats

        model = model_to_quantize(context)
        tuned = self.neural_compressor is not None and self.neural_compressor.tune is not None
        selection = read_split(context.inputs["data"], "selection") if tuned else None
        quantized = quantize(
            model,
            self._calibration(context),
            with_allocated_formats(self, context),
            seed=context.seed,
            progress=context.progress,
            targets=[get_target(name).describe() for name in context.spec.targets],
            selection=selection,
        )
        masks = _masks(context, model, quantized)
        check_masked_formats(masks, quantized.placement)
        if self.qat is not None:
            quantized = self._trained(quantized, masks, self.qat, context)
        quantized.save(context.folder)
        context.log.info("quantized %d tensors", len(quantized.searched().tensors))
        for line in quantized.engine.summary() if quantized.engine is not None else ():
            context.log.info("%s", line)

    def _calibration(self, context: StageContext) -> npt.NDArray[np.float32]:
        """The inputs; none of them, but with their shape, in data-free mode."""
        import numpy as np

        from edgesmith.pipeline.spec import TorchModel
        from edgesmith.pipeline.splits import read_split

        if self.data_free is None:
            return read_split(context.inputs["data"], "calibration").inputs
        assert isinstance(context.spec.model, TorchModel)
        return np.empty((0, *context.spec.model.input_shape), np.float32)

    def _trained(
        self,
        start: QuantizedModel,
        masks: Mapping[str, Tensor],
        options: QAT,
        context: StageContext,
    ) -> QuantizedModel:
        """After quantization-aware training, which goes on where an interrupted run ended, or the
        search that trained this very start.
        """
        from edgesmith.pipeline.pruned import teacher_of
        from edgesmith.pipeline.splits import read_split
        from edgesmith.pipeline.unfinished import trainings_folder
        from edgesmith.quantize.qat.train import Learning, train_quantized

        data = context.inputs["data"]
        trained = train_quantized(
            start,
            Learning(read_split(data, "train"), read_split(data, "selection"), teacher_of(context)),
            options,
            seed=context.seed,
            masks=masks,
            progress=context.progress,
            checkpoints=trainings_folder(context),
        )
        trained.result.save(context.folder)
        for line in trained.result.summary():
            context.log.info("%s", line)
        # A search may need what it trained once more, to build the choice again.
        if trained.checkpoint is not None and not context.spec.has_stage("search"):
            trained.checkpoint.unlink(missing_ok=True)
        return trained.quantized


def formats_left_open(spec: Spec, stage: str) -> PTQOptions:
    """What the spec says about quantizing, to a stage that chooses formats itself.

    Raises:
        QuantizationError: formats of groups are set, too.
    """
    from edgesmith.pipeline.errors import QuantizationError
    from edgesmith.pipeline.jsonvalue import adapter
    from edgesmith.pipeline.spec import canonical_json

    given = canonical_json(spec.parameters("quantize"))
    options = adapter(Quantize).validate_json(given, strict=True)
    if options.overrides:
        raise QuantizationError(
            f"both `{stage}` and the overrides of `quantize` would choose formats",
            fix=f"remove the overrides, or the stage `{stage}`",
        )
    return options


def _masks(context: StageContext, model: nn.Module, made: QuantizedModel) -> Mapping[str, Tensor]:
    """Weights of the quantized layers that pruning set to zero; none without sparsity."""
    from edgesmith.prune.masks import load_masks
    from edgesmith.quantize.qat.masks import folded_masks

    pruned = context.inputs.get(PRUNE)
    return folded_masks(model, load_masks(pruned) if pruned else {}, made.sample_shape)
